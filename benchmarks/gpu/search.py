"""SmolLM2's one learning rate (App. A.1: the same for everything), chosen on forget05 at a seed that no table reports.

`search.py [WORKERS]` makes the records of original, oracle, RKLU, FKLU and NPO at each rate, and prints what decides:
answers known by the original (the paper's start: 0.9), what it lost of its world knowledge, and where methods arrive.
"""

import sys

from rklu_lib import runs
from rklu_lib.records import RunSpec

RATES, SEED, SPLIT = (1e-4, 2e-4, 3e-4), 9, "forget05"
METHODS = ("original", "oracle", "RKLU", "FKLU", "NPO")


def specs(profile="smollm2"):
    rates = [tuple((f"{stage}_lr", rate) for stage in ("finetune", "augment", "unlearn")) for rate in RATES]
    return [RunSpec(profile, SPLIT, method, SEED, changes) for changes in rates for method in METHODS]


if __name__ == "__main__":
    for record in runs.ensure(specs(), int(sys.argv[1]) if len(sys.argv) > 1 else None):
        shown = record.reported("peak" if "forget_quality_benchmark" in record.epochs[0] else "last")
        columns = ("forget_probability", "facts_probability", "forget_quality_benchmark", "model_utility")
        rate = dict(record.spec.overrides)["finetune_lr"]
        print(f"{rate:g}", record.spec.method, *(f"{c} {shown[c]:.4g}" for c in columns if c in shown), sep="\t")
