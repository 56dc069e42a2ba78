"""What fewer bits bring back: unlearning moves weights by little, and rounding may undo it (Zhang et al., 2025, who
report 21 % of the knowledge kept in full precision, and 83 % at 4 bits)."""

import numpy as np

from rklu_lib import metrics
from rklu_lib.own import measure
from rklu_lib.robustness import memorisation, tokens

# In words; the functions are `own.measure.ROUNDINGS`. Weights are rounded to nearest and multiplied out in float32
# again: what is lost is what such a file loses, and it runs on any processor. No calibration, no outlier columns kept.
SCHEMES = {
    "bfloat16": "to bfloat16: 8 bits of precision, each weight by itself",
    "8-bit": "to 255 levels, symmetric about 0, scaled by the largest weight of each row of a matrix",
    "4-bit": "to 15 levels, symmetric about 0, scaled by the largest of every 64 weights",
}


def rounded(model, examples, end):
    """What copies of `model` with rounded weights hold of n answers: {scheme: {"probability": (n,), geometric mean per
    token; "exact": (n,), see `memorisation.exact_memorisation`}}; the weights are as they were afterwards."""
    found = {}
    for kind in SCHEMES:
        with measure.rounded(model, kind):
            answers = tokens.answers(model, examples, end)
        found[kind] = {"probability": metrics.probability([a.nll for a in answers])}
        found[kind]["exact"] = np.array([memorisation.exact_memorisation(a) for a in answers])
    return found
