"""Load, create and save a causal language model and its tokenizer, and compute its logits at the scored positions."""

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
import transformers  # not its names: it imports the code behind a name only when the name is used
from safetensors import SafetensorError
from tokenizers import ByteLevelBPETokenizer
from torch import distributed, nn
from transformers.utils import find_adapter_config_file, logging

from rklu_lib import caches, data, files, hub
from rklu_lib.losses import head_logits

logging.disable_progress_bar()  # a bar per checkpoint would interrupt the bar over all epochs
torch.backends.cuda.enable_cudnn_sdp(False)  # it makes a new plan for every length, that is for every generated token

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}


@contextlib.contextmanager
def quiet():
    """Silence transformers' warnings: this module raises its own one-line errors, and the rest is intended."""
    was = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(was)


def device():
    """Return where this process computes: "cuda" if there is a CUDA device, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def bf16(precision):
    """Return whether `precision` is "bf16" and the device has bf16 instructions. If not, float32 is used: a CPU that
    emulates bf16 is some thirty times slower than in float32 (book: What it costs)."""
    if torch.cuda.is_available():
        return precision == "bf16" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(device, precision):
    """Return the context of a forward pass on a device type ("cpu", "cuda"): autocast to bf16 where `bf16` says so. A
    thread must enter it by itself. The outermost must end before weights change: it keeps copies of them in bf16."""
    return torch.autocast(device, torch.bfloat16, enabled=bf16(precision))


def train_tokenizer(texts, vocab_size):
    """Return a byte-level BPE tokenizer trained on an iterable of strings. It can encode any text: no unknown token."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size, special_tokens=list(SPECIAL_TOKENS.values()), show_progress=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **SPECIAL_TOKENS)


def create(profile, tokenizer, seed):
    """Return a new model of the profile's architecture and shape, in float32; its random weights depend on `seed`."""
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
    """Return the folder of local models, each in owner/name: the one that `RKLU_MODELS` names, else `models`."""
    return Path(os.environ.get("RKLU_MODELS", data.ROOT / "models"))


def resolve(path):
    """Return where a checkpoint is: `path` if that is a folder or only on the hub, else its folder in `folder()`.
    Raises FileNotFoundError if `path` is neither a folder nor a hub id, or is on a hub that cannot be reached."""
    if Path(path).is_dir() or (local := folder() / path).is_dir():
        return path if Path(path).is_dir() else local
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(path)):
        raise FileNotFoundError(f"{path} is neither a folder in the hub's layout nor a hub id, owner/name")
    recipe = ", or `rklu fetch smollm2`" if "SmolLM2-135M-Instruct" in str(path) else ""
    try:
        hub.check(str(path), f"put it into {folder()} in the hub's layout, or name its folder in RKLU_MODELS{recipe}")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is no folder here: {error}") from None
    return path


def load(path, dtype="float32"):
    """Return (model, tokenizer) from the hub or from a folder in its layout, see `resolve`. Remote code is never run.

    An adapter is merged into its base model, see `adapter_base`; all weights of the result are trainable. Raises
    ValueError when the tokenizer has no end-of-text token, since an answer could then never end; DamagedError when
    weights cannot be read or are missing; and as `resolve` and `adapter_base` do."""
    tokenizer, base = load_tokenizer(path), adapter_base(path)
    options = {"dtype": getattr(torch, dtype), "use_safetensors": True, "trust_remote_code": False}
    options["ignore_mismatched_sizes"] = True  # the code below raises an error that names them
    with quiet(), files.damaged(f"{path}: its weights cannot be read", (SafetensorError, RuntimeError)):
        place = base or resolve(path)
        model, found = transformers.AutoModelForCausalLM.from_pretrained(place, output_loading_info=True, **options)
    if lacking := sorted({*found["missing_keys"], *(m[0] for m in found.get("mismatched_keys", ()))}):
        which = f"{lacking[0]} and {len(lacking) - 1} more" if len(lacking) > 1 else lacking[0]
        raise files.DamagedError(f"{path}: {which} are not in its weights as config.json has them; {files.MEND}")
    if base:
        from peft import PeftModel

        if len(tokenizer) > model.get_input_embeddings().num_embeddings:  # the adapter adds tokens
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        failures = (SafetensorError, RuntimeError, UserWarning)  # peft only warns of missing weights
        with warnings.catch_warnings(), files.damaged(f"{path}: the adapter cannot be read", failures):
            warnings.simplefilter("ignore", FutureWarning)  # peft uses an old name of transformers
            warnings.filterwarnings("error", "Found missing adapter keys", UserWarning)
            model = PeftModel.from_pretrained(model, resolve(path)).merge_and_unload().requires_grad_(True)
    return model.to(device()), tokenizer


def adapter_base(path):
    """Return where the base model of an adapter (PEFT's `adapter_config.json`) is: beside it, or as `resolve` says;
    None if `path` is no adapter. Raises ValueError without peft, FileNotFoundError without the base model."""
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
    """Return the tokenizer that `load` would return. Raises FileNotFoundError if the checkpoint has none."""
    source, base = resolve(path), adapter_base(path)
    if base and not (Path(source) / "tokenizer_config.json").is_file():  # an adapter may have its own
        source = base
    if Path(source).is_dir() and not any((Path(source) / name).is_file() for name in TOKENIZER):
        raise FileNotFoundError(f"{path} holds no tokenizer ({', '.join(TOKENIZER)}); copy the original model's there")
    with quiet(), files.damaged(f"the tokenizer of {path} cannot be read"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {path} has no end-of-text token; set eos_token in tokenizer_config.json")
    return tokenizer


def check_vocabulary(reference, model, tokenizer):
    """Raise ValueError unless the tokenizer of `reference` has the vocabulary of `tokenizer`, the model's own."""
    if load_tokenizer(reference).get_vocab() != tokenizer.get_vocab():
        raise ValueError(f"{reference} and {model} have different vocabularies: the same answer has different tokens")


def check(model, examples, file):
    """Raise ValueError if an example is longer than the model's context, or if the model's logits on the first example
    are not finite or differ from those computed with `head`, which every loss uses."""
    check_lengths(context(model.config), examples, file)
    if examples:
        ids = torch.tensor([examples[0].prompt + examples[0].answer], device=model.device)
        with torch.no_grad():
            said = model.eval()(ids).logits[0].float()
            ours = ScoredLogits(model)(ids, torch.ones_like(ids, dtype=torch.bool)).float()
        if not said.isfinite().all():  # such a model would count as one that has forgotten
            raise ValueError(f"{model.name_or_path}: its logits are not finite; the weights are damaged")
        if said.shape != ours.shape or (said - ours).norm() > 1e-2 * said.norm():  # relative: logits may be small
            what = "changes its output logits in a way that is not supported yet; add it to models.head"
            raise ValueError(f"{model.config.model_type} {what}")


def context(config):
    """Return how many tokens a model can read: infinitely many if its configuration sets no limit."""
    text = config.get_text_config()
    names = ("max_position_embeddings", "max_seq_len", "seq_length")
    return next((v for v in (getattr(text, name, None) for name in names) if v), math.inf)


def check_lengths(limit, examples, file, places=()):
    """Raise ValueError for the first example with more than `limit` tokens. The message names its entry in `places`, or
    else its number in `file`."""
    for number, e in enumerate(examples):
        place = places[number] if places else f"{file}, pair {number + 1}"
        if (n := len(e)) > limit:
            fix = 'Shorten the answer, make several pairs of it, or give it as {"text": …}, which is split'
            raise ValueError(f"{place}: {n} tokens with the prompt; the model reads {limit}. {fix}")


def save(model, tokenizer, path, **notes):
    """Write a checkpoint folder in the hub's layout (safetensors), whole or not at all. notes: further JSON files."""
    with files.atomic_directory(path) as tmp:
        model.save_pretrained(tmp)
        tokenizer.save_pretrained(tmp)
        for name, content in notes.items():
            (tmp / f"{name}.json").write_text(json.dumps(content, indent=1))


def _common(input_ids, mask):
    """Return how many first tokens all rows share before the first scored position; 0 for a single row."""
    alike = (input_ids == input_ids[:1]).all(0) & ~mask.any(0)
    return int(alike.int().cumprod(0).sum()) if len(input_ids) > 1 else 0


# How some models change the logits of their output layer: names of the fields in their configurations.
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")  # Gemma 2 and later, Griffin, xLSTM
_FACTORS = ("logit_scale", "lm_head_multiplier", "output_multiplier")  # Cohere, Falcon-H1, Muse
_DIVISORS = ("logits_scaling",)  # Granite


def head(model):
    """Return a model's output layer as `losses.head_logits` takes it: (weight (vocab, hidden), bias (vocab,) or None,
    scale, cap or None)."""
    layer, config = model.get_output_embeddings(), model.config.get_text_config()
    if not isinstance(layer, nn.Linear):  # an adapter on it would be left out without a word
        raise ValueError(f"the output layer is {type(layer)} and not torch's Linear; merge adapters first")
    known = {name: getattr(config, name, None) for name in (*_CAPS, *_FACTORS, *_DIVISORS)}
    scale = math.prod(known[name] for name in _FACTORS if known[name] is not None)
    scale /= math.prod(known[name] for name in _DIVISORS if known[name] is not None)
    return layer.weight, layer.bias, float(scale), next((float(known[n]) for n in _CAPS if known[n]), None)


def output_layer(model):
    """Return the function from last hidden states to logits of a model or a teacher; see `losses.head_logits`."""
    layer = model.get_output_embeddings()
    if not isinstance(layer, nn.Module):
        return layer
    weight, bias, scale, cap = head(model)
    return functools.partial(head_logits, weight=weight, bias=bias, scale=scale, cap=cap)


class ScoredLogits(nn.Module):
    """A causal LM that computes only what a loss needs: the logits that predict the scored tokens.

    forward(input_ids (batch, seq), mask (batch, seq) bool) -> (tokens, vocab), in row-major order of the mask, which is
    True where the next token is scored. Sequences are padded on the right, so causal attention alone ignores padding
    and no attention mask is needed. The output head does not run on prompts or padding."""

    def __init__(self, model):
        super().__init__()
        if hasattr(model, "peft_config") and hasattr(model, "get_base_model"):  # its base_model is not the decoder
            raise ValueError("give model.get_base_model(), whose layers hold the adapters, or merge them first")
        self.model = model
        # Does a common opening get its own pass? Not with gradient checkpointing, which keeps no key-value cache; not
        # with several processes, which may share the weights and must then all run equally many passes; not on a GPU,
        # where starting a second pass takes longer than reading the tokens again.
        checkpointed = any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
        alone = not (distributed.is_available() and distributed.is_initialized())
        self.openings = alone and not checkpointed and model.device.type == "cpu"

    def hidden(self, input_ids, mask, depth=None):
        """Return the last hidden states at the scored positions, or those after `depth` layers: (tokens, hidden).

        If `openings`, tokens that all rows begin with (a system prompt: a quarter of TOFU's tokens) are run once."""
        run, n = self.model.base_model, _common(input_ids, mask)
        run = functools.partial(run, output_hidden_states=True) if depth else run
        states = lambda out: out.hidden_states[depth] if depth else out.last_hidden_state  # noqa: E731
        if n >= caches.OPENING and self.openings:
            cache = getattr(run(input_ids=input_ids[:1, :n], use_cache=True), "past_key_values", None)
            self.openings = bool(caches.layers(cache))  # other kinds of state cannot be reused
        if n < caches.OPENING or not self.openings:
            return states(run(input_ids=input_ids, use_cache=False))[mask]
        for layer in caches.layers(cache):  # views: gradients pass, and nothing is copied
            layer.keys, layer.values = (t.expand(len(input_ids), -1, -1, -1) for t in (layer.keys, layer.values))
        return states(run(input_ids=input_ids[:, n:], past_key_values=cache, use_cache=True))[mask[:, n:]]

    @property
    def head(self):
        """The output layer (weight, bias or None, scale, cap or None), as `losses.from_hidden` takes it."""
        return head(self.model)

    def forward(self, input_ids, mask):
        return output_layer(self.model)(self.hidden(input_ids, mask))
