"""Log-probabilities of every answer token in one forward pass, the input of `membership` and `memorisation`."""

from dataclasses import dataclass

import numpy as np
import torch

from rklu_lib import data, models


@dataclass(frozen=True)
class Answer:
    """What a model gives each of an answer's t tokens, given the prompt and the true tokens before it; float64, nats.

    log_p (t,): log-probability of the true token. mean, deviation (t,): mean and standard deviation of the
    log-probability over the vocabulary, under the model's own distribution. hit (t,), bool: whether the true token is
    the likeliest. closed: whether the last token is the one that closes the answer."""

    log_p: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    hit: np.ndarray
    closed: bool

    @property
    def nll(self):
        """The mean negative log-likelihood per token in nats, closing token included."""
        return -self.log_p.mean()

    def text(self, name):
        """Return the field `name` ("log_p", "mean", "deviation" or "hit") without the closing token, (t - closed,)."""
        values = getattr(self, name)
        return values[: len(values) - self.closed]


@torch.no_grad()
def answers(model, examples, end, batch_size=8, chunk=128):
    """Return the `Answer` of each of n `data.Example`s, in their order. end: the token that closes an answer.

    chunk: number of tokens whose logits are in memory at once. Raises ValueError for an answer without any other token.
    """
    for number, e in enumerate(examples, 1):
        if e.answer in ((), (end,)):
            raise ValueError(f"answer {number} has no token beside the one that ends it; leave it out")
    scored, found = models.ScoredLogits(model.eval()), [None] * len(examples)
    for batch in data.batches(examples, batch_size):
        batch = batch.to(model.device)
        hidden, head, parts = scored.hidden(batch.input_ids, batch.mask), models.output_layer(model), []
        for h, t in zip(hidden.split(chunk), batch.targets.split(chunk), strict=True):
            log_p = head(h).double().log_softmax(-1)
            p = log_p.exp()
            known = torch.where(p > 0, log_p, 0.0)  # 0 log 0 = 0
            mean = (p * known).sum(-1)
            # the published code uses a variance of at least 1e-6
            deviation = ((p * known**2).sum(-1) - mean**2).clamp(min=1e-6).sqrt()
            parts.append(torch.stack([log_p.gather(-1, t[:, None])[:, 0], mean, deviation, log_p.argmax(-1) == t]))
        values, rows = torch.cat(parts, dim=1).cpu().numpy(), batch.rows.cpu().numpy()
        for row, i in enumerate(batch.index):
            log_p, mean, deviation, hit = values[:, rows == row]
            found[i] = Answer(log_p, mean, deviation, hit.astype(bool), examples[i].answer[-1] == end)
    return found
