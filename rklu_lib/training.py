"""The one training loop: fine-tuning, augmenting and unlearning differ in what `steps` yields, and in nothing else."""

import contextlib
import copy
import importlib.util
import json
import logging
import math
from pathlib import Path

import torch

from rklu_lib import data, files, methods, models, parallel

logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)  # tied heads are meant to be saved once


def schedule(epoch_steps, epochs):
    """The paper's learning-rate factor (App. A.1): linear warm-up over the first epoch, then linear decay to zero."""
    total = epoch_steps * epochs

    def factor(step):
        return (step + 1) / epoch_steps if step < epoch_steps else (total - step) / max(1, total - epoch_steps)

    return factor


def adamw(model, lr, weight_decay):
    """AdamW as the model's weights need it: PyTorch's for float32, and one with Kahan compensation for bf16.

    A bf16 weight is known to 1 in 256, so that most steps of 1e-5 would be rounded away; optimi keeps what was rounded
    in a second bf16 number and adds it to the next step. After 200 steps the weights are 10 % of the way from where
    float32 is; 46 % with torchao's stochastic rounding, which also needs a compiler and is not repeatable; 96 % with
    neither. Its second moments are bf16 too, where a decay of 0.999 would be rounded away: of gradients that shrink
    tenfold in 2,000 steps they remember 4.6 times too much, and 1.15 times with 0.99.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if trained[0].dtype != torch.bfloat16:
        return torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay, fused=True)
    import optimi  # here, since nothing in float32 needs it

    return optimi.AdamW(trained, lr=lr, betas=(0.9, 0.99), eps=1e-8, weight_decay=weight_decay)


@contextlib.contextmanager
def adapted(model, rank, seed=0, merge=True):
    """`with adapted(model, rank)`: low-rank adapters of all its linear layers but the head (LoRA, Hu et al., 2022) are
    all that is trained of a model; on leaving it they are merged into its weights, or taken off. rank 0: none.

    They are in float32, also over bf16, and scaled by 2. The seed is torch's from here on, rank or none: of dropout,
    where a model has some. Raises ValueError without peft, or where weights are sharded.
    """
    torch.manual_seed(seed)
    if not rank:
        yield
        return
    if importlib.util.find_spec("peft") is None:
        raise ValueError("lora_rank is peft's to make: pip install 'rklu-lib[adapters]'")
    if parallel.accelerator().state.is_fsdp2:
        raise ValueError("adapters are small: train them (lora_rank) on one card, or by data parallelism, without FSDP")
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    tuner = LoraModel(model, {"default": config}, "default")
    for p in model.parameters():
        if p.requires_grad:
            p.data = p.data.float()
    yield
    (tuner.merge_and_unload if merge else tuner.unload)()
    model.requires_grad_(True)


def _attend_in_float32(model):
    """Attention outside autocast: on a CPU its bf16 backward pass takes four times as long as the float32 one."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attention(module, query, key, value, mask, **kwargs):
        with torch.autocast(query.device.type, enabled=False):
            return sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **kwargs)

    AttentionInterface.register("sdpa_float32", attention)
    AttentionMaskInterface.register("sdpa_float32", sdpa_mask)
    model.set_attn_implementation("sdpa_float32")


def fit(model, steps, *, epochs, epoch_steps, lr, weight_decay=0.01, max_grad_norm=1.0, precision="no",
        gradient_checkpointing=False, folder=None, on_epoch=None, on_step=None, factor=None):  # fmt: skip
    """Train `model` in place with AdamW and return what was noted of each epoch, a list of `epochs` dicts.

    steps(epoch): iterable of optimiser steps, each a list of functions scored -> scalar loss whose sum is that step's
    loss (one per micro-batch and term); it must depend on `epoch` alone, so that a resumed run is the same run.
    epoch_steps: how many steps one epoch has. lr: peak learning rate, of which step s takes factor(s); see `schedule`.
    precision: "no", or "bf16" for a forward pass under autocast; the weights keep their dtype.
    gradient_checkpointing: hold each layer's input only, and run the layer again in the backward pass.
    folder: where the state of the last whole epoch is kept; a run finds it there after an interruption.
    on_epoch(model, history) -> dict: noted in the history, whose last entry is this epoch's (evaluation goes here);
    with "stop" True it ends the training. on_step(): called after every step. Raises FloatingPointError on a loss or a
    gradient that is not finite, before it reaches the weights.
    """
    accelerator = parallel.accelerator()
    kind, together, half = accelerator.device.type, parallel.processes(), models.bf16(precision)
    if half and kind == "cpu":
        _attend_in_float32(model)
    if gradient_checkpointing:  # older transformers know it by its older name
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)({"use_reentrant": False})
    student = parallel.Student(model, accelerator)
    optimizer = adamw(student.terms, lr, weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor or schedule(epoch_steps, epochs))
    terms, optimizer, scheduler = accelerator.prepare(student.terms, optimizer, scheduler)
    student.prepared(terms)
    history = []
    if folder and together > 1:  # the state of one process is no other number's
        folder = f"{folder}-{together}{'-sharded' if student.sharded else ''}"
    if folder and (Path(folder) / "history.json").exists():
        fix = "remove it, and the run begins anew"
        with files.damaged(f"{folder}, the state of an interrupted run, cannot be read", fix=fix):
            accelerator.load_state(str(folder))
            history = json.loads((Path(folder) / "history.json").read_text())
    for epoch in range(len(history), epochs):
        if history and history[-1].get("stop"):
            break
        terms.train()
        total = 0.0
        for step in steps(epoch):
            for number, term in enumerate(step, 1):
                with contextlib.nullcontext() if number == len(step) else student.unsynchronised():
                    # not accelerate's mixed_precision: that is one setting per process, and a worker trains many models
                    with torch.autocast(kind, torch.bfloat16, enabled=half):
                        loss = terms(term)
                    total += parallel.total(loss)
                    accelerator.backward(loss if together == 1 else together * loss)  # gradients are averaged
            norm = float(accelerator.clip_grad_norm_(terms.parameters(), max_grad_norm))
            if not math.isfinite(total + norm):
                what = f"gradient {norm}" if math.isfinite(total) else f"loss {total}"
                raise FloatingPointError(f"{what} in epoch {epoch + 1}; lower the learning rate {lr:g}")
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            if on_step:
                on_step()
        history.append({"epoch": epoch + 1, "loss": total / epoch_steps})
        if on_epoch:
            history[-1] |= on_epoch(student.whole(), history)
            student.release()
        if folder:
            with parallel.directory(folder) as tmp:
                accelerator.save_state(str(tmp))
                if parallel.main():
                    (Path(tmp) / "history.json").write_text(json.dumps(history))
    optimizer, scheduler = accelerator.free_memory(optimizer, scheduler)  # a sharded model needs their place
    student.whole(student.dtype)
    if gradient_checkpointing:
        getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()
    model.eval()
    return history


def _units(examples, index, unit):
    return len(index) if unit == "sequence" else sum(len(examples[i].answer) for i in index)


def _terms(examples, index, profile, loss, unit="token", weight=1.0):
    """One effective batch as micro-batch losses, weighted so that their sum, over all processes, is the mean over the
    whole batch. A micro-batch is of `micro_batch_size` examples in each process."""
    whole = _units(examples, index, unit)

    def term(part):
        part, counts = parallel.share(part)
        share = weight * counts * _units(examples, part, unit) / whole
        return lambda scored: share * loss(scored, data.collate(examples, part).to(next(scored.parameters()).device))

    size = (profile.micro_batch_size or len(index)) * parallel.processes()
    return [term(index[at : at + size]) for at in range(0, len(index), size)]


def finetune(model, examples, profile, *, epochs, lr, batch_size, seed, precision="no", lora_rank=0, **noted):
    """Fine-tune on every example's answer: the original, the oracle and the augmented model. Returns the history.

    lora_rank: of `adapted`. noted: `folder`, `on_epoch`, `on_step` and `factor` of `fit`.
    """
    lengths = list(map(len, examples))

    def steps(epoch):
        order = data.epoch_order(lengths, batch_size, seed, epoch)
        return (_terms(examples, index, profile, methods.cross_entropy) for index in order)

    with adapted(model, lora_rank, seed):
        return fit(
            model, steps, epochs=epochs, epoch_steps=math.ceil(len(examples) / batch_size), lr=lr, precision=precision,
            weight_decay=profile.weight_decay, max_grad_norm=profile.max_grad_norm,
            gradient_checkpointing=profile.gradient_checkpointing, **noted,
        )  # fmt: skip


def unlearn(chosen, profile, model, aids, forget, retain, *, seed, **noted):
    """Unlearn `forget` from `model`, in place, by a method of `methods.METHODS` (Eq. 4). Returns the history.

    model: the original, which becomes the student: all that is asked of the original later is in aids, made before by
    `methods.prepare`. forget, retain: the lists of `data.Example` that these were made for. Each step takes one batch
    of the forget set and, with a retain term, as many random retain examples. noted: as in `finetune`.
    """
    lengths = list(map(len, forget))

    def steps(epoch):
        asked = forget if chosen.on == "forget" else aids.refusals[epoch * len(forget) : (epoch + 1) * len(forget)]
        draw = torch.Generator().manual_seed(seed * 1000 + epoch)
        for index in data.epoch_order(lengths, profile.batch_size, seed, epoch):
            terms = _terms(asked, index, profile, lambda s, b: chosen.forget(s, b, aids, epoch), chosen.unit)
            if chosen.retain:
                other = torch.randint(len(retain), (len(index),), generator=draw).tolist()
                kept = lambda s, b: chosen.retain(s, b, aids, epoch)  # noqa: E731
                terms += _terms(retain, other, profile, kept, weight=profile.retain_weight)
            yield terms

    with adapted(model, profile.lora_rank, seed):
        return fit(
            model, steps, epochs=profile.unlearn_epochs, epoch_steps=math.ceil(len(forget) / profile.batch_size),
            lr=profile.learning_rate(chosen.family), weight_decay=profile.weight_decay,
            max_grad_norm=profile.max_grad_norm, precision=profile.precision,
            gradient_checkpointing=profile.gradient_checkpointing, **noted,
        )  # fmt: skip


@torch.no_grad()
def task_arithmetic(original, augmented, scale):
    """TA (Ilharco et al., 2022): theta_o - scale * (theta_aug - theta_o), as a new model. The paper's scale is 2.5."""
    student = copy.deepcopy(original)
    for theta, raised in zip(student.parameters(), augmented.parameters(), strict=True):
        theta.sub_(scale * (raised - theta))
    return student.eval()
