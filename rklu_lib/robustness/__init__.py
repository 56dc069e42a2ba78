"""Probes and attacks that test whether an unlearned model still holds the forget set, beside a reference model.

`attack.run` runs every probe named in `PROBES`; each of the other modules can also be used alone.
"""

PROBES = ("memorisation", "membership", "questions", "sampling", "rounding", "relearning")
