"""An audit of the paper's printed numbers: what they can be, how they fit each other, and what they can show."""
