"""Controls that JupyterLab adds to the pages' widgets: with them any question can be put to the models.

A page without a kernel shows the widget alone, without controls; so do the committed outputs. Where the models have not
been trained on this machine, only the recorded questions are offered, and a line says how to train the models.
"""

import html

import ipywidgets
from traitlets import link

from rklu_lib.methods import METHODS
from rklu_lib.records import BASES
from rklu_pages.drawing import widgets
from rklu_pages.tasks import cases, distributions
from rklu_pages.tasks.asking import Models

VIEW = "application/vnd.jupyter.widget-view+json"
WIDE = {"style": {"description_width": "7em"}, "layout": {"width": "46em", "max_width": "100%"}}


class Live(ipywidgets.VBox):
    """Controls together with the widget that they steer. static: what is shown where there is no kernel."""

    def __init__(self, static, children):
        super().__init__(children)
        self.static = static

    def _repr_mimebundle_(self, **kwargs):
        shown = self.static._repr_mimebundle_(**kwargs)
        forms, metadata = shown if isinstance(shown, tuple) else (shown, {})
        return forms | {VIEW: super()._repr_mimebundle_(**kwargs)[VIEW]}, metadata


def _refreshing(work, said, *controls):
    """Return a callback that calls `work` while the controls are disabled, unless the first control, a field, is empty.
    An exception is shown in one line in `said`, since nobody sees a callback's traceback."""
    told = said.value

    def refresh(_):
        if not controls[0].value:
            return
        said.value = '<span role="status">The models are being asked …</span>'
        for control in controls:
            control.disabled = True
        try:
            work()
            said.value = told
        except Exception as error:
            line = " ".join(f"{type(error).__name__}: {error}".split())
            said.value = f'<span role="alert">{html.escape(line)}</span>'
        for control in controls:
            control.disabled = False

    return refresh


def _chooser(models, recorded, missing, able, fits=lambda row: True):
    """Return (a field to search a question in, a line that says which questions and models are available).

    recorded: questions that need no model. missing: labels of models not trained here. able: whether other questions
    can be asked nevertheless. fits: row -> whether a row of the forget set is offered.
    """
    others, lines = [], []
    if able:
        try:
            others = [question for question, row in models.rows.items() if question not in recorded and fits(row)]
            lines.append(f"{len(recorded) + len(others)} questions: those not recorded are put to the models.")
        except (OSError, ValueError) as error:
            lines.append(f"Only the recorded questions, since the forget set cannot be read: {error}")
    if missing:
        what = "Not trained here" if able else f"{len(recorded)} recorded; for any other, these are not trained here"
        lines.append(f"{what}: {', '.join(missing)}. To train them, and then run this cell again:")
    said = [html.escape(line) for line in lines]
    said += [f"<code>{html.escape(models.command(missing))}</code>"] if missing else []
    field = ipywidgets.Combobox(
        value=recorded[0], options=[*recorded, *others], ensure_option=True, continuous_update=False,
        description="question", placeholder="a word of the question, then choose", **WIDE,
    )  # fmt: skip
    return field, ipywidgets.HTML(" ".join(said))


def token_distributions(profile, split, seed, contents):
    """Return `widgets.TokenDistributions` of these contents (`distributions.of`), for any other question and model too.

    Models whose answer to the chosen question is not recorded are run.
    """
    models, kept = Models(profile, split, seed), {c["question"]: c for c in contents}
    widget = widgets.TokenDistributions(contents, position=_giveaway(contents[0]))
    recorded = list(contents[0]["models"])
    missing = models.lacking(dict.fromkeys((*recorded, *BASES, *METHODS)))
    names = [*recorded, *(k for k in (*BASES, *METHODS) if k not in (*recorded, *missing))]
    widget.models = [name for name in widget.models if name in names]
    lacks = [name for name in recorded if name in missing]
    field, said = _chooser(models, list(kept), lacks, able=set(names) > set(lacks))
    chosen = ipywidgets.TagsInput(value=widget.models, allowed_tags=names, allow_duplicates=False)

    def show():
        known = kept.get(field.value, {"models": {}})["models"]
        new = [name for name in chosen.value if name not in (*known, *missing)]
        if new:  # and the oracle, since the widget shows each model's distance to it
            oracle = [] if "oracle" in (*new, *missing) else ["oracle"]
            found = models.ask(field.value, [*new, *oracle])
            kept[field.value] = found | {"models": found["models"] | known}
        if field.value not in kept:
            raise ValueError(f"none of the chosen models can be asked {field.value!r}; choose another")
        widget.show(kept.values(), list(kept).index(field.value))

    refresh = _refreshing(show, said, field, chosen)
    field.observe(refresh, "value")
    chosen.observe(refresh, "value")
    link((chosen, "value"), (widget, "models"))
    widget.observe(lambda change: setattr(field, "value", list(kept)[change["new"]]), "question")
    return Live(widget, [field, ipywidgets.HBox([ipywidgets.Label("models"), chosen]), said, widget])


def _giveaway(content):
    """Return the place of the token that gives a true answer away (`cases.blank`); 0 where there is none."""
    found = cases.blank(content["question"], content["answer"])
    return distributions.position(content, found[1]) if found and found[1] in "".join(content["tokens"]) else 0


def alpha_explorer(records, content):
    """Return `widgets.AlphaExplorer` of one method's records over alpha and of one question (`distributions.of`), for
    other questions too. It opens at the middle alpha, at the token that gives the true answer away."""
    spec, names, labels = records[0].spec, list(content["models"]), [record.spec.label for record in records]
    models = Models(spec.profile, spec.split, spec.seed)
    state = lambda found: distributions.alpha_state(records, found) | {"position": _giveaway(found)}  # noqa: E731
    widget = widgets.AlphaExplorer(**state(content), index=len(records) // 2)
    missing = models.lacking(names)
    field, said = _chooser(models, [content["question"]], missing, able=not missing)
    alphas = [(f"{row['alpha']:g}", i) for i, row in enumerate(widget.rows)]
    alpha = ipywidgets.SelectionSlider(options=alphas, value=widget.index, description="alpha", **WIDE)

    def show():
        same = field.value == content["question"]
        with widget.hold_sync():
            for name, value in state(content if same else models.ask(field.value, names, labels)).items():
                setattr(widget, name, value)

    field.observe(_refreshing(show, said, field), "value")
    link((alpha, "value"), (widget, "index"))
    return Live(widget, [field, alpha, said, widget])


def picture(profile, split, seed, content, names, draw):
    """Show draw(content, place), a picture of one question's distributions (`distributions.of`) at the token that gives
    the true answer away, and of any other question with such a token. names: the models drawn."""
    models = Models(profile, split, seed)
    first = draw(content, _giveaway(content))
    drawn = ipywidgets.HTML(first._repr_mimebundle_()["text/html"])
    missing = models.lacking(names)
    fits = lambda row: cases.blank(row["question"], row["answer"])  # noqa: E731
    field, said = _chooser(models, [content["question"]], missing, able=not missing, fits=fits)
    truth = ipywidgets.HTML()

    def show():
        found = content if field.value == content["question"] else models.ask(field.value, names)
        truth.value = f"The truth: {html.escape(found['answer'])}"
        drawn.value = draw(found, _giveaway(found))._repr_mimebundle_()["text/html"]

    field.observe(_refreshing(show, said, field), "value")
    return Live(first, [field, said, truth, drawn])


def divergence_playground(**state):
    """Return `widgets.DivergencePlayground` with fields to type its three strengths exactly."""
    widget = widgets.DivergencePlayground(**state)
    reach = {"alpha": ("α, strength", 0, 16), "shift": ("c, the constant", -4, 4), "rate": ("step size", 0.1, 5)}
    fields = []
    for name, (text, low, high) in reach.items():
        field = ipywidgets.BoundedFloatText(getattr(widget, name), min=low, max=high, step=0.1, description=text)
        link((field, "value"), (widget, name))
        fields.append(field)
    return Live(widget, [ipywidgets.HBox(fields), widget])
