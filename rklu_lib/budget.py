"""Estimates from a model's configuration alone: parameters, bytes in training, bytes of caches, operations."""

import torch
import transformers
from accelerate import init_empty_weights
from torch import nn
from transformers.pytorch_utils import Conv1D  # GPT-2's linear layers

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
EFFICIENCY = 0.3  # the speed of a training step as a share of the speed of one large matrix product
CPU_BYTES = 8 * 2**30  # for the caches of each evaluation thread on a CPU; on a GPU the free memory counts


def empty(config):
    """Return a model of this configuration without memory for its weights; its parameters can be counted."""
    with init_empty_weights():
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    return model


def parameters(config):
    """Return the number of parameters of a model of this configuration."""
    return sum(p.numel() for p in empty(config).parameters())


def _linear(model):
    """Return the model's linear layers except the output layer."""
    head = model.get_output_embeddings()
    return [m for m in model.modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]


def products(model):
    """Return the numbers of weights (of `_linear`, of the output layer). Each token meets each weight once."""
    return sum(m.weight.numel() for m in _linear(model)), model.get_output_embeddings().weight.numel()


def adapters(config, rank):
    """Return the number of parameters of adapters of this rank, see `training.adapted`; None for rank 0."""
    if not rank:
        return None
    return sum(rank * sum(m.weight.shape) for m in _linear(empty(config)))


def held(n, dtype, trained=None):
    """Return {what: bytes} for training a model of n parameters, without activations: student, gradients, AdamW's two
    moments, and in bf16 the rounding errors of the weights (see `training.adamw`). trained: number of adapter
    parameters, in float32, if only these are trained; None: all n are trained."""
    if trained is not None:
        return {"student": n * BYTES[dtype] + 4 * trained, "gradients": 4 * trained, "AdamW's moments": 8 * trained}
    found = {"student": n * BYTES[dtype], "gradients": n * BYTES[dtype], "AdamW's moments": 2 * n * BYTES[dtype]}
    return found | ({"compensation": n * BYTES[dtype]} if dtype == "bfloat16" else {})


def state(n, dtype, trained=None):
    """Return the bytes on disk of an unfinished run's state: all that `held` counts, except the gradients."""
    return sum(v for k, v in held(n, dtype, trained).items() if k != "gradients")


def activations(config, dtype, tokens, checkpointing=False):
    """Return the bytes that the layers of a Llama or Phi keep for the backward pass of a micro-batch of `tokens`
    tokens. With checkpointing, all layers keep their inputs, and one layer at a time everything."""
    text = config.get_text_config()
    hidden, layers, size = text.hidden_size, text.num_hidden_layers, BYTES[dtype]
    wide = (8 if text.model_type == "phi" else 9) * hidden + 2 * _key_values(text)
    wide += (2 if text.model_type == "phi" else 4) * text.intermediate_size
    return tokens * size * ((wide + layers * hidden) if checkpointing else layers * wide)


def _key_values(text):
    """Return how many numbers one layer caches for the keys of one token; its values take as many again."""
    heads = getattr(text, "num_attention_heads", None) or 1
    each = getattr(text, "head_dim", None) or text.hidden_size // heads
    return (getattr(text, "num_key_value_heads", None) or heads) * each


def cache_bytes(config, dtype):
    """Return the bytes that one token of one sequence takes in the key-value cache. dtype: a torch dtype."""
    text = config.get_text_config()
    return 2 * text.num_hidden_layers * _key_values(text) * dtype.itemsize


def rows(model, tokens, most):
    """Return how many sequences of `tokens` tokens may be cached at once, from 1 to `most`. They may use half of the
    free memory, because a batch is copied when it shrinks."""
    free = CPU_BYTES
    if model.device.type == "cuda":
        kept = torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
        free = torch.cuda.mem_get_info(model.device)[0] + kept
    each = getattr(model, "caches", 1) * cache_bytes(model.config, model.dtype) * max(1, tokens)
    return int(max(1, min(most, free // 2 // each)))


def forward(model, tokens, scored, length):
    """Return the floating-point operations of one forward pass over `tokens` tokens in sequences of `length`. Only the
    `scored` tokens meet the output layer. Forward and backward take three times as many, with checkpointing four."""
    layers, head = products(model)
    text = model.config.get_text_config()
    attention = 4 * text.num_hidden_layers * text.hidden_size * length  # with the masked half
    return tokens * (2 * layers + attention) + 2 * scored * head
