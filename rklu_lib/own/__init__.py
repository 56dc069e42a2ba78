"""A model of one's own: what people have is read, planned, unlearned by a rule, measured and reported.

`unlearning.unlearn` is the whole; the other modules are its parts.
"""
