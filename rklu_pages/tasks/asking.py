"""Ask a page's models any question of the forget set, live in a notebook; nothing of this is recorded."""

import functools
from dataclasses import dataclass, field

from rklu_lib import data, profiles, runs
from rklu_lib.execution import has_checkpoint
from rklu_pages.tasks import distributions, loading


@dataclass(frozen=True)
class Models:
    """The models of one forget set and seed, by label as of `runs.named`; each is loaded at its first question."""

    profile: str
    split: str
    seed: int = 0
    _loaded: dict = field(default_factory=dict, repr=False)

    @functools.cached_property
    def rows(self):
        """{question: row} of the whole forget set. Raises what `data.load_tofu` raises."""
        source = profiles.profile(self.profile).source
        return {row["question"]: row for row in data.load_tofu(self.split, source)}

    def lacking(self, labels):
        """Return the labels whose model, or a model that it is made of, has not been trained on this machine."""
        parts = {k: loading.parts(runs.named(self.profile, self.split, k, self.seed)) for k in labels}
        return [k for k in labels if not all(map(has_checkpoint, parts[k]))]

    def command(self, labels):
        """Return a shell command that trains these models."""
        call = f"loading.load_models({self.profile!r}, {self.split!r}, {list(labels)!r}, {self.seed})"
        return f'python -c "from rklu_pages.tasks import loading; {call}"'

    def ask(self, question, labels, answering=()):
        """Return `distributions.said` of these models; those in `answering` also answer in words.

        Raises ValueError for a question that the forget set lacks.
        """
        if question not in self.rows:
            raise ValueError(f"{self.split} has no question {question!r}")
        new = [label for label in labels if label not in self._loaded]
        loaded, tokenizer = loading.load_models(self.profile, self.split, new, self.seed)
        self._loaded.update(loaded)
        chosen = {label: self._loaded[label] for label in labels}
        return distributions.said(chosen, tokenizer, profiles.profile(self.profile), self.rows[question], answering)
