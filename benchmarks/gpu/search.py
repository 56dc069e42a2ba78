"""Choose SmolLM2's single learning rate (App. A.1: one rate for all stages), on forget05 at a seed no table reports.

`search.py [WORKERS]` makes the records of original, oracle, RKLU, FKLU and NPO at each rate. It prints what decides:
the original's forget probability (0.9 at the paper's start) and facts probability, and each method's scores.
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
