"""`rklu unlearn` and `rklu attack`: commands for your own model."""

import math
from pathlib import Path
from typing import Annotated

import typer

from rklu_lib.commands.terminal import say, stages

STOPPING = (
    "With --target or --reference, training stops at the first epoch whose mean probability of the forgotten answers "
    "(weights as saved) is at most the target; if there is none, the epoch of lowest probability is kept. Without "
    "them, all epochs are trained and the last is kept. With --max-perplexity-rise, an epoch is never kept if a "
    "perplexity (prose, --watch, --retain) rose by more; if all epochs did that, nothing is written."
)
KNOWN = 0.2  # originals gave the answers they were tuned on over 0.77 a token, pretrained ones that never saw them 0.12
_FILES = "JSON lines, a JSON array, CSV, Parquet or text, or owner/name:config:split on the hub; may be repeated"


def _files(what):
    return Annotated[list[str] | None, typer.Option(help=what)]


def unlearn(
    model: Annotated[str, typer.Option(help="the original: a directory in the hub's layout, an adapter, or a hub id")],
    forget: Annotated[list[str], typer.Option(help=f"what to forget: pairs, chats or documents in {_FILES}")],
    out: Annotated[Path, typer.Option(help="where the unlearned model and its report go")],
    retain: _files("pairs to keep, for +RT and +KL") = None,
    watch: _files("what should stay as it is: measured, never trained on") = None,
    holdout: _files("like --forget, but never seen by the model: for the membership test") = None,
    prose: Annotated[
        Path | None, typer.Option(help="plain text to measure a perplexity on (default: embedded)")
    ] = None,
    method: Annotated[str, typer.Option(help="RKLU, RKLU+KL, RKLU+RT, or any other trained row")] = "RKLU",
    profile: Annotated[str, typer.Option("--profile", "-p", help="whose settings and chat template")] = "llama2-7b",
    template: Annotated[str | None, typer.Option(help='chat template, e.g. "Q: {question}\\nA: {answer}"')] = None,
    alpha: Annotated[float | None, typer.Option(help="unlearning strength, Eq. 1")] = None,
    lr: Annotated[float | None, typer.Option(help="peak learning rate of augmenting and unlearning")] = None,
    epochs: Annotated[int | None, typer.Option(help="epochs of augmenting, and of unlearning at most")] = None,
    reference: Annotated[
        str | None, typer.Option(help="a model that never saw the data: stop at its probability")
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="stop at this mean probability of the answers, e.g. 0.05")
    ] = None,
    max_perplexity_rise: Annotated[
        float | None, typer.Option(help="keep no epoch beyond this, e.g. 0.1: a tenth")
    ] = None,
    lora: Annotated[int | None, typer.Option(help="train adapters of this rank only, merged at the end")] = None,
    dtype: Annotated[str, typer.Option(help="trained in: float32, or bfloat16: less memory, see the book")] = "float32",
    save_dtype: Annotated[str | None, typer.Option(help="saved in (default: as the checkpoint, or --dtype)")] = None,
    probes: Annotated[int, typer.Option(help="forgotten answers to generate and search for leaks")] = 20,
    redact: Annotated[bool, typer.Option(help="mask forgotten text in the report")] = True,
    by: Annotated[str, typer.Option(help="who does this, for the report")] = "",
    dry_run: Annotated[bool, typer.Option(help="say what would be done, with memory and time, and stop")] = False,
    resume: Annotated[bool, typer.Option(help="go on where an interrupted run stopped")] = False,
    seed: int = 0,
):
    """Make your own model forget pairs, chats or documents, and write the new weights with a report."""
    from rich.console import Console

    from rklu_lib.own import jobs, plan, unlearning

    template = template and template.replace("\\n", "\n")  # a shell passes \n as two characters
    named = dict(retain=retain or (), watch=watch or (), holdout=holdout or (), prose=prose, method=method)
    named |= dict(profile=profile, template=template, alpha=alpha, lr=lr, epochs=epochs, lora=lora, dtype=dtype)
    named |= dict(save_dtype=save_dtype, reference=reference, target=target, probes=probes, redact=redact)
    named |= dict(seed=seed, by=by)
    job = jobs.prepare(model, forget, out, max_perplexity_rise=max_perplexity_rise, **named)
    if dry_run:
        Console().print(*plan.show(job, plan.estimate(job)), sep="\n")
        return
    for note in job.notes:
        say(f"Note: {note}", err=True)
    try:
        with stages() as on_stage:
            found = unlearning.run(job, resumable=True, resume=resume, on_stage=on_stage)
    except KeyboardInterrupt:
        typer.echo("Interrupted. The same command with --resume goes on after the last whole epoch", err=True)
        raise typer.Exit(130) from None
    before, after = found["probability"]["before"], found["probability"]["after"]
    what, n = "pair" if all(i.question for i in job.items["forget"]) else "example", len(job.items["forget"])
    said = f"{method} on {n} {what}{'s' * (n > 1)}; the answers' mean probability per token was {before:.3g} and is"
    say(f"{out}: {said} {after:.3g}. Load it with transformers as you did {model}")
    if found["leak"]:
        say("{hits} of {n} probed answers leak. ".format(**found["leak"]["after"]) + f"Read {out}/report.html")
    rule = found["rule"]
    fix = "raise --lr, --epochs or --alpha"
    if before < KNOWN:
        fix = f"the original hardly knew the answers ({before:.3g} per token). Is --template what it was tuned on?"
    rises = [math.inf if (rise := e["perplexity_rise"]) is None else rise for e in found["epochs"]]  # JSON has no inf
    if rule["target"] is not None and not rule["met"]:
        pairs = zip(rises, found["epochs"], strict=True)
        if costly := [rise for rise, e in pairs if e["forget_probability"] <= rule["target"]]:
            fix = f"all that did raised a perplexity by {min(costly):.0%} or more; a lower --lr or +RT may do both"
        typer.echo(f"The target of {rule['target']:.3g} was not reached: {fix}", err=True)
    elif rule["target"] is None and after > before / 2:
        typer.echo(f"Little is forgotten: {fix}", err=True)
    elif before < KNOWN:
        typer.echo(f"Note: {fix}", err=True)
    if (rise := rises[rule["kept"] - 1]) > 0.2:
        typer.echo(f"A perplexity rose by {rise:.0%}: --max-perplexity-rise bounds it, a lower --lr helps", err=True)


def attack(
    model: Annotated[str, typer.Option(help="what is attacked: a directory in the hub's layout, an adapter, a hub id")],
    forget: Annotated[list[str], typer.Option(help=f"what it should not know: pairs, chats or documents in {_FILES}")],
    reference: Annotated[
        str | None, typer.Option(help="a model that never saw the data, or the file of an attack on it")
    ] = None,
    holdout: _files("like --forget, but never seen by the model: for membership") = None,
    out: Annotated[
        Path | None, typer.Option(help="the file to write; attack.json, in the folder of a model that rklu unlearned")
    ] = None,
    profile: Annotated[
        str, typer.Option("--profile", "-p", help="whose precision, and chat template if none is known")
    ] = "llama2-7b",
    template: Annotated[str | None, typer.Option(help="chat template, as of `rklu unlearn`")] = None,
    samples: Annotated[int, typer.Option(help="answers drawn to each sampled question")] = 128,
    sampled: Annotated[int, typer.Option(help="questions to which answers are drawn")] = 20,
    skip: Annotated[list[str] | None, typer.Option(help="a probe to leave out, such as relearning; repeatable")] = None,
    redact: Annotated[bool, typer.Option(help="mask what the model said in the file")] = True,
    seed: int = 0,
):
    """Test whether a model stays unlearned: run all probes, also on a --reference that never saw the data."""
    from rich.console import Console

    from rklu_lib import files
    from rklu_lib.own import checkpoints, report
    from rklu_lib.robustness import attack as attacks

    beside = Path(model) / "report.json"  # this report then includes the results
    out = out or (beside.parent if beside.is_file() else Path()) / "attack.json"
    told = beside.is_file() and out.resolve() == beside.with_name("attack.json").resolve()
    named = dict(reference=reference, holdout=holdout or (), profile=profile, samples=samples, sampled=sampled)
    named |= dict(skip=skip or (), redact=redact, seed=seed, template=template and template.replace("\\n", "\n"))
    job = attacks.prepare(model, forget, out, **named)
    for note in job.notes:
        say(f"Note: {note}", err=True)
    if told:
        report.rebuild(model)  # fail now rather than after the attack
        if files.read_json(beside)["out"]["sha256"] != checkpoints.sha256(model):
            raise ValueError(f"{beside} is of other weights than {model} holds; name another file in --out")
    try:
        with stages() as on_stage:
            found = attacks.run(job, on_stage)
    except KeyboardInterrupt:
        typer.echo("Interrupted. The same command goes on after the last whole probe", err=True)
        raise typer.Exit(130) from None
    Console().print(attacks.show(found))
    say(str(out))
    if told:
        say(str(report.rebuild(model)))
