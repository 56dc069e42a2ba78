"""The training loop `fit`, which fine-tuning, augmentation and unlearning share: they differ in their steps only."""

import contextlib
import copy
import importlib.util
import json
import logging
import math
from pathlib import Path

import torch

from rklu_lib import data, files, methods, models, parallel

logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)  # it would warn that tied heads are saved once


def schedule(epoch_steps, epochs):
    """Return the function step -> learning-rate factor of the paper (App. A.1). Steps are counted from 0.
    The factor rises linearly to 1 over the first epoch, then falls linearly to 0."""
    total = epoch_steps * epochs

    def factor(step):
        return (step + 1) / epoch_steps if step < epoch_steps else (total - step) / max(1, total - epoch_steps)

    return factor


def adamw(model, lr, weight_decay):
    """Return AdamW for the trained weights: PyTorch's for float32, optimi's with Kahan compensation for bf16.

    A bf16 weight is precise to 1 in 256, so most steps of 1e-5 would be rounded away. optimi keeps the rounding error
    in a second bf16 number and adds it to the next step. After 200 steps, the distance to float32's weights is 10 % of
    the way that these have moved; it is 46 % with torchao's stochastic rounding, which needs a compiler and is not
    repeatable, and 96 % with neither. The second moments are bf16 too, and a decay of 0.999 would be rounded away: with
    gradients that shrink tenfold in 2,000 steps they become 4.6 times too large, and 1.15 times with 0.99."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if trained[0].dtype != torch.bfloat16:
        return torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay, fused=True)
    import optimi  # not at the top, since only bf16 needs it

    return optimi.AdamW(trained, lr=lr, betas=(0.9, 0.99), eps=1e-8, weight_decay=weight_decay)


@contextlib.contextmanager
def adapted(model, rank, seed=0, merge=True):
    """`with adapted(model, rank)`: train only low-rank adapters (LoRA, Hu et al., 2022), of all linear layers but the
    head. On exit they are merged into the weights or, with merge=False, removed. rank 0: no adapters.

    Adapters are in float32, also on a bf16 model, and scaled by 2. torch's seed is set to `seed`, also with rank 0, for
    the dropout that some models have. Raises ValueError without peft, or where weights are sharded."""
    torch.manual_seed(seed)
    if not rank:
        yield
        return
    if importlib.util.find_spec("peft") is None:
        raise ValueError("lora_rank needs the package peft: pip install 'rklu-lib[adapters]'")
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
    """Compute attention outside autocast: on a CPU its bf16 backward pass takes four times as long as in float32."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attention(module, query, key, value, mask, **kwargs):
        with torch.autocast(query.device.type, enabled=False):
            seen, weights = sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **kwargs)
        return seen.to(query.dtype), weights  # bf16 weights are also scored outside autocast

    AttentionInterface.register("sdpa_float32", attention)
    AttentionMaskInterface.register("sdpa_float32", sdpa_mask)
    model.set_attn_implementation("sdpa_float32")


def fit(model, steps, *, epochs, epoch_steps, lr, weight_decay=0.01, max_grad_norm=1.0, precision="no",
        gradient_checkpointing=False, folder=None, on_epoch=None, on_step=None, factor=None):  # fmt: skip
    """Train `model` in place with AdamW. Return the history: one dict per epoch, {"epoch": from 1, "loss": mean, …}.

    steps(epoch): iterable of optimiser steps, each a list of functions scored -> scalar loss (one per micro-batch and
    term) whose sum is the step's loss. It must depend on `epoch` alone, so that a resumed run is the same run.
    epoch_steps: number of steps in one epoch. lr: peak learning rate; step s uses lr * factor(s), default `schedule`.
    precision: "no", or "bf16" for a forward pass under autocast; the weights keep their dtype.
    gradient_checkpointing: keep each layer's input only, and run the layer again in the backward pass.
    folder: keeps the state of the last complete epoch, from which an interrupted run resumes.
    on_epoch(model, history) -> dict: called after an epoch, whose entry is the last in history (evaluation goes here).
    The dict is added to that entry; {"stop": True} ends the training. on_step(): called after every step. Raises
    FloatingPointError on a loss or gradient that is not finite, before the weights change; DamagedError if `folder`
    cannot be read."""
    accelerator = parallel.accelerator()
    kind, together = accelerator.device.type, parallel.processes()
    if kind == "cpu" and models.bf16(precision):
        _attend_in_float32(model)
    if gradient_checkpointing:  # older transformers have the older name
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)({"use_reentrant": False})
    student = parallel.Student(model, accelerator)
    optimizer = adamw(student.terms, lr, weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor or schedule(epoch_steps, epochs))
    terms, optimizer, scheduler = accelerator.prepare(student.terms, optimizer, scheduler)
    student.prepared(terms)
    history = []
    if folder and together > 1:  # another number of processes cannot resume it
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
                    with models.autocast(kind, precision):
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
    optimizer, scheduler = accelerator.free_memory(optimizer, scheduler)  # a sharded model needs their memory
    student.whole(student.dtype)
    if gradient_checkpointing:
        getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()
    model.eval()
    return history


def _units(examples, index, unit):
    return len(index) if unit == "sequence" else sum(len(examples[i].answer) for i in index)


def _terms(examples, index, profile, loss, unit="token", weight=1.0):
    """Return one batch as a list of micro-batch losses, weighted so that their sum over all processes is `weight` times
    the mean over the batch. A micro-batch has `micro_batch_size` examples in each process."""
    whole = _units(examples, index, unit)

    def term(part):
        part, counts = parallel.share(part)
        share = weight * counts * _units(examples, part, unit) / whole
        return lambda scored: share * loss(scored, data.collate(examples, part).to(next(scored.parameters()).device))

    size = (profile.micro_batch_size or len(index)) * parallel.processes()
    return [term(index[at : at + size]) for at in range(0, len(index), size)]


def _fitted(model, steps, profile, n, batch_size, lora_rank, seed, **how):
    """Call `fit` on n examples, with adapters of rank `lora_rank` and with the settings that all stages share."""
    how |= {k: getattr(profile, k) for k in ("weight_decay", "max_grad_norm", "gradient_checkpointing")}
    with adapted(model, lora_rank, seed):
        return fit(model, steps, epoch_steps=math.ceil(n / batch_size), **how)


def finetune(model, examples, profile, *, epochs, lr, batch_size, seed, precision="no", lora_rank=0, **noted):
    """Fine-tune `model`, in place, on every example's answer: original, oracle and augmented model. Return the history.

    lora_rank: see `adapted`; 0 for none. noted: `folder`, `on_epoch`, `on_step` and `factor` of `fit`."""
    lengths = list(map(len, examples))

    def steps(epoch):
        order = data.epoch_order(lengths, batch_size, seed, epoch)
        return (_terms(examples, index, profile, methods.cross_entropy) for index in order)

    how = {"epochs": epochs, "lr": lr, "precision": precision} | noted
    return _fitted(model, steps, profile, len(examples), batch_size, lora_rank, seed, **how)


def unlearn(chosen, profile, model, aids, forget, retain, *, seed, **noted):
    """Unlearn `forget` from `model`, in place, by `chosen`, a `methods.Method` (Eq. 4). Return the history.

    model: the original model, which becomes the student. aids: what the losses need of frozen models, from
    `methods.prepare`, for the same `forget` and `retain`, lists of `data.Example`. Each step takes one batch of the
    forget set and, with a retain loss (weight `retain_weight`), as many retain examples, drawn at random with
    replacement. noted: as in `finetune`."""
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

    how = {"epochs": profile.unlearn_epochs, "lr": profile.learning_rate(chosen.family), "precision": profile.precision}
    return _fitted(model, steps, profile, len(forget), profile.batch_size, profile.lora_rank, seed, **how | noted)


@torch.no_grad()
def task_arithmetic(original, augmented, scale):
    """Return TA's new model (Ilharco et al., 2022): theta_o - scale * (theta_aug - theta_o). Paper's scale: 2.5."""
    student = copy.deepcopy(original)
    for theta, raised in zip(student.parameters(), augmented.parameters(), strict=True):
        theta.sub_(scale * (raised - theta))
    return student.eval()
