"""Load or create a causal language model and its tokenizer, save them as safetensors, reach the scored logits."""

import contextlib
import functools
import importlib.util
import json
import math
import os
import re
import warnings
from pathlib import Path

import torch
import transformers  # its names where they are used: only then it imports what is behind them
from safetensors import SafetensorError
from tokenizers import ByteLevelBPETokenizer
from torch import distributed, nn
from transformers.utils import find_adapter_config_file, logging

from rklu_lib import caches, data, files, hub
from rklu_lib.losses import head_logits

logging.disable_progress_bar()  # a bar per loaded checkpoint would break up the one over all epochs
torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for every length: with each token that is generated

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}


@contextlib.contextmanager
def quiet():
    """Transformers' warnings of what is then refused in one line, or is meant to be."""
    was = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(was)


def device():
    """Where this process computes: "cuda" when there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def bf16(precision):
    """Whether a profile's "bf16" is to be had here: on a CPU without such instructions it is emulated, some thirty
    times slower than float32 (book: What it costs), which is then taken instead."""
    if torch.cuda.is_available():
        return precision == "bf16" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def train_tokenizer(texts, vocab_size):
    """A byte-level BPE tokenizer over an iterable of strings; it can spell any text, so there is no unknown token."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size, special_tokens=list(SPECIAL_TOKENS.values()), show_progress=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **SPECIAL_TOKENS)


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
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape))
    shape |= dict(resid_pdrop=0.0, embd_pdrop=0.0, attention_dropout=0.0)
    return transformers.PhiForCausalLM(transformers.PhiConfig(**shape))


def folder():
    """Where models lie that need no hub, as owner/name: the folder that `RKLU_MODELS` names, else `models` here."""
    return Path(os.environ.get("RKLU_MODELS", data.ROOT / "models"))


def resolve(path):
    """Where a checkpoint is: in `folder()` (owner/name, as on the hub) if it is there, else at `path`.
    Raises FileNotFoundError for what is neither a folder nor a hub id, or is on a hub that cannot be reached."""
    local = folder() / path
    if not (local.is_dir() or Path(path).is_dir() or re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(path))):
        raise FileNotFoundError(f"{path} is no folder; a model is a folder in the hub's layout or a hub id, owner/name")
    if local.is_dir() or Path(path).is_dir():
        return local if local.is_dir() else path
    recipe = ", or `rklu fetch smollm2`" if "SmolLM2-135M-Instruct" in str(path) else ""
    hub.check(str(path), f"put it into {folder()} in the hub's layout, or name its folder in RKLU_MODELS{recipe}")
    return path


def load(path, dtype="float32"):
    """(model, tokenizer) from the hub or from a directory in its layout, see `resolve`. Remote code is never run.

    An adapter is merged into the model it rests on, see `adapter_base`: what comes back is one model, all trainable.
    Raises ValueError when the tokenizer has no end-of-text token: an answer could then never end.
    """
    tokenizer, base = load_tokenizer(path), adapter_base(path)
    options = {"dtype": getattr(torch, dtype), "use_safetensors": True, "trust_remote_code": False}
    options["ignore_mismatched_sizes"] = True  # they are refused below, by name
    with quiet(), files.damaged(f"{path}: its weights cannot be read", (SafetensorError, RuntimeError)):
        place = base or resolve(path)
        model, found = transformers.AutoModelForCausalLM.from_pretrained(place, output_loading_info=True, **options)
    if lacking := sorted({*found["missing_keys"], *(m[0] for m in found.get("mismatched_keys", ()))}):
        which = f"{lacking[0]} and {len(lacking) - 1} more" if len(lacking) > 1 else lacking[0]
        raise files.DamagedError(f"{path}: {which} are not in its weights as config.json has them; {files.MEND}")
    if base:
        from peft import PeftModel

        if len(tokenizer) > model.get_input_embeddings().num_embeddings:  # tokens that the adapter brings
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        failures = (SafetensorError, RuntimeError, UserWarning)  # of a file that lacks weights, peft only warns
        with warnings.catch_warnings(), files.damaged(f"{path}: the adapter cannot be read", failures):
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for what is called otherwise by now
            warnings.filterwarnings("error", "Found missing adapter keys", UserWarning)
            model = PeftModel.from_pretrained(model, resolve(path)).merge_and_unload().requires_grad_(True)
    return model.to(device()), tokenizer


def adapter_base(path):
    """The model that an adapter (PEFT's `adapter_config.json`) rests on, as `resolve` finds it, beside the adapter too;
    None where `path` is a model of its own. Raises ValueError without peft, FileNotFoundError without the base."""
    config = find_adapter_config_file(str(resolve(path)))
    if config is None:
        return None
    if importlib.util.find_spec("peft") is None:
        raise ValueError(f"{path} is an adapter; peft loads it: pip install 'rklu-lib[adapters]'")
    try:
        base = json.loads(Path(config).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        fix = "it must be a JSON object with base_model_name_or_path; copy it again"
        raise files.DamagedError(f"{path}/adapter_config.json: {fix}") from None
    beside = Path(path).parent / str(base)
    try:
        return beside if base and beside.is_dir() else resolve(str(base or "?"))
    except FileNotFoundError:
        name = f"base_model_name_or_path in {path}/adapter_config.json"
        raise FileNotFoundError(f"{name} is {base!r}, which is neither a folder nor a hub id; correct it") from None


def load_tokenizer(path):
    """The tokenizer alone, as `load` would return it."""
    source, base = resolve(path), adapter_base(path)
    if base and not (Path(source) / "tokenizer_config.json").is_file():  # an adapter may bring its own, or none
        source = base
    if Path(source).is_dir() and not any((Path(source) / name).is_file() for name in TOKENIZER):
        raise FileNotFoundError(f"{path} holds no tokenizer ({', '.join(TOKENIZER)}); copy the original model's there")
    with quiet(), files.damaged(f"the tokenizer of {path} cannot be read"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {path} has no end-of-text token; set eos_token in tokenizer_config.json")
    return tokenizer


def check(model, examples, file):
    """Raises ValueError where an example is longer than the model reads, or where its logits are not what `head` says
    they are: every loss here takes them to be."""
    check_lengths(context(model.config), examples, file)
    if examples:
        ids = torch.tensor([examples[0].prompt + examples[0].answer], device=model.device)
        with torch.no_grad():
            said = model.eval()(ids).logits[0].float()
            ours = ScoredLogits(model)(ids, torch.ones_like(ids, dtype=torch.bool)).float()
        if not said.isfinite().all():  # else a model that says nothing at all passes for one that has forgotten
            raise ValueError(f"{model.name_or_path}: its logits are not finite; the weights are damaged")
        if said.shape != ours.shape or (said - ours).norm() > 1e-2 * said.norm():  # relative: small logits differ too
            what = "does something to its output layer's logits that is not known here; teach it to models.head"
            raise ValueError(f"{model.config.model_type} {what}")


def context(config):
    """How many tokens a model reads: infinitely many where its configuration sets no limit."""
    text = config.get_text_config()
    names = ("max_position_embeddings", "max_seq_len", "seq_length")
    return next((v for v in (getattr(text, name, None) for name in names) if v), math.inf)


def check_lengths(limit, examples, file, places=()):
    """Raises ValueError naming the first example with more tokens than a model reads (`limit`), by its place where
    `places` are given."""
    for number, e in enumerate(examples):
        place = places[number] if places else f"{file}, pair {number + 1}"
        if (n := len(e)) > limit:
            fix = 'Shorten the answer, make several pairs of it, or give it as {"text": …}, which is split'
            raise ValueError(f"{place}: {n} tokens with the prompt; the model reads {limit}. {fix}")


def save(model, tokenizer, path, **notes):
    """Write a checkpoint directory in the hub's layout (safetensors), whole or not at all. notes: JSON files beside."""
    with files.atomic_directory(path) as tmp:
        model.save_pretrained(tmp)
        tokenizer.save_pretrained(tmp)
        for name, content in notes.items():
            (tmp / f"{name}.json").write_text(json.dumps(content, indent=1))


def _common(input_ids, mask):
    """How many tokens all of several rows open with before any is scored; 0 of a row alone."""
    alike = (input_ids == input_ids[:1]).all(0) & ~mask.any(0)
    return int(alike.int().cumprod(0).sum()) if len(input_ids) > 1 else 0


# What some models do to the logits of their output layer, by the names their configurations give it.
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")  # Gemma 2 and its kin, Griffin, xLSTM
_FACTORS = ("logit_scale", "lm_head_multiplier", "output_multiplier")  # Cohere, Falcon-H1, Muse
_DIVISORS = ("logits_scaling",)  # Granite


def head(model):
    """A model's output layer as `losses.head_logits` takes it: (weight (vocab, hidden), bias (vocab,) or None, scale,
    cap or None)."""
    layer, config = model.get_output_embeddings(), model.config.get_text_config()
    known = {name: getattr(config, name, None) for name in (*_CAPS, *_FACTORS, *_DIVISORS)}
    scale = math.prod(known[name] for name in _FACTORS if known[name] is not None)
    scale /= math.prod(known[name] for name in _DIVISORS if known[name] is not None)
    return layer.weight, layer.bias, float(scale), next((float(known[n]) for n in _CAPS if known[n]), None)


def output_layer(model):
    """What turns last hidden states of a model, or of a teacher, into its logits: see `losses.head_logits`."""
    layer = model.get_output_embeddings()
    if not isinstance(layer, nn.Module):
        return layer
    weight, bias, scale, cap = head(model)
    return functools.partial(head_logits, weight=weight, bias=bias, scale=scale, cap=cap)


class ScoredLogits(nn.Module):
    """A causal LM reduced to what every loss needs: the logits that predict scored tokens, and no others.

    forward(input_ids (batch, seq), mask (batch, seq) bool) -> (tokens, vocab), row-major over the mask. Sequences are
    padded on the right, so causal attention alone keeps padding out and no attention mask is built. The output head
    runs on scored positions only: prompts and padding never meet the vocabulary.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model
        # Gradient checkpointing makes again what a key-value cache would have to keep; processes that share the weights
        # of a model must all take as many passes; and a card takes longer to begin a second pass than to read more.
        checkpointed = any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
        alone = not (distributed.is_available() and distributed.is_initialized())
        self.openings = alone and not checkpointed and model.device.type == "cpu"

    def hidden(self, input_ids, mask, depth=None):
        """Last hidden states at the scored positions, or those after `depth` layers: (tokens, hidden).

        What all rows open with (a chat's system prompt: a quarter of TOFU's tokens) is run once, for all of them.
        """
        run, n = self.model.base_model, _common(input_ids, mask)
        run = functools.partial(run, output_hidden_states=True) if depth else run
        states = lambda out: out.hidden_states[depth] if depth else out.last_hidden_state  # noqa: E731
        if n >= caches.OPENING and self.openings:
            cache = getattr(run(input_ids=input_ids[:1, :n], use_cache=True), "past_key_values", None)
            self.openings = bool(caches.layers(cache))  # a state that is not keys and values is not handed on
        if n < caches.OPENING or not self.openings:
            return states(run(input_ids=input_ids, use_cache=False))[mask]
        for layer in cache.layers:  # views: this is trained through, and nothing need be copied
            layer.keys, layer.values = (t.expand(len(input_ids), -1, -1, -1) for t in (layer.keys, layer.values))
        return states(run(input_ids=input_ids[:, n:], past_key_values=cache, use_cache=True))[mask[:, n:]]

    @property
    def head(self):
        """The output layer in parts, (weight, bias or None, scale, cap or None), as `losses.from_hidden` takes it."""
        return head(self.model)

    def forward(self, input_ids, mask):
        return output_layer(self.model)(self.hidden(input_ids, mask))
