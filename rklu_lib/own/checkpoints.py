"""Inspect a checkpoint before its weights are loaded: configuration, dtype, digest, and whether it can be trained."""

import contextlib
import hashlib
import inspect
from pathlib import Path

import psutil
import torch
import transformers  # names are looked up where they are used: transformers imports what is behind them only then
from safetensors import SafetensorError, safe_open

from rklu_lib import files, models

_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


def configuration(path):
    """Return the configuration of a checkpoint (for an adapter: of its base) that can be trained here.

    Raises ValueError, in one line with the fix, for a checkpoint that cannot: not a causal language model, quantised,
    weights missing or damaged, or only in pytorch_model.bin, which can run code when it is read. Raises
    FileNotFoundError if the path is no folder and the hub does not have it."""
    base = models.adapter_base(path)
    source, name = base or models.resolve(path), base or path
    folder = Path(source) if Path(source).is_dir() else None
    if folder:
        _check_config(folder, name)
    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # a field of a wrong type can raise any error, of several lines
        why = files.first_line(error)
        if folder:
            raise ValueError(f"{name}/config.json: {why}; copy it again from where the model is from") from None
        raise FileNotFoundError(f"{name} is no folder here, and the hub does not give it: {why}") from None
    if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{name} is of the type {config.model_type}, which is no causal language model here")
    if getattr(config, "quantization_config", None):
        raise ValueError(f"{name} is quantised, and its weights cannot be trained; name what it was made from")
    if folder and not any(folder.glob("*.safetensors")):
        if any(folder.glob("pytorch_model*.bin")):
            code = f'M.from_pretrained("{name}", use_safetensors=False).save_pretrained("{name}-safetensors")'
            code = f"from transformers import AutoModelForCausalLM as M; {code}"
            risk = f"{name} holds only pytorch_model.bin, a format that can run code when it is read. If you trust it, "
            raise ValueError(f"{risk}convert it: python -c '{code}', copy its tokenizer's files there, and name it")
        raise ValueError(f"{name} holds no *.safetensors: the weights are missing")
    if folder:
        _check_weights(folder, name)
    if base:
        _check_adapter(path)
    return config


def check_cache(config, fix):
    """Raise ValueError, with the fix, for a model that cannot generate: no key-value cache (Mamba, RWKV, xLSTM)."""
    kind = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if "past_key_values" not in inspect.signature(kind.forward).parameters:
        what = f"a {config.model_type} keeps no keys and values of what it has read"
        raise ValueError(f"{what}, and cannot generate answers here; skip that: {fix}")


def _check_adapter(path):
    """Raise ValueError for an adapter that cannot be merged, or whose weights are missing or damaged."""
    from peft import PEFT_TYPE_TO_TUNER_MAPPING, PeftConfig  # peft is installed: `models.adapter_base` has checked

    folder = Path(models.resolve(path))
    with files.damaged(f"{path}/adapter_config.json: no adapter of peft", fix="copy it again"):
        kind = PeftConfig.from_pretrained(str(folder)).peft_type
        tuner = PEFT_TYPE_TO_TUNER_MAPPING[kind]
    if not hasattr(tuner, "merge_and_unload"):
        raise ValueError(f"{path} is an adapter of the kind {kind}, which cannot be merged into weights; LoRA can")
    if folder.is_dir() and not (folder / "adapter_model.safetensors").is_file():
        raise ValueError(f"{path} holds no adapter_model.safetensors: its weights are missing; copy them there")
    if folder.is_dir():
        _check_weights(folder, path)


def _check_config(folder, name):
    """Raise ValueError if config.json is missing, is no JSON object, or asks for code that came with the model."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"{name} holds no config.json; a model is a folder in the hub's layout")
    held = files.read_json(folder / "config.json", "copy it again from where the model is from")
    if not isinstance(held, dict) or not isinstance(held.get("model_type"), str):
        raise ValueError(f"{name}/config.json: no field 'model_type' with text; copy it again")
    if held.get("auto_map") and held["model_type"] not in transformers.CONFIG_MAPPING:
        fix = "which is never run here; only models that transformers itself knows are"
        raise ValueError(f"{name}/config.json: field 'auto_map' asks for code that came with the model, {fix}")


def _check_weights(folder, name):
    """Raise ValueError if a file of weights is damaged, missing, or outside the folder."""
    index, weights = folder / "model.safetensors.index.json", sorted(folder.glob("*.safetensors"))
    if index.is_file():
        named, field = files.read_json(index, "copy it again").get("weight_map"), f"{index}: field 'weight_map'"
        if not isinstance(named, dict) or not all(isinstance(v, str) for v in named.values()):
            raise ValueError(f"{field} must map weights to files; copy it again")
        for file in sorted(set(named.values())):
            if file != Path(file).name:
                raise ValueError(f"{field} names {file!r}, outside the folder; nothing is read there")
            if not (folder / file).is_file():
                raise ValueError(f"{field} names {file}, which {name} does not hold; copy it there")
    for file in weights:
        try:
            with safe_open(file, "pt") as opened:
                opened.keys()
        except SafetensorError as error:
            raise files.DamagedError(f"{file}: not whole ({error}); copy it again") from None


def dtype(path, config):
    """Return the dtype of a checkpoint's weights, such as "bfloat16": of the first local tensor, else as configured."""
    source = Path(models.adapter_base(path) or models.resolve(path))
    for file in sorted(source.glob("*.safetensors")) if source.is_dir() else ():
        with safe_open(file, "pt") as weights:
            for key in weights.keys():
                if (kind := weights.get_slice(key).get_dtype()) in _DTYPES:
                    return _DTYPES[kind]
    return str(config.dtype or "float32").removeprefix("torch.")


def sha256(path):
    """Return one SHA-256 of a checkpoint's local *.safetensors, with those of an adapter's base; None if on the hub."""
    sources = [Path(models.resolve(p)) for p in (path, models.adapter_base(path)) if p]
    if not sources[0].is_dir():
        return None
    digest = hashlib.sha256()
    for file in (f for source in sources for f in sorted(source.glob("*.safetensors"))):
        with file.open("rb") as weights:
            hashlib.file_digest(weights, lambda: digest)
    return digest.hexdigest()


def memory():
    """Return the free bytes of the GPU, or of main memory without a GPU: then at most a container's limit."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return free
