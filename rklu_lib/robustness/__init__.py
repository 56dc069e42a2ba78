"""Does it stay forgotten? Probes and attacks on a model that was made to forget, beside one that never knew.

`attack.run` does all of them, by the names below; the other modules are its parts, each usable alone.
"""

PROBES = ("memorisation", "membership", "questions", "sampling", "rounding", "relearning")
