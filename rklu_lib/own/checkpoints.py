"""What a checkpoint is, found out before its weights are loaded: configuration, dtype, size, and what forbids it."""

import contextlib
import hashlib
import inspect
from pathlib import Path

import torch
import transformers  # its names where they are used, as in `models`
from safetensors import SafetensorError, safe_open

from rklu_lib import files, models

_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


def configuration(path):
    """The configuration of a checkpoint (for an adapter: of its base) that can be trained here.

    Raises ValueError, in one line with the way out, for what cannot be: no causal language model, a quantised one, a
    folder without weights, or with weights only in the format that can run code when it is read.
    """
    base = models.adapter_base(path)
    source, name = base or models.resolve(path), base or path
    folder = Path(source) if Path(source).is_dir() else None
    if folder:
        _check_config(folder, name)
    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # transformers' own run over several lines, and fields of a wrong type raise anything
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
    """Raises ValueError, with the fix, for a kind of model that keeps no keys and values of what it has read, as Mamba,
    RWKV and xLSTM: generation here goes by them."""
    kind = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if "past_key_values" not in inspect.signature(kind.forward).parameters:
        what = f"a {config.model_type} keeps no keys and values of what it has read"
        raise ValueError(f"{what}, and cannot be asked for answers here: {fix} goes without")


def _check_adapter(path):
    """Raises ValueError for an adapter that cannot become part of weights, or whose own are missing or not whole."""
    from peft import PEFT_TYPE_TO_TUNER_MAPPING, PeftConfig  # `models.adapter_base` has seen that it is there

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
    """Raises ValueError for a config.json that is missing, no JSON object, or asks for code of its own."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"{name} holds no config.json; a model is a folder in the hub's layout")
    held = files.read_json(folder / "config.json", "copy it again from where the model is from")
    if not isinstance(held, dict) or not isinstance(held.get("model_type"), str):
        raise ValueError(f"{name}/config.json: no field 'model_type' with text; copy it again")
    if held.get("auto_map") and held["model_type"] not in transformers.CONFIG_MAPPING:
        fix = "which is never run here; only models that transformers itself knows are"
        raise ValueError(f"{name}/config.json: field 'auto_map' asks for code that came with the model, {fix}")


def _check_weights(folder, name):
    """Raises ValueError where a file of weights is not whole, or not in the folder that was named."""
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
    """The dtype of a checkpoint's weights by name, such as "bfloat16": the files' own where they are here."""
    source = Path(models.adapter_base(path) or models.resolve(path))
    for file in sorted(source.glob("*.safetensors")) if source.is_dir() else ():
        with safe_open(file, "pt") as weights:
            for key in weights.keys():
                if (kind := weights.get_slice(key).get_dtype()) in _DTYPES:
                    return _DTYPES[kind]
    return str(config.dtype or "float32").removeprefix("torch.")


def sha256(path):
    """One digest of all weights of a local checkpoint, an adapter's and its base's; None for a name on the hub."""
    sources = [Path(models.resolve(p)) for p in (path, models.adapter_base(path)) if p]
    if not sources[0].is_dir():
        return None
    digest = hashlib.sha256()
    for file in (f for source in sources for f in sorted(source.glob("*.safetensors"))):
        with file.open("rb") as weights:
            hashlib.file_digest(weights, lambda: digest)
    return digest.hexdigest()


def memory():
    """Bytes of memory that are free on the device that trains: the card's, or this machine's or container's."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    import psutil  # accelerate brings it

    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return free
