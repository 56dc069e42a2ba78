"""The claims ledger: what the paper says (data/paper/claims.yaml), and what records, ours or printed, say to it."""

import functools
from itertools import product

import pandas as pd
import yaml

from rklu_lib import data, profiles, runs
from rklu_lib.records import load
from rklu_pages.results import comparison, paper
from rklu_pages.tasks import passages

MEASURES = (*comparison.MEASURES, *passages.SCORES)
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
        if set(entry) - {"model"} != {"claim", "where", "split", "test"} or not entry["test"]:
            raise ValueError(f"{path.name}: {entry.get('claim', entry)!r} needs claim, where, split and a test")
        for one in entry["test"]:
            if not {"measure", "higher", "than"} <= set(one) <= {"measure", "higher", "than", "by"}:
                raise ValueError(
                    f"{path.name}: {entry['claim']!r}: a comparison has measure, higher, than, and may have by"
                )
            if not _sides(one):
                raise ValueError(f"{path.name}: {entry['claim']!r}: a comparison has methods or a number on both sides")
            if one["measure"] not in MEASURES:
                raise ValueError(
                    f"{path.name}: {entry['claim']!r}: no measure {one['measure']!r}; {', '.join(MEASURES)}"
                )
    return ledger


def _sides(one):
    """The pairs (higher, lower) of a comparison, each a method or a number."""
    sides = (one[k] if isinstance(one[k], list) else [one[k]] for k in ("higher", "than"))
    return list(product(*sides))


def needed(entry):
    """The methods a claim speaks of, such as "GA", "GA@last", "RKLU,alpha=4" or "GA on forget05"."""
    found = (side for one in entry["test"] for pair in _sides(one) for side in pair)
    return list(dict.fromkeys(side for side in found if isinstance(side, str)))


def decide(entry, cells):
    """(verdict, numbers) of one claim.

    cells: {seed: {method: {measure: value}}}. Where a cell lacks a method or measure, that comparison decides nothing.
    "holds": every comparison of every cell came out as claimed; "does not hold": none did; "holds in part": some;
    "not tested": no cell has evidence for every comparison.
    """
    outcomes, numbers, short = [], {}, set()
    for one in entry["test"]:
        for high, low in _sides(one):
            for seed, cell in cells.items():
                values = [s if not isinstance(s, str) else cell.get(s, {}).get(one["measure"]) for s in (high, low)]
                if any(v is None or pd.isna(v) for v in values):
                    short.add(seed)
                    continue
                outcomes.append(values[0] > values[1] + one.get("by", 0))
                for side, value in zip((high, low), values, strict=True):
                    if isinstance(side, str):
                        numbers.setdefault((one["measure"], side), {})[seed] = f"{value:.3g}"
    text = "; ".join(_shown(measure, numbers) for measure in dict.fromkeys(m for m, _ in numbers))
    return "not tested" if short.issuperset(cells) else _verdict(outcomes), text


def _verdict(outcomes):
    return "holds" if all(outcomes) else "holds in part" if any(outcomes) else "does not hold"


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
        cell = {} if rule else printed(split or entry["split"], entry.get("model", "llama"))
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
            cells[seed][name] = scores | passages.noted_accuracy(spec)
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
            if where or verdict != "not tested":
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
        verdict = _verdict(tested["held"]) if set(numbers) == set(found["set"]) else "not tested"
        rows.append({"claim": claim, "paper": "App. A.4", "here": verdict, "numbers": shown})
    return pd.DataFrame(rows)


def _counted(phi, llama):
    """The claims of `beside_llama`, decided by a pair of cells {method: scores}; no count where they share no method,
    or not the original."""
    shared = [name for name in phi if name in llama]
    methods = [name for name in shared if name in runs.METHODS and "original" in shared]
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


def knobs(profile, split, seed):
    """What one change to RKLU reaches, of the changes recorded: the values tried, the highest forget quality with the
    utility there, and the best balance (see `comparison.along`), each with the value that gives it."""
    folder = runs.RunSpec(profile, split, "RKLU", seed).record_path.parents[1]
    found = {"nothing": {"RKLU": "RKLU"}}  # what is changed -> {label of the run: how its value is shown}
    for path in sorted(folder.glob(f"RKLU[,+]*/seed{seed}.json")):
        label = path.parent.name
        field, _, value = label.removeprefix("RKLU,").partition("=")
        found.setdefault(field if value else "retain term", {})[label] = value or label
    found |= {name: {label: label} for name, label in (("direction", "FKLU"), ("no student", "teacher"))}
    rows = {}
    for change, shown in found.items():
        parts = {}
        for label, value in shown.items():
            spec = runs.named(profile, split, label, seed)
            record, *bases = (load(s) for s in (spec, spec.base("original"), spec.base("oracle")))
            if record and all(bases):
                parts[value] = comparison.along([record], "alpha", *bases)
        if parts:
            tried = pd.concat(parts).droplevel(1)
            most, best = tried["forget quality"].idxmax(), tried["balance"].idxmax()
            highest, utility = tried.loc[most, ["forget quality", "model utility"]]
            balance = tried.loc[best, "balance"]
            rows[change] = (len(tried), highest, most, utility, highest > 0.05, balance, best)
    columns = ["tried", "highest p", "with", "utility there", "passes 0.05", "best balance", "by"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("changed")


def knobs_as_text(table):
    """A table of `knobs` as text."""
    forms = {"highest p": "{:.2g}", "utility there": "{:.3f}", "best balance": "{:.3f}"}
    yes = {"passes 0.05": table["passes 0.05"].map({True: "yes", False: "no"})}
    return table.assign(**{name: table[name].map(form.format) for name, form in forms.items()} | yes)


def ledger(profile, seeds=(0, 1, 2)):
    """Every claim with where it stands, the verdict of the paper's own tables, ours, and our numbers; these say so
    where one forget set stands for another."""
    rows = []
    for entry in claims():
        in_print, _ = decide(entry, {0: _in_print(entry)})
        here, numbers = "not tested", ""
        if own := {"llama": profile, "phi": PHI.get(profile)}[entry.get("model", "llama")]:
            here, numbers = decide(entry, recorded(own, entry["split"], seeds, needed(entry)))
            if numbers and (stands := standing(own, entry["split"])) != entry["split"]:
                numbers += f" (on {stands})"
        rows.append({"claim": entry["claim"], "where": entry["where"]})
        rows[-1] |= {"the paper's tables": in_print, f"at {profile}": here, "numbers here": numbers}
    return pd.DataFrame(rows)


def decided(table):
    """Of a `ledger`, the claims that its records decide."""
    verdict = table.columns[-2]
    return table[table[verdict] != "not tested"].rename(columns={"numbers here": "numbers there"})


def verdicts_of(scales):
    """Every claim with the verdicts of the paper's tables and of several scales, {profile: seeds}, side by side."""
    ledgers = [ledger(profile, seeds).drop(columns="numbers here") for profile, seeds in scales.items()]
    return pd.concat([ledgers[0], *(table.iloc[:, -1:] for table in ledgers[1:])], axis=1)
