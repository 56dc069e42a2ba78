"""The accepted values of all notebooks' parameters; a notebook calls `check` in the first cell after its parameters."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

from rklu_lib import data, methods, profiles, records, teacher


@dataclass(frozen=True)
class _Rule:
    """A test that a value, or (`several`) each value of a list, must pass; accepted: the test in words."""

    passes: Callable
    accepted: str
    several: bool = False


def _one_of(names):
    return lambda value: isinstance(value, str) and value in names, ", ".join(names)


def _whole(least):
    return lambda value: type(value) is int and value >= least, f"a whole number, {least} or more"


def _number(value):
    return isinstance(value, Real) and not isinstance(value, bool)


PROFILE = _one_of(profiles.names())
SPLIT = _one_of(tuple(data.ORACLE_SPLIT))
METHOD = _one_of(tuple(methods.METHODS))
MODEL = _one_of((*records.BASES, *methods.METHODS))
ABOVE = (lambda value: _number(value) and value > 0, "a number above 0")
NUMBER = (_number, "a number")
QUESTION = (
    lambda value: _whole(0)[0](value) or isinstance(value, str) and value.strip() != "",
    "a question's text or its place in the forget set, a whole number, 0 or more",
)
TEXT = (lambda value: isinstance(value, str) and value != "", "a text that is not empty")
MAYBE = (lambda value: isinstance(value, str), "a text, which may be empty")
LEAST = (lambda value: _number(value) and value >= 0, "a number above 0, or 0 for the settings' own")
CASE = (
    lambda value: isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(v, str) for v in value),
    "three texts: the question, what the answer begins with, and its key phrase",
)
CHANGES = (lambda value: isinstance(value, dict) and all(isinstance(k, str) for k in value), "{field: value}")
RATES = (lambda value: isinstance(value, dict) and all(map(ABOVE[0], value.values())), "{method: a number above 0}")

RULES = {
    "profile": _Rule(*PROFILE),
    "checked": _Rule(*PROFILE),
    "whole": _Rule(*PROFILE),
    "part": _Rule(*PROFILE),
    "beside": _Rule(*PROFILE),
    "split": _Rule(*SPLIT),
    "splits": _Rule(*SPLIT, several=True),
    "seed": _Rule(*_whole(0)),
    "whole_seed": _Rule(*_whole(0)),
    "seeds": _Rule(*_whole(0), several=True),
    "method": _Rule(*METHOD),
    "methods": _Rule(*METHOD, several=True),
    "models": _Rule(*MODEL, several=True),
    "question": _Rule(*QUESTION),
    "questions": _Rule(*QUESTION, several=True),
    "model": _Rule(*MAYBE),
    "forget": _Rule(*MAYBE),
    "watch": _Rule(*MAYBE),
    "reference": _Rule(*MAYBE),
    "out": _Rule(*TEXT),
    "settings": _Rule(*PROFILE),
    "target": _Rule(lambda value: _number(value) and 0 <= value < 1, "a probability, or 0 for none"),
    "alpha": _Rule(*LEAST),
    "lr": _Rule(*LEAST),
    "epochs": _Rule(*_whole(0)),
    "redact": _Rule(lambda value: isinstance(value, bool), "true or false"),
    "chunk": _Rule(*_whole(0)),
    "readings": _Rule(*_whole(1)),
    "variants": _Rule(*TEXT, several=True),
    "samples": _Rule(*_whole(1)),
    "sampled": _Rule(*_whole(1)),
    "simulations": _Rule(*_whole(1)),
    "alphas": _Rule(*ABOVE, several=True),
    "rates": _Rule(*ABOVE, several=True),
    "assumed_spread": _Rule(*ABOVE),
    "gauges": _Rule(*_one_of(tuple(teacher.GAUGES)), several=True),
    "measure": _Rule(lambda value: isinstance(value, bool), "true or false"),
    "changes": _Rule(*CHANGES),
    "beyond": _Rule(*RATES),
    "paper_cases": _Rule(*CASE, several=True),
    "results": _Rule(*TEXT),
    "tokens": _Rule(*TEXT, several=True),
    "original": _Rule(*NUMBER, several=True),
    "augmented": _Rule(*NUMBER, several=True),
}


def check(namespace, *names):
    """Check the parameters `names` in `namespace`, a notebook's `globals()`, and put them in order in place.

    A single value becomes a list of one where a list is expected; `splits` is sorted from the smallest set to the
    largest. Raises ValueError naming the parameter, the value and what is accepted. It is also raised for a parameter
    that papermill was given and the page does not have: the page would run for hours at its defaults."""
    injected = next((c for c in namespace.get("In", ()) if c.startswith("# Parameters\n")), "")
    if unknown := [n for n in re.findall(r"^(\w+) = ", injected, re.MULTILINE) if n not in names]:
        raise ValueError(f"parameter {unknown[0]}: this page has no such parameter; it has {', '.join(names)}")
    for name in names:
        rule, value = RULES[name], namespace[name]
        if rule.several and (not isinstance(value, list | tuple) or rule.passes(value)):
            value = [value]
        each = list(value) if rule.several else [value]
        wrong = [item for item in each if not rule.passes(item)]
        if wrong or not each:
            accepted = f"one or more of: {rule.accepted}" if rule.several else rule.accepted
            raise ValueError(f"parameter {name} is {(wrong or [value])[0]!r}; accepted is {accepted}")
        each = sorted(each, key=records.SPLITS.index) if name == "splits" else each
        namespace[name] = each if rule.several else value
