"""What a model takes, from its configuration alone: parameters, bytes in training, bytes of a cache, operations."""

import torch
import transformers
from accelerate import init_empty_weights
from torch import nn
from transformers.pytorch_utils import Conv1D  # GPT-2's linear layers

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
EFFICIENCY = 0.3  # of the speed of one large product that a training step comes to
CPU_BYTES = 8 * 2**30  # for caches, of each thread of an evaluation on a CPU; on a card it is what is free


def empty(config):
    """A model of this configuration whose parameters are none: it can be counted, and weighs nothing."""
    with init_empty_weights():
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    return model


def parameters(config):
    """How many parameters a model of this configuration has."""
    return sum(p.numel() for p in empty(config).parameters())


def _linear(model):
    """Its linear layers but the output layer."""
    head = model.get_output_embeddings()
    return [m for m in model.modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]


def products(model):
    """(weights of its layers' products, of its output layer's): what each token is multiplied with, once."""
    return sum(m.weight.numel() for m in _linear(model)), model.get_output_embeddings().weight.numel()


def adapters(config, rank):
    """How many parameters adapters of a rank have, see `training.adapted`; None where there are none."""
    if not rank:
        return None
    return sum(rank * sum(m.weight.shape) for m in _linear(empty(config)))


def held(n, dtype, trained=None):
    """{what: bytes} that training n parameters holds beside activations: the student, gradients, AdamW's two moments,
    and in bf16 what rounding took from the weights (see `training.adamw`). trained: of how many adapters' parameters,
    which are in float32; None: of all n."""
    if trained is not None:
        return {"student": n * BYTES[dtype] + 4 * trained, "gradients": 4 * trained, "AdamW's moments": 8 * trained}
    found = {"student": n * BYTES[dtype], "gradients": n * BYTES[dtype], "AdamW's moments": 2 * n * BYTES[dtype]}
    return found | ({"compensation": n * BYTES[dtype]} if dtype == "bfloat16" else {})


def state(n, dtype, trained=None):
    """Bytes that the state of an unfinished run takes on disk: what resuming needs, all that is held but gradients."""
    return sum(v for k, v in held(n, dtype, trained).items() if k != "gradients")


def activations(config, dtype, tokens, checkpointing=False):
    """Bytes that the layers of a Llama or Phi keep of a micro-batch of so many tokens for the backward pass; with
    checkpointing of one layer, and of the others their input."""
    text = config.get_text_config()
    hidden, layers, size = text.hidden_size, text.num_hidden_layers, BYTES[dtype]
    wide = (8 if text.model_type == "phi" else 9) * hidden + 2 * _key_values(text)
    wide += (2 if text.model_type == "phi" else 4) * text.intermediate_size
    return tokens * size * ((wide + layers * hidden) if checkpointing else layers * wide)


def _key_values(text):
    """Numbers that one layer caches of one token for its keys: as many again for its values."""
    heads = getattr(text, "num_attention_heads", None) or 1
    each = getattr(text, "head_dim", None) or text.hidden_size // heads
    return (getattr(text, "num_key_value_heads", None) or heads) * each


def cache_bytes(config, dtype):
    """Bytes of the key-value cache that one token of one sequence takes."""
    text = config.get_text_config()
    return 2 * text.num_hidden_layers * _key_values(text) * dtype.itemsize


def rows(model, tokens, most):
    """How many sequences of so many tokens may be cached at once, 1 to `most`: in half of what is free, since a batch
    is copied when it shrinks."""
    free = CPU_BYTES
    if model.device.type == "cuda":
        kept = torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
        free = torch.cuda.mem_get_info(model.device)[0] + kept
    each = getattr(model, "caches", 1) * cache_bytes(model.config, model.dtype) * max(1, tokens)
    return int(max(1, min(most, free // 2 // each)))


def forward(model, tokens, scored, length):
    """Floating-point operations of one forward pass over so many tokens in sequences of a length, of which the scored
    ones meet the output layer; forward and backward are three times as many, four with checkpointing."""
    layers, head = products(model)
    text = model.config.get_text_config()
    attention = 4 * text.num_hidden_layers * text.hidden_size * length  # scores and mixing, the masked half included
    return tokens * (2 * layers + attention) + 2 * scored * head
