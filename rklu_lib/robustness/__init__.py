"""Does it stay forgotten? Probes and attacks on a model that was made to forget, beside one that never knew.

`attack.run` does all of them; the other modules are its parts, each usable alone.
"""
