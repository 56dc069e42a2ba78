"""What commands print: lines, a table of epochs, progress bars. Late imports keep `rklu --help` fast."""

import contextlib

import typer


def say(text, err=False):
    """Print a line without control characters: a quoted text, such as a file name, must not control the terminal."""
    from rklu_lib import data

    typer.echo(data.printable(text), err=err)


def print_epochs(records):
    """Print a table with the scores of each epoch of some records; with several processes only the first prints."""
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
    """Yield an `on_stage` for `unlearning.run`, or an attack, that shows a progress bar with the time left."""
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
