"""Load or create a causal language model and its tokenizer, save them as safetensors, reach the scored logits."""

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from torch import distributed, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()  # a bar per loaded checkpoint would break up the one over all epochs


def _sdpa_float32(module, query, key, value, mask, **kwargs):
    """Attention outside autocast: on a CPU its bf16 backward pass takes four times as long as the float32 one."""
    with torch.autocast(query.device.type, enabled=False):
        return sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **kwargs)


AttentionInterface.register("sdpa_float32", _sdpa_float32)
AttentionMaskInterface.register("sdpa_float32", sdpa_mask)
OPENING = 8  # tokens: a shorter common opening is not worth a forward pass of its own
SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}


def device():
    """Where this process computes: "cuda" when there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def bf16(precision):
    """Whether a profile's "bf16" is to be had here: on a CPU without such instructions it is emulated, some thirty
    times slower than float32 (book: What it costs), which is then taken instead."""
    fast = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return precision == "bf16" and fast


def train_tokenizer(texts, vocab_size):
    """A byte-level BPE tokenizer over an iterable of strings; it can spell any text, so there is no unknown token."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size, special_tokens=list(SPECIAL_TOKENS.values()), show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **SPECIAL_TOKENS)


def create(profile, tokenizer, seed):
    """A freshly initialised model of the profile's architecture and shape, in float32; the same for the same seed."""
    torch.manual_seed(seed)
    shape = dict(
        vocab_size=len(tokenizer),
        hidden_size=profile.hidden_size,
        intermediate_size=profile.intermediate_size,
        num_hidden_layers=profile.n_layers,
        num_attention_heads=profile.n_heads,
        max_position_embeddings=profile.max_positions,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    if profile.architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape))
    return PhiForCausalLM(PhiConfig(**shape, resid_pdrop=0.0, embd_pdrop=0.0, attention_dropout=0.0))


def folder():
    """Where models lie that need no hub, as owner/name: the folder that `RKLU_MODELS` names, else `models` here."""
    return Path(os.environ.get("RKLU_MODELS", Path(__file__).resolve().parents[1] / "models"))


def resolve(path):
    """Where a checkpoint is: in `folder()` (owner/name, as on the hub) if it is there, else at `path`.
    Raises FileNotFoundError for what is neither a folder nor a hub id."""
    local = folder() / path
    if not (local.is_dir() or Path(path).is_dir() or re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(path))):
        raise FileNotFoundError(f"{path} is no folder; a model is a folder in the hub's layout or a hub id, owner/name")
    return local if local.is_dir() else path


def load(path, dtype="float32"):
    """(model, tokenizer) from the hub or from a directory in its layout, see `resolve`. Remote code is never run.

    Raises ValueError when the tokenizer has no end-of-text token: an answer could then never end.
    """
    tokenizer = load_tokenizer(path)
    model = AutoModelForCausalLM.from_pretrained(
        resolve(path), dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
    )
    return model.to(device()), tokenizer


def load_tokenizer(path):
    """The tokenizer alone, as `load` would return it."""
    tokenizer = AutoTokenizer.from_pretrained(resolve(path), trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {path} has no end-of-text token; set eos_token in tokenizer_config.json")
    return tokenizer


def check(model, examples, file):
    """Raises ValueError where an example is longer than the model reads, or where its logits are not what its output
    layer says (a soft cap or a scale): every loss here takes them to be."""
    limit, wholes = getattr(model.config, "max_position_embeddings", None), [e.prompt + e.answer for e in examples]
    for number, tokens in enumerate(wholes, 1):
        if limit and len(tokens) > limit:
            raise ValueError(f"{file}, pair {number}: {len(tokens)} tokens with the prompt; the model reads {limit}")
    if wholes:
        ids = torch.tensor(wholes[:1], device=model.device)
        with torch.no_grad():
            pair = model.eval()(ids).logits[0], ScoredLogits(model)(ids, torch.ones_like(ids, dtype=torch.bool))
        if not torch.allclose(*pair, rtol=1e-2, atol=1e-2):
            raise ValueError("the model changes its output layer's logits (soft cap, scale), which no loss here does")


def save(model, tokenizer, path):
    """Write a checkpoint directory in the hub's layout (safetensors), whole or not at all."""
    with atomic_directory(path) as tmp:
        model.save_pretrained(tmp)
        tokenizer.save_pretrained(tmp)


@contextlib.contextmanager
def atomic_directory(path):
    """`with atomic_directory(path) as tmp`: what is written under tmp replaces `path`, unless something raised."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield tmp
        old = tmp.with_name(tmp.name + "-old")
        if path.exists():
            path.rename(old)
        os.replace(tmp, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def _common(input_ids, mask):
    """How many tokens all of several rows open with before any is scored; 0 of a row alone."""
    alike = (input_ids == input_ids[:1]).all(0) & ~mask.any(0)
    return int(alike.int().cumprod(0).sum()) if len(input_ids) > 1 else 0


class ScoredLogits(nn.Module):
    """A causal LM reduced to what every loss needs: the logits that predict scored tokens, and no others.

    forward(input_ids (batch, seq), mask (batch, seq) bool) -> (tokens, vocab), row-major over the mask. Sequences are
    padded on the right, so causal attention alone keeps padding out and no attention mask is built. The output head
    runs on scored positions only: prompts and padding never meet the vocabulary.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model
        # Gradient checkpointing makes again what a key-value cache would have to keep; and processes that share the
        # weights of a model must all take as many passes.
        checkpointed = any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
        self.openings = not checkpointed and not (distributed.is_available() and distributed.is_initialized())

    def hidden(self, input_ids, mask):
        """Last hidden states at the scored positions: (tokens, hidden).

        What all rows open with (a chat's system prompt: a quarter of TOFU's tokens) is run once, for all of them.
        """
        run, n = self.model.base_model, _common(input_ids, mask)
        if n < OPENING or not self.openings:
            return run(input_ids=input_ids, use_cache=False).last_hidden_state[mask]
        cache = run(input_ids=input_ids[:1, :n], use_cache=True).past_key_values
        for layer in cache.layers:
            layer.keys, layer.values = (t.expand(len(input_ids), -1, -1, -1) for t in (layer.keys, layer.values))
        rest = run(input_ids=input_ids[:, n:], past_key_values=cache, use_cache=True).last_hidden_state
        return rest[mask[:, n:]]

    @property
    def head(self):
        """The output layer's (weight (vocab, hidden), bias (vocab,) or None), as `losses.from_hidden` takes it."""
        layer = self.model.get_output_embeddings()
        return layer.weight, layer.bias

    def forward(self, input_ids, mask):
        return self.model.get_output_embeddings()(self.hidden(input_ids, mask))
