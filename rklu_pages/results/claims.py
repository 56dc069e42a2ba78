"""The ledger of the paper's claims (data/paper/claims.yaml), decided by our records and by the paper's own tables."""

import functools
from itertools import product

import numpy as np
import pandas as pd
import yaml

from rklu_lib import data, runs
from rklu_lib.methods import TABLE_8
from rklu_lib.records import load
from rklu_pages.results import comparison, evidence, paper
from rklu_pages.results.verdicts import FAILS, HOLDS, IN_PART, UNDECIDED, UNTESTED
from rklu_pages.tasks import accuracies, passages

MEASURES = (*comparison.MEASURES, "product", *passages.SCORES)
DECIMALS = {"bleu_pct": 0.005, "rouge_pct": 0.005}  # half a unit: printed with two decimals
# The least difference in model utility that says something, where chance is known to make as much: an original made
# again differs by 0.035 (book/rerun.md).
UTILITY = {"smollm2": 0.04}
PHI = {"mini": "mini-phi", "llama2-7b": "phi-1.5"}  # profile of LLaMA: profile that tests the claims about Phi
LLAMA = {phi: llama for llama, phi in PHI.items()}
# The tables that print a score; where two tables print the same score, the later one in this list is used.
PRINTED = {
    ("tofu", "llama"): ("table3", "table1", "table8"),
    ("tofu", "phi"): (),  # Figure 4 alone, which prints no numbers
    ("passages", "llama"): ("table7", "table2"),
    ("passages", "phi"): ("table6",),
}


def claims():
    """Read the ledger, a list of dicts. Raises ValueError naming the claim whose test is incomplete or misspelt."""
    path = paper.PAPER / "claims.yaml"
    ledger = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in ledger:
        if set(entry) - {"model", "most"} != {"claim", "where", "split", "test"} or not entry["test"]:
            raise ValueError(f"{path.name}: {entry.get('claim', entry)!r} needs claim, where, split and a test")
        about = f"{path.name}: {entry['claim']!r}"
        for one in (o for both in entry["test"] for o in _either(both)):
            if not {"measure", "higher", "than"} <= set(one) <= {"measure", "higher", "than", "by", "or"}:
                raise ValueError(f"{about}: a comparison has measure, higher, than, and may have by, and or")
            if one["measure"] not in MEASURES:
                raise ValueError(f"{about}: no measure {one['measure']!r}; {', '.join(MEASURES)}")
        if not all(_comparisons({"test": [one]}) for one in entry["test"]):
            raise ValueError(f"{about}: a comparison has methods or a number on both sides")
    return ledger


def _either(one):
    """Return a comparison and, where its "or" names one, the alternative comparison that would do instead."""
    return [one, one["or"]] if "or" in one else [one]


def _comparisons(entry):
    """Return a claim's comparisons of two sides; each is a tuple of alternatives (measure, higher, lower, by)."""
    found = []
    for one in entry["test"]:
        expanded = []
        for o in _either(one):
            sides = (o[k] if isinstance(o[k], list) else [o[k]] for k in ("higher", "than"))
            expanded.append([(o["measure"], *pair, o.get("by", 0)) for pair in product(*sides)])
        found += zip(*expanded, strict=True)
    return found


def needed(entry):
    """Return the methods that a claim compares, such as "GA", "GA@last", "RKLU,alpha=4" or "GA on forget05"."""
    found = (side for either in _comparisons(entry) for _, *sides, _ in either for side in sides)
    return list(dict.fromkeys(side for side in found if isinstance(side, str)))


def decide(entry, cells):
    """Return (verdict, numbers as text) of one claim, by cells = {seed: {method: {measure: value}}}.

    On one seed a claim holds when every comparison comes out as claimed (more than half of them if the claim says
    "most"). It fails as soon as too few comparisons can still come out, even if other values are missing.
    Over seeds: "holds" / "does not hold": on every seed that decides it. "holds in part": on some seeds, not on others.
    "not told apart": undecided on some seed, and no two seeds disagree. "not tested": no seed decides it."""
    found, numbers, comparisons = [], {}, _comparisons(entry)
    for seed, cell in cells.items():
        outcomes = []
        for either in comparisons:
            came = [_compared(cell, *one) for one in either]
            outcomes.append(next(x for x in (True, None, UNDECIDED, False) if x in came))
            for (measure, *sides, _), outcome in zip(either, came, strict=True):
                for side in (s for s in sides if isinstance(s, str) and outcome is not None):
                    numbers.setdefault((measure, side), {})[seed] = f"{cell[side][measure]:.3g}"
        found.append(_together(outcomes, entry.get("most")))
    text = "; ".join(_shown(measure, numbers) for measure in dict.fromkeys(m for m, _ in numbers))
    return _verdict([outcome for outcome in found if outcome is not None]), text


def _compared(cell, measure, high, low, by):
    """Return whether `high` exceeds `low` by more than `by`; None where a value is missing. UNDECIDED where the two
    scores cannot be told apart: BLEU and ROUGE-L at two decimals, utilities within `UTILITY`, accuracies at 5 %
    (`accuracies.alike`), forget qualities of two methods at 5 % (`evidence.nearer`). Of two products whose forget
    qualities are not told apart, the utilities decide."""
    sides = [cell.get(s, {}) if isinstance(s, str) else {measure: s} for s in (high, low)]
    a, b = (side.get(measure) for side in sides)
    if pd.isna(a) or pd.isna(b):
        return None
    if isinstance(high, str) and isinstance(low, str) and _parts(high)[::2] == _parts(low)[::2] and a == b:
        return None  # "GA@last" and "GA" are the same epoch: the peak is the last, nothing came after
    if measure in ("forget_quality", "product") and _as_near(*sides):
        if measure == "forget_quality":
            return UNDECIDED
        measure, (a, b) = "model_utility", (side["model_utility"] for side in sides)
    near = abs(a - b - by) <= DECIMALS.get(measure, 0)
    if measure == "model_utility" and all("unit of utility" in side for side in sides):
        near = abs(a - b - by) <= sides[0]["unit of utility"]
    if measure == "avg_accuracy_pct" and all("tasks" in side for side in sides):
        near = accuracies.alike(*(side["tasks"] for side in sides))
    return UNDECIDED if near else bool(a > b + by)


def _as_near(*sides):
    """Return whether two methods' distances to the oracle are not told apart at 5 %; False without their ratios."""
    ratios = [side.get("ratios", (None, None)) for side in sides]
    (one, oracle), (other, its) = ratios
    return bool(one and other and oracle == its) and _nearer(one, other, oracle) >= 0.05


@functools.cache  # pages and tests ask for the same pairs again and again
def _nearer(*samples):
    return evidence.nearer(*map(np.frombuffer, samples))


def _together(outcomes, most):
    """Combine the outcomes of one seed's comparisons; most: more than half of them are enough."""
    enough = len(outcomes) // 2 + 1 if most else len(outcomes)
    if outcomes.count(True) >= enough or len(outcomes) - outcomes.count(False) < enough:
        return outcomes.count(True) >= enough
    return None if None in outcomes else UNDECIDED


def _verdict(outcomes):
    """Combine the seeds' outcomes into one verdict."""
    if not outcomes:
        return UNTESTED
    if {True, False} <= set(outcomes):
        return IN_PART
    return UNDECIDED if UNDECIDED in outcomes else HOLDS if True in outcomes else FAILS


def _shown(measure, numbers):
    """Return a measure's values by method as text: one per seed, or a single value where all seeds agree."""
    methods = {m: comparison.each(list(by_seed.values())) for (k, m), by_seed in numbers.items() if k == measure}
    return f"{measure.replace('_', ' ')}: " + ", ".join(f"{m} {values}" for m, values in methods.items())


@functools.cache  # called for both sides of every claim
def printed(split, model="llama"):
    """Return the paper's printed numbers for one split, {method: {measure: value}}. Cached: do not change it."""
    cell, task = {}, "passages" if split == data.NOVEL else "tofu"
    for name in PRINTED[task, model]:
        table = paper.reported(name)
        for row in (table if task == "passages" else table[table["set"] == split]).to_dict("records"):
            cell[row["method"]] = cell.get(row["method"], {}) | {m: row[m] for m in MEASURES if m in table}
    return {name: scores | {"product": _product(scores)} for name, scores in cell.items()}


def _last_in_print(split):
    """Return the last epoch of Table 5 (the only table with several epochs) as a cell; {} for other splits."""
    table = paper.reported("table5")
    last = table[(table["epoch"] == table["epoch"].max()) & (split == "forget05")]
    return last.set_index("method")[["forget_quality", "model_utility"]].to_dict("index")


def _parts(name):
    """Split "GA@last on forget05" into ("GA", "last", "forget05"); rule and split are "" where not named."""
    side, _, split = name.partition(" on ")
    label, _, rule = side.partition("@")
    return label, rule, split


def _in_print(entry):
    """Return what the paper prints for the methods of one claim, {method: {measure: value}}."""
    found = {}
    for name in needed(entry):
        label, rule, split = _parts(name)
        split = split or entry["split"]
        cell = _last_in_print(split) if rule else printed(split, entry.get("model", "llama"))
        found[name] = cell.get(label, {})
    return found


def recorded(profile, split, seeds, methods):
    """Return our records of `methods` as cells, {seed: {method: {measure: value}}}; "X on <set>": on another split."""
    cells = {seed: {} for seed in seeds}
    for seed, name in product(seeds, methods):
        label, rule, other = _parts(name)
        spec = runs.named(profile, other or split, label, seed)
        record = load(spec)
        if record is not None:
            scores = record.reported("last") if spec.task == "passages" else _scores(record, rule or "peak")
            cells[seed][name] = scores | accuracies.noted_accuracy(spec)
    return cells


def _scores(record, rule):
    """Return a record's scores of TOFU at its reported epoch, with what `_compared` needs to tell two of them apart:
    the difference that counts between utilities; and the truth ratios, its own and the oracle's, as bytes."""
    scores = comparison.ours(record, rule)
    scores |= {"product": _product(scores), "unit of utility": UTILITY.get(record.spec.profile, 0)}
    if record.questions and (oracle := load(record.spec.base("oracle"))):
        pair = comparison.truth_ratio(record, rule), comparison.truth_ratio(oracle, "last")
        scores["ratios"] = tuple(np.asarray(ratios, float).tobytes() for ratios in pair)
    return scores


def _product(scores):
    return scores.get("forget_quality", float("nan")) * scores.get("model_utility", float("nan"))


def of_cell(cell, split, where=None, model="llama"):
    """Do as `of_cells` with one cell, {method: {measure: value}}."""
    return of_cells({0: cell}, split, where, model)


def of_cells(cells, split, where=None, model="llama"):
    """Return the claims about one split, decided by cells as in `decide`: columns claim, paper, here, numbers.

    where: only the claims made there, such as "Table 2", tested or not; None: all claims that the cells can decide.
    model: "llama" or "phi", the paper's model that the claims are about.
    """
    rows = []
    for entry in claims():
        about = entry["split"] == split and entry.get("model", "llama") == model
        if about and (where or "") in entry["where"]:
            verdict, numbers = decide(entry, cells)
            if where or verdict != UNTESTED:
                rows.append({"claim": entry["claim"], "paper": entry["where"], "here": verdict, "numbers": numbers})
    return pd.DataFrame(rows, columns=["claim", "paper", "here", "numbers"])


def verdicts(records, rule="peak", model="llama"):
    """Do as `of_cells` with records of TOFU, split by split; each record is one seed's value of its method."""
    by_split = {}
    for r in records:
        if "forget_quality_benchmark" in r.epochs[0]:
            cell = by_split.setdefault(r.spec.split, {}).setdefault(r.spec.seed, {})
            cell |= {r.spec.label: _scores(r, rule), f"{r.spec.label}@last": _scores(r, "last")}
    return pd.concat([of_cells(cells, s, model=model) for s, cells in by_split.items()], ignore_index=True)


def beside_llama(phi, llama):
    """Decide App. A.4's claims about Phi beside LLaMA, as a table like `of_cells`; phi, llama: records of TOFU.

    Methods are counted for each pair of set and seed. A claim holds if it holds for every pair that has a count. It is
    not tested if some set has none."""
    cells = {}
    for side, found in enumerate((phi, llama)):
        for r in found:
            pair = cells.setdefault((r.spec.split, r.spec.seed), ({}, {}))
            pair[side][r.spec.method] = comparison.ours(r)
    counted, rows = pd.DataFrame([c | {"set": s} for (s, _), pair in cells.items() for c in _counted(*pair)]), []
    for claim, found in counted.groupby("claim", sort=False):
        tested = found[found["count"] != ""]
        numbers = {s: comparison.each(list(counts)) for s, counts in tested.groupby("set", sort=False)["count"]}
        shown = "; ".join(f"{s}: {n}" if len(numbers) > 1 else n for s, n in numbers.items())
        verdict = _verdict(set(tested["held"])) if set(numbers) == set(found["set"]) else UNTESTED
        rows.append({"claim": claim, "paper": "App. A.4", "here": verdict, "numbers": shown})
    return pd.DataFrame(rows)


def _counted(phi, llama):
    """Decide the claims of `beside_llama` on two cells {method: scores}. The count is "" where the cells share no
    method of Table 8 or lack the original."""
    shared = [name for name in phi if name in llama]
    methods = [name for name in shared if name in TABLE_8 and "original" in shared]
    better = sum(phi[m]["forget_quality"] > llama[m]["forget_quality"] for m in methods)
    passing = [sum(cell[m]["forget_quality"] > 0.05 for m in methods) for cell in (phi, llama)]
    lost = [[cell["original"]["model_utility"] - cell[m]["model_utility"] for m in methods] for cell in (phi, llama)]
    more = sum(ours > its for ours, its in zip(*lost, strict=True))
    said = {
        "Most methods forget better on Phi": (better > len(methods) / 2, f"{better} of {len(methods)}"),
        "More of them pass 0.05 on Phi": (passing[0] > passing[1], f"{passing[0]} against {passing[1]}"),
        "Most methods lose more utility on Phi": (more > len(methods) / 2, f"{more} of {len(methods)}"),
    }
    return [{"claim": c, "held": held, "count": count if methods else ""} for c, (held, count) in said.items()]


def ledger(profile, seeds=(0, 1, 2)):
    """Return every claim with its place, the verdict of the paper's own tables, ours, and our numbers."""
    rows = []
    for entry in claims():
        in_print, _ = decide(entry, {0: _in_print(entry)})
        own = {"llama": profile, "phi": PHI.get(profile)}[entry.get("model", "llama")]
        cells = recorded(own, entry["split"], seeds, needed(entry)) if own else {}
        here, numbers = decide(entry, cells)
        rows.append({"claim": entry["claim"], "where": entry["where"]})
        rows[-1] |= {"the paper's tables": in_print, f"at {profile}": here, f"numbers at {profile}": numbers}
    return pd.DataFrame(rows)


def decided(table):
    """Return the claims of a `ledger` that its records can test."""
    verdict = table.columns[-2]
    return table[table[verdict] != UNTESTED]


def verdicts_of(scales):
    """Return every claim with the verdicts of the paper's tables and of each scale; scales: {profile: seeds}."""
    ledgers = [ledger(profile, seeds).iloc[:, :-1] for profile, seeds in scales.items()]
    return pd.concat([ledgers[0], *(table.iloc[:, -1:] for table in ledgers[1:])], axis=1)
