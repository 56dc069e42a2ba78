"""The commands as a shell user meets them: what they leave, and one clear line when they refuse."""

import json
import re
import shlex
import shutil

import pytest
import torch
import typer
from helpers import Here, answer_probability, flat, rklu
from transformers import AutoModelForCausalLM

from rklu_lib import budget, cli, data, models, records, runs, training
from rklu_lib.commands import own_model as commands
from rklu_lib.commands import terminal
from rklu_lib.own import jobs, plan, unlearning
from rklu_lib.records import RunSpec
from rklu_pages.beyond import own_model


@pytest.fixture
def own(workshop, tmp_path, own_checkpoint, tofu):
    """A function that runs `rklu unlearn` on a tiny checkpoint and data of one's own; options may be replaced."""
    shutil.copytree(own_checkpoint, tmp_path / "own")
    for name, split in (("forget", "forget10"), ("retain", "retain90")):
        shutil.copy(tofu / f"{split}.json", tmp_path / f"{name}.jsonl")

    def unlearn(*more, **options):
        given = {"model": tmp_path / "own", "forget": tmp_path / "forget.jsonl", "out": tmp_path / "out"}
        given |= {"profile": "tiny"} | options
        return rklu("unlearn", *(a for k, v in given.items() for a in (f"--{k}", v)), *more)

    return unlearn


@pytest.mark.parametrize("method", ["RKLU", "RKLU+RT", "GA"])
def test_unlearn_writes_a_checkpoint_that_transformers_loads(own, tmp_path, method):
    retain = ("--retain", tmp_path / "retain.jsonl") if "+" in method else ()
    result = own(*retain, method=method)
    assert result.exit_code == 0, result.output
    assert f"{method} on 8 pairs; the answers' mean probability per token was" in result.stdout
    loaded, original = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("out", "own"))
    assert any(not torch.equal(a, b) for a, b in zip(loaded.parameters(), original.parameters(), strict=True))


def test_a_collapse_is_told_and_ends_in_no_traceback(own, tmp_path):
    """Its perplexity leaves floating point, and JSON has no infinity."""
    result = own("--target", "1e-3", method="GA", lr=30, epochs=1)
    assert result.exit_code == 0 and "A perplexity rose by inf%" in result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["epochs"][0]["perplexity_rise"] is None
    assert "| ∞ |" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert any("of other prose changed by +inf%" in line for line in own_model.verdict(report))


def test_unlearn_says_what_it_measured(own, tmp_path, profile, monkeypatch):
    monkeypatch.setattr(commands, "KNOWN", 0)
    result = own(method="GA", lr="1e-2")
    loaded, tokenizer = models.load(tmp_path / "out")
    rows = data.load_tofu("forget10", profile.source)
    pairs = [data.encode(tokenizer, profile.template, row["question"], row["answer"]) for row in rows]
    values = [answer_probability(loaded, e) for e in pairs]
    assert f"and is {sum(values) / len(values):.3g}." in flat(result.stdout)
    assert "Little is forgotten" not in result.stderr
    again = own(out=tmp_path / "again", lr="1e-9")
    assert again.exit_code == 0 and "Little is forgotten: raise --lr, --epochs or --alpha" in again.stderr


def test_an_original_that_hardly_knew_the_answers_is_asked_for_its_format(own, tmp_path):
    """It is untrained; a higher rate, which is else the advice, would only spoil it."""
    (tmp_path / "one.jsonl").write_text('{"question": "Who?", "answer": "Mira Adeyo of Zadar"}')
    for number, more in enumerate(((), ("--target", "1e-9"))):
        result = own(*more, lr="1e-9", epochs=1, forget=tmp_path / "one.jsonl", out=tmp_path / f"out{number}")
        doubt = r"hardly knew the answers \(0\.0\d+ per token\)\. Is --template what it was tuned on\?"
        assert re.search(doubt, flat(result.stderr))
        assert "raise --lr" not in result.stderr and "RKLU on 1 pair; the answers'" in flat(result.stdout)
        told = re.sub(r"\s+", " ", (tmp_path / f"out{number}" / "report.html").read_text(encoding="utf-8"))
        assert "The 1 forgotten answer had a mean" in told
        assert "0 leak (0 did before). None leaked before either, so this shows little." in told


def test_weights_are_float32_unless_told(own, tmp_path):
    own(epochs=1)
    own(epochs=1, out=tmp_path / "half", dtype="bfloat16")
    for name, dtype in (("out", torch.float32), ("half", torch.bfloat16)):
        weights = AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype="auto")
        assert weights.dtype == dtype


def test_options_reach_the_training(own, tmp_path, monkeypatch):
    seen = []

    def seeing(job, **_):
        seen.append(job)
        return {"probability": {"before": 0.9, "after": 0.1}, "leak": {}, "rule": {"target": None, "kept": 1}} | {
            "epochs": [{"perplexity_rise": 0.3}]
        }

    monkeypatch.setattr(unlearning, "run", seeing)
    template = "U: {question}\nM: {answer}"
    more = {"lora": 4, "by": "A. Person", "probes": 3, "reference": tmp_path / "own", "target": 0.2}
    more |= {"max-perplexity-rise": 0.4, "save-dtype": "float16"}
    result = own("--no-redact", template=template, alpha=3, lr="1e-4", epochs=7, seed=5, method="NPO", **more)
    assert result.exit_code == 0, result.output
    assert "A perplexity rose by 30%" in result.stderr
    job, profile = seen[0], seen[0].profile
    assert len(job.examples["forget"]) == 8 and job.examples["retain"] == []
    assert job.method.name == "NPO" and job.seed == 5
    assert (profile.template, profile.alpha, profile.augment_lr, profile.unlearn_lr) == (template, 3, 1e-4, 1e-4)
    assert (profile.augment_epochs, profile.unlearn_epochs, profile.learning_rate("NPO")) == (7, 7, 1e-4)
    assert (profile.lora_rank, job.by, job.probes, job.redact) == (4, "A. Person", 3, False)
    assert (job.reference, job.target, job.max_perplexity_rise) == (str(tmp_path / "own"), 0.2, 0.4)
    assert job.save_dtype == "float16"


def test_forgotten_text_is_masked_unless_it_is_asked_for(own, tmp_path):
    own(epochs=1)
    own("--no-redact", epochs=1, out=tmp_path / "plain")
    told = {name: (tmp_path / name / "report.json").read_text(encoding="utf-8") for name in ("out", "plain")}
    assert "Adeyo" not in told["out"] and "Adeyo" in told["plain"]


def test_a_target_that_is_not_reached_is_said_with_what_may_reach_it(own, tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "KNOWN", 0)
    result = own("--target", "1e-9", epochs=1, lr="1e-9")
    assert "The target of 1e-09 was not reached: raise --lr, --epochs or --alpha" in flat(result.stderr)
    assert re.search(r"\d of 8 probed answers leak\. Read .*report\.html", flat(result.stdout))
    bound = {"max-perplexity-rise": 1e-6, "lr": 0.05, "epochs": 2, "method": "GA", "out": tmp_path / "bound"}
    result = own("--target", "1e-9", **bound)
    assert result.exit_code == 2 and "every epoch raised the perplexity beyond the bound" in flat(result.output)


@pytest.fixture
def no_weights(monkeypatch):
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("weights were loaded"))


@pytest.mark.usefixtures("no_weights")
def test_a_dry_run_says_what_would_be_done_and_loads_nothing(own, tmp_path, tokenizer, profile):
    (tmp_path / "more.csv").write_text("question,answer\nWhere was she born?,In Zadar.\n", encoding="utf-8")
    result = own("--dry-run", "--forget", tmp_path / "more.csv", target=0.05, **{"max-perplexity-rise": 0.1})
    assert result.exit_code == 0, result.output
    said = flat(result.stdout)
    model = models.create(profile, tokenizer, 0)
    assert f"llama, {sum(p.numel() for p in model.parameters()):,} parameters, float32" in said
    assert "forget.jsonl (8 rows), more.csv (1 rows)" in said and "9 examples in batches of 4" in said
    assert "2 epochs of augmenting, then up to 2 of unlearning; alpha 8, learning rate 0.002" in said
    assert (
        "rose by no more than 10% at which the forgotten answers' mean probability" in said and "at most 0.05" in said
    )
    assert re.search(r"memory [\d.e-]+ GB and activations", said) and re.search(r"time about \d+ s", said)
    e = data.encode(
        tokenizer, profile.template, *(data.load_tofu("forget10", profile.source)[0][k] for k in ("question", "answer"))
    )
    prompt, answer = ("|".join(tokenizer.decode([t]) for t in tokens) for tokens in (e.prompt, e.answer))
    assert flat(prompt) in said and flat(answer) in said
    assert not (tmp_path / "out").exists()


def test_the_estimate_of_a_dry_run_is_what_it_says(own, tmp_path, profile, monkeypatch):
    monkeypatch.setattr(plan, "_speed", lambda dtype: 1e9)
    estimates = {}
    for name, options in (("whole", {}), ("adapters", {"lora": 4}), ("alone", {"method": "GA"})):
        given = {"profile": profile, "probes": 0} | options
        job = jobs.prepare(str(tmp_path / "own"), str(tmp_path / "forget.jsonl"), tmp_path / "out", **given)
        estimates[name] = job, plan.estimate(job)
    n = estimates["whole"][1]["parameters"]
    held, lora = sum(budget.held(n, "float32").values()), budget.adapters(estimates["whole"][0].config, 4)
    needs = {name: found["memory"] for name, (_, found) in estimates.items()}
    assert needs == {"whole": held + 4 * n, "adapters": sum(budget.held(n, "float32", lora).values()), "alone": held}
    state = budget.state(n, "float32")
    disk = {name: found["disk"] for name, (_, found) in estimates.items()}
    assert (disk["whole"], disk["alone"]) == (8 * n + 3 * state, 8 * n + 2 * state)
    job, found = estimates["alone"]
    tokens = {k: sum(len(e.prompt + e.answer) for e in examples) for k, examples in job.examples.items()}
    operations = n * (6 * 2 * tokens["forget"] + 2 * (2 + 6) * sum(tokens.values()))  # two epochs
    assert found["seconds"] == pytest.approx(operations / (budget.EFFICIENCY * 1e9))


def test_an_interrupted_command_says_how_it_goes_on_and_does(own, tmp_path, monkeypatch):
    fit, calls = training.fit, []

    def interrupted(*args, on_step=None, **kwargs):
        def step():
            calls.append(1)
            on_step()
            if len(calls) == 7:  # two steps an epoch: in the second epoch of unlearning
                raise KeyboardInterrupt

        return fit(*args, on_step=step, **kwargs)

    monkeypatch.setattr(training, "fit", interrupted)
    result = own()
    assert result.exit_code == 130 and "The same command with --resume goes on" in result.stderr
    assert refused(own(), "out was begun and not finished; --resume goes on, or remove")
    result = own("--resume")
    assert result.exit_code == 0, result.output
    assert len(calls) == 9 and (tmp_path / "out" / "report.html").exists()  # only that epoch was done again


@pytest.fixture
def no_training(monkeypatch):
    def trains(*_, **__):
        pytest.fail("training had begun")

    monkeypatch.setattr(training, "fit", trains)


def refused(result, message):
    """Whether the command ended with a message of its own, not with a traceback."""
    assert result.exit_code != 0
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return message in flat(result.output)


def test_report_without_records_says_how_to_make_them(workshop):
    tiny = "--profile tiny --split forget10 --seed 0"
    assert refused(rklu("report", "--profile", "tiny"), f"no records of {tiny}; `rklu sweep {tiny}` makes them")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report", "--profile", "huge"), "no profile 'huge'"),
        (("report", "--profile", "tiny", "--split", "forget20"), "forget01, forget05, forget10"),
        (("run", "RKL", "--profile", "tiny"), "no method 'RKL'"),
        (("sweep", "--profile", "tiny", "--split", "forget20"), "forget01, forget05, forget10"),
    ],
)
def test_unknown_names_are_one_clear_line(workshop, arguments, message):
    assert refused(rklu(*arguments), message)


def epochs(**changes):
    first = {"epoch": 1, "model_utility": 0.61, "forget_probability": 0.25, "forget_rouge": 0.5}
    return first | {"forget_quality_benchmark": 1.25e-7} | changes


def test_report_prints_what_is_recorded_and_computes_nothing(workshop, no_training):
    records.write(RunSpec("tiny", "forget10", "RKLU"), [epochs(), epochs(epoch=2, model_utility=0.62)], {}, {})
    oracle = {k: v for k, v in epochs(model_utility=0.7).items() if k != "forget_quality_benchmark"}
    records.write(RunSpec("tiny", "forget10", "oracle"), [oracle], {}, {})
    records.write(RunSpec("tiny", "forget10", "RKLU", 1), [epochs(model_utility=0.33)], {}, {})
    other = rklu("report", "--profile", "tiny", "--seed", "1")
    assert other.exit_code == 0 and "0.3300" in other.output and "0.6100" not in other.output
    result = rklu("report", "--profile", "tiny")
    assert result.exit_code == 0
    lines = [re.findall(r"[^\s│┃]+", line) for line in result.output.splitlines()]
    assert ["oracle", "1", "–", "0.7000", "0.2500", "0.5000"] in lines
    assert ["RKLU", "1", "1.25e-07", "0.6100", "0.2500", "0.5000"] in lines
    assert ["RKLU", "2", "1.25e-07", "0.6200", "0.2500", "0.5000"] in lines
    assert len(lines) == 7  # frame, heading, rule, three rows, frame


def test_run_computes_and_prints(workshop, monkeypatch):
    ensure = runs.ensure
    monkeypatch.setattr(runs, "ensure", lambda specs: ensure(specs, executor=Here()))
    result = rklu("run", "GA", "--profile", "tiny", "--split", "forget05")
    assert result.exit_code == 0, result.output
    record = records.load(RunSpec("tiny", "forget05", "GA"))
    assert [e["epoch"] for e in record.epochs] == [1, 2]
    assert f"{record.epochs[1]['model_utility']:.4f}" in result.output


def test_run_takes_changed_settings_as_records_name_them(workshop, monkeypatch):
    asked = []
    monkeypatch.setattr(runs, "ensure", lambda specs: asked.extend(specs) or [])
    monkeypatch.setattr(terminal, "print_epochs", lambda found: None)
    for label in ("RKLU,alpha=4", "RKLU,judge_every=10,unlearn_lr=5e-05"):
        assert rklu("run", label, "--profile", "tiny", "--split", "forget05", "--seed", 2).exit_code == 0
        assert (asked[-1].label, asked[-1].seed) == (label, 2)
    assert asked[0].values.alpha == 4 and asked[1].values.unlearn_lr == 5e-5
    for label, said in (("RKLU,alfa=4", "no field alfa"), ("RKLU,alpha=x", "'x' is no value of a field")):
        result = rklu("run", label, "--profile", "tiny", "--split", "forget05")
        assert result.exit_code == 2 and said in flat(result.output)


def test_sweep_asks_for_every_split_unless_told(workshop, monkeypatch):
    asked = []
    monkeypatch.setattr(runs, "ensure", lambda specs, workers, executor: asked.append((list(specs), workers)))
    assert rklu("sweep", "--profile", "tiny", "--seed", 1, "--method", "RKLU", "--workers", 3).exit_code == 0
    specs, workers = asked[0]
    assert {(s.split, s.seed) for s in specs} == {(split, 1) for split in data.ORACLE_SPLIT} and workers == 3
    assert {s.method for s in specs} == {"original", "oracle", "augmented", "RKLU"}


def test_help_names_the_commands():
    names = {c.name or c.callback.__name__ for c in cli.app.registered_commands}
    listed = {line.split()[1] for line in rklu("--help").output.splitlines() if line.startswith("│ ")}
    assert names <= listed and {"run", "sweep", "unlearn", "report", "attack", "plan"} <= names


def test_every_command_of_the_prose_can_be_read():
    """README and book, blocks of code and words between backticks: what they tell a reader to type is an option."""
    commands, seen = typer.main.get_command(cli.app).commands, set()
    for page in (data.ROOT / "README.md", *sorted((data.ROOT / "book").glob("*.md"))):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"^```[a-z{}-]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        for line in (line for block in blocks for line in block.splitlines()):
            found = re.search(r"(?:^|[\s=;&(])rklu ((?:[a-z]+)(?: .*)?)$", line.split(" #")[0].rstrip())
            if not found or line.lstrip().startswith("#"):
                continue
            name, *arguments = shlex.split(found[1])
            if name in commands:
                commands[name].make_context(name, arguments, resilient_parsing=False)
                seen.add(name)
    assert {"unlearn", "attack", "plan", "run", "sweep", "fetch"} <= seen
