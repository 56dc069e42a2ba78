"""The book's widgets: one JavaScript file each, which runs in two hosts.

In JupyterLab, anywidget connects the widget to the kernel. Everywhere else the same source runs inside the page,
without kernel or network, on the state that the widget had when its cell ran. Nothing in this static form is random,
since nbval compares it. The classes' docstrings are shown to readers where no script runs."""

import hashlib
import html
import inspect
import json
from pathlib import Path

import anywidget
from traitlets import Dict, Float, Int, List, Unicode

from rklu_lib.own import report
from rklu_pages.drawing.looks import COLOURS

_PLACES = (Path(__file__).parent, report.ASSETS)  # files that the report of `rklu unlearn` needs too are in the library


def _source(*names):
    files = [next(place / name for place in _PLACES if (place / name).exists()) for name in names]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


class _Widget(anywidget.AnyWidget):
    """The base of all widgets: the style, the colours of the book's figures, and the static form."""

    _css = _source("widgets.css")
    colours = Dict(COLOURS).tag(sync=True)

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        names = set(self.trait_names(sync=True)) - set(anywidget.AnyWidget.class_trait_names())
        state = {name: getattr(self, name) for name in sorted(names) if not name.startswith("_")}
        words = repr(state | {"colours": ""}) + self._esm
        # only the colours of methods that occur, so that a new method does not change every page
        state["colours"] = {name: colour for name, colour in self.colours.items() if name in words}
        text = json.dumps(state, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        key = hashlib.sha256(f"{type(self).__name__} {text}".encode()).hexdigest()[:10]
        about = inspect.getdoc(type(self))  # `__doc__` is not inherited by the class that anywidget adds traits to
        script = self._esm.replace("export default", "const widget =") + f'\nmount(widget, "{key}", {text});'
        still = f"{about} This part needs JavaScript; what it shows is described in the text around it.{self._still()}"
        static = f"""<div class="rk-widget" data-rk="{key}"><noscript>{still}</noscript></div>
<style>\n{self._css}</style>\n<script type="module">\n{script}\n</script>"""
        return data | {"text/html": static, "text/plain": f"{type(self).__name__}: {about}"}, metadata

    def _still(self):
        """Return, as HTML, what is shown where no script runs, beside the words."""
        return ""


class DivergencePlayground(_Widget):
    """Drag logits, build the teacher, and let one student follow it by reverse and another by forward KL divergence."""

    _esm = _source("parts.js", "divergence_playground.js")
    tokens = List(Unicode()).tag(sync=True)
    original = List(Float()).tag(sync=True)
    augmented = List(Float()).tag(sync=True)
    alpha = Float(8.0).tag(sync=True)
    shift = Float(0.0).tag(sync=True)
    rate = Float(1.0).tag(sync=True)
    steps = Int(0).tag(sync=True)  # that both students have taken when the page opens


class TokenDistributions(_Widget):
    """Step through a true answer and compare what each model would have said next, token by token."""

    _esm = _source("parts.js", "token_distributions.js")
    questions = List(Dict()).tag(sync=True)
    models = List(Unicode(), ["original", "oracle", "teacher", "RKLU"]).tag(sync=True)
    question, position = Int(0).tag(sync=True), Int(0).tag(sync=True)
    k = Int(5).tag(sync=True)
    scale = Unicode("linear").tag(sync=True)

    def __init__(self, contents, **state):
        """contents: as `distributions.of` returns them; their settings and provenance are dropped."""
        super().__init__(questions=self._kept(contents), **state)

    @staticmethod
    def _kept(contents):
        return [{key: content[key] for key in ("question", "answer", "tokens", "models")} for content in contents]

    def _still(self):
        content, at = self.questions[self.question], self.position
        lines = [content["question"], f"The true answer: {content['answer']}"]
        lines.append(f"What each model would say next after “{''.join(content['tokens'][:at])}”:")
        for name in (name for name in content["models"] if name in self.models):
            top = content["models"][name]["top"][at][:3]
            lines.append(f"{name}: " + ", ".join(f"{text.replace(' ', '␣')} {p:.3g}" for text, p in top))
        return "".join(f"<p>{html.escape(line)}</p>" for line in lines)

    def show(self, contents, question):
        """Replace the contents by these, and show the question at place `question` among them."""
        with self.hold_sync():
            self.questions, self.question = self._kept(contents), question


class AlphaExplorer(_Widget):
    """Figure 5 as a slider: forget quality, utility, teacher and an example answer at each strength of the teacher."""

    _esm = _source("parts.js", "alpha_explorer.js")
    rows = List(Dict()).tag(sync=True)
    question, answer, tokens = Unicode().tag(sync=True), Unicode().tag(sync=True), List(Unicode()).tag(sync=True)
    index, position = Int(0).tag(sync=True), Int(0).tag(sync=True)


class ScoreExplorer(_Widget):
    """Scores of many runs or tokens: choose what is drawn, and point at a mark to see its name and values."""

    _esm, _css = _source("parts.js", "score_explorer.js"), _source("widgets.css", "score_explorer.css")
    noun = Unicode("Methods").tag(sync=True)
    series, views = List(Dict()).tag(sync=True), List(Dict()).tag(sync=True)
    fields, tokens = Dict().tag(sync=True), List(Unicode()).tag(sync=True)
    view, rule = Int(0).tag(sync=True), Unicode("peak").tag(sync=True)
    shown, chosen = List(Unicode()).tag(sync=True), Dict().tag(sync=True)
