"""The table of all findings of the audit."""

import pandas as pd

from rklu_pages.audit import consistency, harmonic, lattice, power
from rklu_pages.results.paper import reported

SEVERITIES = ("typographical", "affects a number", "affects a conclusion")
# severity (index in SEVERITIES) of sentences that do not hold; 2 for the others
SENTENCES = {"six_datasets": 1, "ga_rt_table": 0, "dpo_weakest": 0, "top_five": 0}


def _utility_findings():
    bounds, swapped, cells = harmonic.utility_bounds(), harmonic.exchanged_columns(), consistency.equal_cells()
    copies = cells[cells["columns"].str.contains("model_utility")]
    for _, r in bounds[bounds.verdict != "possible"].iterrows():
        name = f"{r.method} {r['set']}"
        if r.verdict == "impossible":
            text = f"utility {r.model_utility:.4f} cannot exceed {r.bound:.4f}; {r.excess_any:.4f} beyond any rounding"
            text += "".join(f"; {p.first} prints the same utility" for p in copies.itertuples() if p.second == name)
            yield 1, f"Table 8, {name}", text, "harmonic.utility_bounds"
        else:
            text = f"utility {r.model_utility:.4f} is possible only if the row's digits are cut off, not rounded"
            yield 0, f"Table 8, {name}", text, "harmonic.utility_bounds"
    fair = swapped[swapped.verdict == "possible"].in_band
    for _, r in swapped[(swapped.verdict == "impossible") & swapped.in_band].iterrows():
        text = (
            f"exchanging forget and retain cells makes it possible, with a truth ratio of {r.exchanged:.2f} like the "
        )
        text += f"other rows'; {fair.sum()} of {len(fair)} possible rows would survive the exchange"
        yield 1, f"Table 8, {r.method} {r['set']}", text, "harmonic.exchanged_columns"


def _lattice_findings():
    rows, scan, tests = lattice.row_evidence(), lattice.scan_questions(), lattice.lattice_tests()
    single = tests.query("method == 'exact' and runs == 1").set_index("questions")
    for name, n in lattice.QUESTIONS.items():
        part, t = rows[rows.set == name], single.loc[n]
        text = f"{t.either} of {len(part)} forget qualities are p-values of one test with {n} questions "
        text += f"({t.expected:.2g} expected by chance, probability {t.probability:.0e})"
        yield 1, f"Table 8, {name}", text, "lattice.lattice_tests"
        neither = part[part.fits == "neither"]
        if len(neither):
            text = f"neither one test nor a mean of three: {', '.join(neither.method)}"
            yield 1, f"Table 8, {name}", text, "lattice.row_evidence"
    n, other = scan.forget10.idxmax(), scan.forget10.nlargest(2).iloc[1]
    fits = scan.forget10
    text = f"{fits.max()} fits with {n} questions, {fits[400]} with all 400, at most {other} with any other number"
    yield 1, "Table 8, forget10", text, "lattice.scan_questions"
    one = lattice.lattice_rows()
    cut, rounded = (one.cut_off & ~one.rounded).sum(), (one.rounded & ~one.cut_off).sum()
    text = f"{cut} values fit only if their digits are cut off, {rounded} only if they are rounded"
    yield 0, "Table 8, forget quality", text, "lattice.lattice_rows"
    single = lattice.lattice_rows("table5")
    text = (
        f"{(~single.either).sum()} of {len(single)} forget qualities of one run fit no single test with 200 questions"
    )
    yield 1, "Table 5", text, "lattice.lattice_rows"


def _consistency_findings():
    for _, r in consistency.printed_twice().query("not equal and tables != '5 and 8'").iterrows():
        text = f"{r.score} {r['first']} and {r.second}" + (
            f"; the latter is also {r.elsewhere}'s" if r.elsewhere else ""
        )
        yield 1, f"Tables {r.tables}, {r.row}", text, "consistency.printed_twice"
    cells = consistency.equal_cells()
    for _, r in cells[(cells.cells > 1) & ~cells.same_family].iterrows():
        text = f"{r.cells} equal cells ({r['columns']}); {r.expected_pairs:.0e} such pairs expected by chance"
        yield 1, f"Table 8, {r['first']} and {r.second}", text, "consistency.equal_cells"
    for _, r in consistency.notation().iterrows():
        yield 0, f"Table {r.table}, {r.row}", f"{r.score} {r.printed}: {r.oddity}", "consistency.notation"
    for key, r in consistency.statements().query("not holds").iterrows():
        quote = r.quote if len(r.quote) < 140 else r.quote[:137] + "..."
        yield SENTENCES.get(key, 2), r["where"], f'"{quote}" But: {r.evidence}', "consistency.statements"


def _evidence_findings():
    half = power.detectable_shifts(power=0.5)["original and oracle"]
    text = ", ".join(f"{1 - shift / power.ORIGINAL_SHIFT:.0%} with {n} questions" for n, shift in half.items())
    text = f"p > 0.05 becomes an even chance after this share of the way from original to oracle: {text}"
    yield 2, "Forget quality above 0.05", text, "power.detectable_shifts"
    ranks = power.rankings_surviving(reported("table8"), 0.2)
    text = f"no spread is printed; {ranks.survives.sum()} of {len(ranks)} leads of RKLU survive "
    text += "a spread of 0.2 in log10 p between seeds"
    yield 2, "Table 8, forget quality", text, "power.rankings_surviving"


def findings():
    """Return every finding, computed from the printed tables: severity, where, finding, function; most severe first."""
    parts = (_lattice_findings, _evidence_findings, _utility_findings, _consistency_findings)
    out = sorted((f for part in parts for f in part()), key=lambda f: -f[0])
    return pd.DataFrame([(SEVERITIES[k], *f) for k, *f in out], columns=["severity", "where", "finding", "function"])
