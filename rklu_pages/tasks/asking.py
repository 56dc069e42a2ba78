"""The models behind a page, put to any question of its forget set while a reader waits; nothing of it is recorded."""

import functools
from dataclasses import dataclass, field

from rklu_lib import data, profiles, runs
from rklu_lib.execution import has_checkpoint
from rklu_pages.tasks import distributions, loading


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
        parts = {k: loading.parts(runs.named(self.profile, self.split, k, self.seed)) for k in labels}
        return [k for k in labels if not all(map(has_checkpoint, parts[k]))]

    def command(self, labels):
        """What trains these models: a line for a shell."""
        call = f"loading.load_models({self.profile!r}, {self.split!r}, {list(labels)!r}, {self.seed})"
        return f'python -c "from rklu_pages.tasks import loading; {call}"'

    def ask(self, question, labels, answering=()):
        """What these models say to a question, as of `distributions.said`; those in `answering` answer in words too.

        Raises ValueError for a question that the forget set lacks.
        """
        if question not in self.rows:
            raise ValueError(f"{self.split} has no question {question!r}")
        new = [label for label in labels if label not in self._loaded]
        loaded, tokenizer = loading.load_models(self.profile, self.split, new, self.seed)
        self._loaded.update(loaded)
        chosen = {label: self._loaded[label] for label in labels}
        return distributions.said(chosen, tokenizer, profiles.profile(self.profile), self.rows[question], answering)
