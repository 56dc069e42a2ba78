"""Unlearning on your own model: read the data, plan, unlearn until a rule is met, measure, report.

`unlearning.unlearn` does all of this; the other modules are its parts."""
