"""A Sphinx extension that puts a box at the head of a notebook page, made from the notebook itself.

The box says how to run the page at another scale, how long its records took, and where records and notebook are. Above
it stands the page's verdict in one line, counted in the first table of claims that the page shows.
"""

import ast
import json
import re
from collections import Counter
from pathlib import Path

from bs4 import BeautifulSoup
from docutils import nodes
from sphinx.addnodes import download_reference

from rklu_lib import records
from rklu_pages.results.verdicts import VERDICTS


def _parameters(cells):
    """Return the literal values in the notebook's cell of parameters, as committed."""
    source = next(s for cell, s in cells if "parameters" in cell["metadata"].get("tags", []))
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign | ast.AugAssign):
            target = node.targets[0].id if isinstance(node, ast.Assign) else node.target.id
            try:
                value = ast.literal_eval(node.value)
            except ValueError:  # a computed value, such as a split text
                continue
            found[target] = found[target] + value if isinstance(node, ast.AugAssign) else value
    return found


def verdict(shown, profile=""):
    """Return (whose claims, counts of the verdicts in words) of the page's first table of verdicts; None without one.

    shown: the page's outputs as HTML, in order. Of several columns with verdicts, the one headed "at <profile>" counts;
    the paper's own never does. A table headed "verdict" holds the counts already. In a table with a column "paper",
    rows with a dash there are the book's own tests and are left out."""
    for table in (table for page in shown for table in BeautifulSoup(page, "html.parser").find_all("table")):
        heads = [cell.text for cell in table.thead.find_all("tr")[-1].find_all("th")] if table.thead else []
        rows = [[cell.text for cell in row.find_all(["th", "td"])] for row in table.find_all("tr")[1:]]
        if "paper" in heads:
            rows = [row for row in rows if len(row) == len(heads) and row[heads.index("paper")] != "–"]
        columns = {head: Counter(row[at] for row in rows if len(row) > at) for at, head in enumerate(heads) if at}
        ours = {h: c for h, c in columns.items() if set(c) & set(VERDICTS) and not h.startswith("the paper")}
        if heads[:1] == ["verdict"] and f"at {profile}" in heads:
            ours = {f"at {profile}": Counter({row[0]: int(row[heads.index(f"at {profile}")]) for row in rows})}
        if f"at {profile}" in ours or len(ours) == 1:
            counts = ours.get(f"at {profile}", next(iter(ours.values())))
            whose = "the paper's claims" if {"paper", "where", "the paper's tables"} & set(heads) else "its statements"
            return whose, ", ".join(f"{counts[name]} × {name}" for name in VERDICTS if counts[name])
    return None


VARIED = {"alphas": "alpha", "rates": "unlearn_lr", "gauges": "gauge", "readings": "finetune_epochs"}  # by parameter


SHOWING = ("claims", "what_it_costs")  # pages that train nothing


def hours(given):
    """Return (hours, number, machines) of the records of the page's sets, methods and seeds; None where none exist.
    given: the page's parameters. A record with a changed setting ("RKLU,alpha=4") counts if the page varies it."""
    splits = given.get("splits") or [given.get("split")]
    seeds = given.get("seeds", [given.get("seed")])
    found = []
    for split in filter(None, splits):
        for folder in (records.RECORDS / given.get("profile", "") / "tofu" / split).glob("*"):
            name, _, settings = folder.name.partition(",")
            named = given.get("methods") or given.get("models") or [given.get("method", name)]
            asked = name in {*records.BASES, *named}
            if asked and (not settings or settings.partition("=")[0] in {VARIED[k] for k in VARIED if k in given}):
                found += [path for seed in seeds if (path := folder / f"seed{seed}.json").exists()]
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in found]
    seconds = sum(sum(content["seconds"].values()) for content in contents if "seconds" in content)
    machines = sorted({content["machine"] for content in contents})
    return (seconds / 3600, len(contents), "; ".join(machines)) if seconds else None


def _line(*parts):
    """Return a paragraph of texts and nodes."""
    return nodes.paragraph("", "", *(nodes.Text(part) if isinstance(part, str) else part for part in parts))


def box(name, notebook, repository=None):
    """Return the docutils nodes for a page's head: its verdict, if it shows claims, and the box "Run this page".

    repository: base address of the repository's files, for a link to the records; None: no link.
    """
    cells = [(cell, "".join(cell["source"])) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    given = _parameters(cells)
    shown = ["".join(o.get("data", {}).get("text/html", "")) for cell, _ in cells for o in cell["outputs"]]
    profile, lines = nodes.literal("", given.get("profile", "")), []
    if took := hours(given):
        spent, count, machines = took
        long = f"{spent:.1f} hours" if spent >= 0.95 else f"{max(1, round(60 * spent))} minutes"
        made = f"The {count} records of its forget sets and seeds took {long} to make ({machines})."
        anew = " everything is trained anew, in minutes on two cores and without any download."
        recorded = " the page is made from records, within minutes. "
        trains = name not in SHOWING and given["profile"] != "smoke"
        smoke = (" At ", nodes.literal("", "smoke"), anew) if trains else ()
        lines.append(_line("At ", profile, recorded + made, *smoke))
        folder = f"data/records/{given['profile']}/tofu/"
        named = nodes.literal("", folder)
        lines.append(
            _line("Records: ", nodes.reference("", "", named, refuri=f"{repository}/{folder}") if repository else named)
        )
    file = f"notebooks/{name}.ipynb"
    lines.append(_line("Notebook: ", download_reference("", "", nodes.literal("", file), reftarget=f"/{file}")))
    command = f"papermill {file} out.ipynb" + (" -p profile smoke" * ("profile" in given and name not in SHOWING))
    code = nodes.literal_block(command, command, language="bash")
    items = nodes.bullet_list("", *(nodes.list_item("", line) for line in lines))
    found = verdict(shown, given.get("profile"))
    at = f" at {given['profile']}" if "profile" in given else ""
    said = [_line(nodes.strong("", "Verdict"), f" on {found[0]}{at}: {found[1]}.")] if found else []
    return [*said, nodes.admonition("", nodes.title("", "Run this page"), code, items, classes=["rk-run", "dropdown"])]


def add(app, doctree):
    """Insert the box into a notebook page before its first cell of code."""
    name = Path(app.env.docname)
    if name.parts[0] != "notebooks":
        return
    notebook = json.loads((Path(app.srcdir) / f"{name}.ipynb").read_text(encoding="utf-8"))
    cell = next(node for node in doctree.findall(nodes.container) if "cell" in node["classes"])
    at = cell.parent.index(cell)
    cell.parent[at:at] = box(name.name, notebook, repository(app.config.html_theme_options))


def repository(theme):
    """Return the base address of the repository's files, from the theme's options. None without a launch button: then
    the options hold Jupyter Book's default repository instead of this one."""
    named = theme.get("launch_buttons", {}).get("binderhub_url")
    return f"{theme['repository_url']}/tree/{theme.get('repository_branch', 'main')}" if named else None


FONTAWESOME = re.compile(r"<script[^>]*/fontawesome\.js[^>]*></script>")


def lighten(app, exception):
    """Take the theme's fontawesome.js, 1.5 MB a page, from the built pages: the icons come from its font, which stays.
    The theme has no option for it."""
    if exception or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        if FONTAWESOME.search(text):
            page.write_text(FONTAWESOME.sub("", text), encoding="utf-8")
    for file in (Path(app.outdir) / "_static/scripts").glob("fontawesome.js*"):
        file.unlink()


def setup(app):
    app.connect("doctree-read", add, priority=1)  # before Sphinx collects downloads
    app.connect("build-finished", lighten)
    return {"version": "1", "parallel_read_safe": True}
