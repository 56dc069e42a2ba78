"""Pages that the paper does not have."""
