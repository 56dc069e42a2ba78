"""What a model with rounded weights still knows. Unlearning moves weights by little, and rounding may undo this
(Zhang et al., 2025: 21 % of the knowledge kept in full precision, 83 % at 4 bits)."""

import contextlib

import numpy as np

from rklu_lib import metrics
from rklu_lib.own import measure
from rklu_lib.robustness import memorisation, tokens

# `own.measure.ROUNDINGS` has the functions. Weights are rounded to nearest and stored as float32 again: the loss is
# that of a file in this format, and any processor can run it. No calibration; outlier columns are rounded too.
SCHEMES = {
    "bfloat16": "to bfloat16: 8 bits of precision, each weight by itself",
    "8-bit": "to 255 levels, symmetric about 0, scaled by the largest weight of each row of a matrix",
    "4-bit": "to 15 levels, symmetric about 0, scaled by the largest of every 64 weights",
}


def rounded(model, examples, end, context=contextlib.nullcontext):
    """Return {scheme: {"probability": (n,), "exact": (n,)}} of n answers, the weights rounded by each of `SCHEMES`:
    geometric mean per token, and `memorisation.exact_memorisation`. The model is restored. end: closing token. context:
    a function whose result is entered to score."""
    found = {}
    for kind in SCHEMES:
        with measure.rounded(model, kind), context():
            answers = tokens.answers(model, examples, end)
        found[kind] = {"probability": metrics.probability([a.nll for a in answers])}
        found[kind]["exact"] = np.array([memorisation.exact_memorisation(a) for a in answers])
    return found
