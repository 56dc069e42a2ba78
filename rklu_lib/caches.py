"""Key-value caches of prompts: what is the same in several is run once, and its rows are handed on."""

import copy
from functools import partial
from os.path import commonprefix

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicLayer

OPENING = 8  # tokens: a shorter common opening is not worth a forward pass of its own
ROOM = 128  # tokens that are generated before what was read is copied again


def left_pad(prompts, device):
    """(ids, mask), each (n, longest), with padding on the left so that all prompts end together."""
    ids, pad = [torch.LongTensor(p) for p in prompts], partial(pad_sequence, batch_first=True, padding_side="left")
    return pad(ids).to(device), pad([torch.ones_like(row) for row in ids]).to(device)


def rows(cache, index):
    """A new key-value cache with the rows `index` of `cache` (or of each cache of a tuple, for the teacher)."""
    if isinstance(cache, tuple):
        return tuple(rows(c, index) for c in cache)
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(index)  # which puts new tensors into the layers
    return chosen


class _Roomy(DynamicLayer):
    """Writes what is new into room behind what was read; the library's layer copies all there is with every token."""

    room = None  # of which the keys, and the values, are views

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
        self.room = None  # is another's, the layer's that this one was chosen from


def roomy(cache):
    """The cache, made ready for tokens that come one by one, where its layers keep all that was read."""
    for layer in layers(cache):
        if type(layer) is DynamicLayer:
            layer.__class__ = _Roomy
    return cache


def layers(cache):
    """Its layers, if each keeps the keys and values of what was read, in a window or not; else none."""
    found = [layer for c in cache for layer in layers(c)] if isinstance(cache, tuple) else getattr(cache, "layers", [])
    return found if all(isinstance(layer, DynamicLayer) for layer in found) else []


def read(model, prompts):
    """Run n prompts (token-id tuples): (last hidden states (n, hidden) after each, their cache, its mask (n, seq)).

    What all open with (a system prompt: half of a question of TOFU) is run once; not by a model with a window, as
    the padding behind it would push out what belongs there.
    """
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
