"""The models behind a page, put to any question of its forget set while a reader waits; nothing of it is recorded."""

import functools
from dataclasses import dataclass, field

from rklu_lib import data, probing, profiles, runs
from rklu_lib.execution import has_checkpoint
from rklu_lib.records import load
from rklu_pages.tasks import cases


def _there(spec):
    """Can the model of a spec be read, with nothing to be trained or scored first?"""
    if spec.method == "teacher":
        return has_checkpoint(spec.base("original")) and _there(spec.base("augmented"))
    return has_checkpoint(spec) and load(spec) is not None


@dataclass(frozen=True)
class Models:
    """The models of one forget set and seed, by label as of `runs.named`; each is loaded when it is first asked."""

    profile: str
    split: str
    seed: int = 0
    _loaded: dict = field(default_factory=dict, repr=False)

    @functools.cached_property
    def rows(self):
        """{question: its row} of the whole forget set. Raises what `data.load_tofu` raises."""
        source = profiles.profile(self.profile).source
        return {row["question"]: row for row in data.load_tofu(self.split, source)}

    def lacking(self, labels):
        """Those of the labels whose model, or one that it is made of, has not been trained on this machine."""
        return [k for k in labels if not _there(runs.named(self.profile, self.split, k, self.seed))]

    def command(self, labels):
        """What trains these models: a line for a shell."""
        call = f"cases.load_models({self.profile!r}, {self.split!r}, {list(labels)!r}, {self.seed})"
        return f'python -c "from rklu_pages.tasks import cases; {call}"'

    def ask(self, question, labels, answering=()):
        """What these models would say next along a question's true answer: `probing.token_distributions`, with the
        "question", the "answer" and, of the labels in `answering`, the "direct_answers", as in `cases.distributions`.

        Raises ValueError for a question that the forget set lacks.
        """
        if question not in self.rows:
            raise ValueError(f"{self.split} has no question {question!r}")
        new = [label for label in labels if label not in self._loaded]
        loaded, tokenizer = cases.load_models(self.profile, self.split, new, self.seed)
        self._loaded.update(loaded)
        p, content = profiles.profile(self.profile), {k: self.rows[question][k] for k in ("question", "answer")}
        example = data.encode(tokenizer, p.template, content["question"], content["answer"])
        content |= probing.token_distributions({k: self._loaded[k] for k in labels}, tokenizer, example)
        how = (tokenizer, p.template, question, p.max_new_tokens)
        content["direct_answers"] = {k: probing.direct_answer(self._loaded[k], *how) for k in answering}
        return content
