"""What commands print: lines, a table of epochs, progress. Imports wait until then: `--help` is quick."""

import contextlib

import typer


def say(text, err=False):
    """Print a line: nothing of what it quotes, a file's name for example, may steer the terminal."""
    from rklu_lib import data

    typer.echo(data.printable(text), err=err)


def print_epochs(records):
    """A table of what was measured of each epoch of some records; of several processes one prints it."""
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


@contextlib.contextmanager
def stages():
    """A progress bar for each stage of `unlearning.run`, with the time that is left."""
    from rich import progress as bars
    from rich.console import Console

    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn())
    columns += (bars.TextColumn("steps"), bars.TimeElapsedColumn(), bars.TimeRemainingColumn())
    with bars.Progress(*columns, console=Console(stderr=True)) as progress:

        def on_stage(name, steps, done):
            for task in progress.task_ids:
                progress.stop_task(task)
            task = progress.add_task(name, total=steps, completed=done)
            return lambda: progress.advance(task)

        yield on_stage
