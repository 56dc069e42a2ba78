"""The claims ledger: what the paper says (data/paper/claims.yaml), and what records, ours or printed, say to it."""

import functools
from itertools import product

import pandas as pd
import yaml

from rklu_lib import data, profiles, runs
from rklu_lib.methods import TABLE_8
from rklu_lib.records import load
from rklu_pages.results import comparison, paper
from rklu_pages.results.verdicts import FAILS, HOLDS, IN_PART, UNDECIDED, UNTESTED
from rklu_pages.tasks import accuracies, passages

MEASURES = (*comparison.MEASURES, *passages.SCORES)
DECIMALS = {"bleu_pct": 0.005, "rouge_pct": 0.005}  # printed with two decimals
PHI = {"mini": "mini-phi", "llama2-7b": "phi-1.5"}  # where a claim about Phi is recorded, beside LLaMA's
LLAMA = {phi: llama for llama, phi in PHI.items()}
# Where the paper prints a cell: of two tables that print the same score, the later here is taken.
PRINTED = {
    ("tofu", "llama"): ("table3", "table1", "table8"),
    ("tofu", "phi"): (),  # Figure 4 alone, which prints no numbers
    ("passages", "llama"): ("table7", "table2"),
    ("passages", "phi"): ("table6",),
}


def claims():
    """The ledger, a list of dicts. Raises ValueError, naming the claim, where one does not say how it is decided."""
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
    """A comparison, and the one that may come out instead, where it names one."""
    return [one, one["or"]] if "or" in one else [one]


def _comparisons(entry):
    """What a claim compares, two sides at a time: a list of alternatives each, (measure, higher, lower, by)."""
    found = []
    for one in entry["test"]:
        expanded = []
        for o in _either(one):
            sides = (o[k] if isinstance(o[k], list) else [o[k]] for k in ("higher", "than"))
            expanded.append([(o["measure"], *pair, o.get("by", 0)) for pair in product(*sides)])
        found += zip(*expanded, strict=True)
    return found


def needed(entry):
    """The methods a claim speaks of, such as "GA", "GA@last", "RKLU,alpha=4" or "GA on forget05"."""
    found = (side for either in _comparisons(entry) for _, *sides, _ in either for side in sides)
    return list(dict.fromkeys(side for side in found if isinstance(side, str)))


def decide(entry, cells):
    """(verdict, numbers) of one claim.

    cells: {seed: {method: {measure: value}}}. On one seed a claim holds when every comparison comes out as it says, or,
    where it speaks of most, more than half of them; and it does not as soon as that is out of reach, whatever else the
    cell lacks. "holds" and "does not hold": so on every seed that decides it; "holds in part": it holds on some and
    not on others; "not told apart": some seed leaves it so; "not tested": no seed decides it.
    """
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
    """Is one side higher, by more than `by`? None: not known. UNDECIDED: equal as far as the scores can tell, which is
    to two decimals for BLEU and ROUGE-L, and at 5 % for accuracies, see `accuracies.alike`."""
    sides = [cell.get(s, {}) if isinstance(s, str) else {measure: s} for s in (high, low)]
    a, b = (side.get(measure) for side in sides)
    if pd.isna(a) or pd.isna(b):
        return None
    if isinstance(high, str) and isinstance(low, str) and _parts(high)[::2] == _parts(low)[::2] and a == b:
        return None  # "GA@last" and "GA", whose peak is the last epoch: nothing came after
    near = abs(a - b - by) <= DECIMALS.get(measure, 0)
    if measure == "avg_accuracy_pct" and all("tasks" in side for side in sides):
        near = accuracies.alike(*(side["tasks"] for side in sides))
    return UNDECIDED if near else bool(a > b + by)


def _together(outcomes, most):
    """What the comparisons of one seed come to; most: more than half of them are enough."""
    enough = len(outcomes) // 2 + 1 if most else len(outcomes)
    if outcomes.count(True) >= enough or len(outcomes) - outcomes.count(False) < enough:
        return outcomes.count(True) >= enough
    return None if None in outcomes else UNDECIDED


def _verdict(outcomes):
    """One verdict of what each seed says."""
    if not outcomes:
        return UNTESTED
    if {True, False} <= set(outcomes):
        return IN_PART
    return UNDECIDED if UNDECIDED in outcomes else HOLDS if True in outcomes else FAILS


def _shown(measure, numbers):
    """Each method's values as text: one per seed, or one alone where all seeds have it."""
    methods = {m: comparison.each(list(by_seed.values())) for (k, m), by_seed in numbers.items() if k == measure}
    return f"{measure.replace('_', ' ')}: " + ", ".join(f"{m} {values}" for m, values in methods.items())


@functools.cache  # every claim asks, for both of its sides
def printed(split, model="llama"):
    """The paper's own numbers about one split as a cell, {method: {measure: value}}; read only."""
    cell, task = {}, "passages" if split == data.NOVEL else "tofu"
    for name in PRINTED[task, model]:
        table = paper.reported(name)
        for row in (table if task == "passages" else table[table["set"] == split]).to_dict("records"):
            cell[row["method"]] = cell.get(row["method"], {}) | {m: row[m] for m in MEASURES if m in table}
    return cell


def _last_in_print(split):
    """The last epoch of Table 5, the one table with several, as a cell; of another split nothing."""
    table = paper.reported("table5")
    last = table[(table["epoch"] == table["epoch"].max()) & (split == "forget05")]
    return last.set_index("method")[["forget_quality", "model_utility"]].to_dict("index")


def _parts(name):
    """("GA", "last", "forget05") of "GA@last on forget05"; rule and split are "" where they are not named."""
    side, _, split = name.partition(" on ")
    label, _, rule = side.partition("@")
    return label, rule, split


def _in_print(entry):
    """What the paper prints of the sides of one claim, as a cell."""
    found = {}
    for name in needed(entry):
        label, rule, split = _parts(name)
        split = split or entry["split"]
        cell = _last_in_print(split) if rule else printed(split, entry.get("model", "llama"))
        found[name] = cell.get(label, {})
    return found


def standing(profile, split):
    """The forget set that a claim about `split` is tested on: the profile's largest stands for one that is larger."""
    p = profiles.profile(profile)
    return split if p.has(split) else p.largest


def recorded(profile, split, seeds, methods):
    """Our records as cells, {seed: {method: {measure: value}}}, of whatever is recorded of `methods`, on the set that
    is `standing` for the split; none where two sets are compared of which one stands for the other."""
    cells = {seed: {} for seed in seeds}
    for seed, name in product(seeds, methods):
        label, rule, other = _parts(name)
        if other and standing(profile, other) == standing(profile, split):
            continue
        spec = runs.named(profile, standing(profile, other or split), label, seed)
        record = load(spec)
        if record is not None:
            scores = record.reported("last") if spec.task == "passages" else comparison.ours(record, rule or "peak")
            cells[seed][name] = scores | accuracies.noted_accuracy(spec)
    return cells


def of_cell(cell, split, where=None, model="llama"):
    """As `of_cells`, of one cell alone."""
    return of_cells({0: cell}, split, where, model)


def of_cells(cells, split, where=None, model="llama"):
    """The claims about one split, decided by cells as in `decide`, as a table with the numbers.

    where: those made there, such as "Table 2", tested or not. None: those that the cells can decide. model: the paper's
    that they are about, llama or phi.
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
    """As `of_cells`, of records of TOFU, split by split: a claim holds when it does on every seed among them."""
    by_split = {}
    for r in records:
        if "forget_quality_benchmark" in r.epochs[0]:
            cell = by_split.setdefault(r.spec.split, {}).setdefault(r.spec.seed, {})
            cell |= {r.spec.label: comparison.ours(r, rule), f"{r.spec.label}@last": comparison.ours(r, "last")}
    return pd.concat([of_cells(cells, s, model=model) for s, cells in by_split.items()], ignore_index=True)


def beside_llama(phi, llama):
    """What App. A.4 says of Phi beside LLaMA, as `of_cells`: two lists of records of TOFU, of the same runs.

    Methods are counted set by set and seed by seed; a claim holds when it does in each that both have.
    """
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
    """The claims of `beside_llama`, decided by a pair of cells {method: scores}; no count where they share no method,
    or not the original."""
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
    """Every claim with where it stands, the verdict of the paper's own tables, ours, and our numbers; these say so
    where one forget set stands for another. Of claims that are one test then, one is decided."""
    rows, entries = [], claims()
    own = [{"llama": profile, "phi": PHI.get(profile)}[entry.get("model", "llama")] for entry in entries]
    stands = [standing(p, entry["split"]) if p else None for p, entry in zip(own, entries, strict=True)]
    tests, first = [(own[k], stands[k], repr(entry["test"])) for k, entry in enumerate(entries)], {}
    for k in sorted(range(len(entries)), key=lambda k: stands[k] != entries[k]["split"]):  # of its own set first
        first.setdefault(tests[k], k)
    for k, entry in enumerate(entries):
        in_print, _ = decide(entry, {0: _in_print(entry)})
        here, numbers = UNTESTED, ""
        if own[k] and first[tests[k]] == k:
            here, numbers = decide(entry, recorded(own[k], entry["split"], seeds, needed(entry)))
            if numbers and stands[k] != entry["split"]:
                numbers += f" (on {stands[k]})"
        rows.append({"claim": entry["claim"], "where": entry["where"]})
        rows[-1] |= {"the paper's tables": in_print, f"at {profile}": here, f"numbers at {profile}": numbers}
    return pd.DataFrame(rows)


def decided(table):
    """Of a `ledger`, the claims that its records decide."""
    verdict = table.columns[-2]
    return table[table[verdict] != UNTESTED]


def verdicts_of(scales):
    """Every claim with the verdicts of the paper's tables and of several scales, {profile: seeds}, side by side."""
    ledgers = [ledger(profile, seeds).iloc[:, :-1] for profile, seeds in scales.items()]
    return pd.concat([ledgers[0], *(table.iloc[:, -1:] for table in ledgers[1:])], axis=1)
