"""How a page shows things: figures, tables and widgets."""
