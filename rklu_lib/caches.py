"""Key-value caches of prompts: tokens that several prompts begin with are run once, and the cache rows are copied."""

import copy
from functools import partial
from os.path import commonprefix

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicLayer

OPENING = 8  # tokens: a shorter common opening is not worth a forward pass of its own
ROOM = 128  # tokens that are generated before the cache is copied again


def left_pad(prompts, device):
    """Return (ids, mask), each (n, longest), of n prompts padded on the left, so that all prompts end together."""
    ids, pad = [torch.LongTensor(p) for p in prompts], partial(pad_sequence, batch_first=True, padding_side="left")
    return pad(ids).to(device), pad([torch.ones_like(row) for row in ids]).to(device)


def rows(cache, index):
    """Return a new key-value cache with the rows `index` of `cache` (of each cache in a tuple, for the teacher)."""
    if isinstance(cache, tuple):
        return tuple(rows(c, index) for c in cache)
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(index)  # this puts new tensors into the layers
    return chosen


class _Roomy(DynamicLayer):
    """A cache layer with free room after its tokens for new ones; transformers' layer copies all for each new token."""

    room = None  # [keys, values] with the free room; self.keys and self.values are views of these

    def update(self, key_states, value_states, *args, **kwargs):
        n = self.keys.shape[-2]
        stop = n + key_states.shape[-2]
        if self.room is None or stop > self.room[0].shape[-2]:
            self.room = [F.pad(held, (0, 0, 0, stop - n + ROOM)) for held in (self.keys, self.values)]
        for room, states in zip(self.room, (key_states, value_states), strict=True):
            room[..., n:stop, :] = states
        self.keys, self.values = (room[..., :stop, :] for room in self.room)
        return self.keys, self.values

    def batch_select_indices(self, indices):
        super().batch_select_indices(indices)
        self.room = None  # it belongs to the layer whose rows were selected


def roomy(cache):
    """Prepare the cache for tokens that are added one by one: layers without a window become `_Roomy`. Return it."""
    for layer in layers(cache):
        if type(layer) is DynamicLayer:
            layer.__class__ = _Roomy
    return cache


def layers(cache):
    """Return the cache's layers if each one keeps keys and values, with or without a sliding window; else []."""
    found = [layer for c in cache for layer in layers(c)] if isinstance(cache, tuple) else getattr(cache, "layers", [])
    return found if all(isinstance(layer, DynamicLayer) for layer in found) else []


def read(model, prompts):
    """Run n prompts (token-id tuples). Return (last hidden state of each (n, hidden), their cache, its mask (n, seq)).

    Tokens that all prompts begin with (a system prompt: half of a TOFU question) are run once. A model with a sliding
    window runs them for each prompt: the padding that follows them would push them out of the window."""
    n, past = min(len(commonprefix(prompts)), min(map(len, prompts)) - 1), {}
    if n >= OPENING and len(prompts) > 1:
        once = model.base_model(input_ids=torch.tensor([prompts[0][:n]], device=model.device), use_cache=True)
        if (found := layers(once.past_key_values)) and not any(layer.is_sliding for layer in found):
            past = {"past_key_values": rows(once.past_key_values, [0] * len(prompts))}
    n = n if past else 0
    ids, mask = left_pad([p[n:] for p in prompts], model.device)
    mask = F.pad(mask, (n, 0), value=1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, n:]
    out = model.base_model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, **past)
    return out.last_hidden_state[:, -1], out.past_key_values, mask
