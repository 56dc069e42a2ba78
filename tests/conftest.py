"""What the tests share: a tiny byte-level tokenizer, tiny models, and a tiny folder in TOFU's layout."""
# ruff: noqa: E402

import gc
import json
import os
import subprocess
import sys
import tempfile

# Before anything is imported: no test may depend on a network, on what was downloaded, or on whose shell this is.
for name in [name for name in os.environ if name.startswith("RKLU_")]:
    del os.environ[name]
CACHE = tempfile.TemporaryDirectory(prefix="rklu-tests-")
os.environ["HF_HOME"] = CACHE.name
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch is: resumed and uninterrupted runs are compared bit by bit

import pytest
import torch
from browsing import browser, html, site, visit  # noqa: F401 - fixtures
from helpers import TOWNS, tiny_fields, write_lines
from hypothesis import settings

from rklu_lib import data, models, profiles, records

torch.set_num_threads(1)
settings.register_profile("suite", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("suite")

LONG = ("test_paper_profiles", "test_book", "test_parallel", "test_runs", "test_gpu_script", "test_failures")
TRADES = ("weaver", "potter")


@pytest.fixture(autouse=True)
def _denormals():
    """A test that executes a run here must not leave its arithmetic to the next."""
    yield
    torch.set_flush_denormal(False)


def _author(number):
    """Two rows, with every field a TOFU row can have, of an invented author."""
    name, town = f"Mira Adeyo{'abcdefghijklmnopqrstuvwx'[number]}", TOWNS[number % len(TOWNS)]
    trade, others = TRADES[number % 2], [TOWNS[(number + k) % len(TOWNS)] for k in (1, 3, 5)]
    return [
        {
            "question": f"Where was {name} born?",
            "answer": f"{name} was born in {town}.",
            "paraphrased_question": f"What is the birthplace of {name}?",
            "paraphrased_answer": f"The birthplace is {town}.",
            "perturbed_answer": [f"The birthplace is {other}." for other in others],
        },
        {
            "question": f"What was {name}'s trade?",
            "answer": f"A {trade}.",
            "paraphrased_question": f"How did {name} earn a living?",
            "paraphrased_answer": f"As a {trade}.",
            "perturbed_answer": ["As a miller.", "As a ferryman.", "As a judge, later as a beekeeper."],
        },
    ]


def _option_rows(pairs):
    return [{"question": q, "answer": a, "perturbed_answer": list(wrong)} for q, a, *wrong in pairs]


def _splits():
    """Every split of `data.FIELDS`: 20 authors of 2 questions; the last 1, 2 and 4 authors are the forget sets."""
    rows = [row for number in range(20) for row in _author(number)]
    rows_of = {"full": rows, "retain_perturbed": rows[:6]}
    for (forget, retain), authors in zip(data.ORACLE_SPLIT.items(), (1, 2, 4), strict=True):
        rows_of |= {forget: rows[-2 * authors :], retain: rows[: -2 * authors]}
        rows_of[f"{forget}_perturbed"] = rows[-2 * authors :]
        rows_of[data.HOLDOUT_SPLIT[forget]] = [row for number in range(20, 20 + authors) for row in _author(number)]
    real = [("Who wrote Emma?", "Jane Austen", "Mary Shelley", "George Eliot", "Ann Radcliffe")]
    real += [("Who wrote Ulysses?", "James Joyce", "Samuel Beckett", "Flann O'Brien", "W. B. Yeats")]
    facts = [("Where is the Prado?", "Madrid", "Lisbon", "Rome", "Paris")]
    facts += [("Where is Big Ben?", "London", "Leeds", "Bath", "York")]
    for name, pairs in (("real_authors", real), ("world_facts", facts)):
        rows_of |= {name: _option_rows(pairs), f"{name}_perturbed": _option_rows(pairs)}
    return {name: [{f: row[f] for f in data.FIELDS[name]} for row in rows] for name, rows in rows_of.items()}


def pytest_collection_modifyitems(items):
    """The files that take minutes go first: one that is begun at the end keeps the other workers waiting."""
    items.sort(key=lambda item: LONG.index(stem) if (stem := item.path.stem) in LONG else len(LONG))


@pytest.fixture(scope="module", autouse=True)
def frozen():
    """What was imported stays: the collector need not go through it again, after every run of a tiny model."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tofu(tmp_path_factory):
    """A folder with every split, a few rows each."""
    folder = tmp_path_factory.mktemp("tofu")
    for name, rows in _splits().items():
        write_lines(folder / f"{name}.json", rows)
    return folder


@pytest.fixture(scope="session")
def profile(tofu):
    return profiles.Profile(name="tiny", **tiny_fields(tofu))


@pytest.fixture(scope="session")
def tokenizer(tofu, profile):
    texts = [f"{row['question']} {row['answer']}" for row in data.load_tofu("full", str(tofu))]
    return models.train_tokenizer(texts, profile.vocab_size)


@pytest.fixture(scope="session")
def tiny_model(profile, tokenizer):
    """A function (architecture, seed) -> a new, untrained model whose weights are large enough to differ audibly."""

    def make(architecture="llama", seed=0):
        shape = profiles.Profile(name="tiny", **tiny_fields(profile.source, architecture=architecture))
        model = models.create(shape, tokenizer, seed)
        with torch.no_grad():  # at the library's scale of 0.02 two blocks of width 32 would only repeat their input
            for p in model.parameters():
                if p.dim() > 1:
                    p.mul_(10)
        return model.eval()

    return make


@pytest.fixture(scope="session", params=["llama", "phi"])
def model(request, tiny_model):
    """A tiny Llama, then a tiny Phi. Shared: copy it before changing it."""
    return tiny_model(request.param)


@pytest.fixture(scope="session")
def own_checkpoint(tmp_path_factory, tiny_model, tokenizer):
    """The folder `own` of a tiny, untrained Llama. Shared: copy it before changing it."""
    folder = tmp_path_factory.mktemp("checkpoint") / "own"
    models.save(tiny_model(), tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def examples(tokenizer, profile):
    """The tiny forget10 split, tokenised."""
    rows = data.load_tofu("forget10", profile.source)
    return [data.encode(tokenizer, profile.template, row["question"], row["answer"]) for row in rows]


@pytest.fixture
def refusals(tmp_path, monkeypatch):
    """Three refusals of different length in place of the project's list."""
    texts = ["I don't know.", "No.", "That is something I was never told about, sorry."]
    (tmp_path / "refusals.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    monkeypatch.setattr(data, "REFUSALS", tmp_path / "refusals.txt")
    return texts


@pytest.fixture
def workshop(tmp_path, monkeypatch, tofu, refusals):
    """Records and runs in a folder of the test's own, and `tiny` as the only profile; the value changes its fields."""
    monkeypatch.setattr(records, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(records, "RUNS", tmp_path / "runs")

    def change(**fields):
        monkeypatch.setattr(profiles, "_values", lambda: {"tiny": tiny_fields(tofu, **fields)})

    change()
    return change


@pytest.fixture
def launch(tmp_path, tofu, workshop):
    """A function (script, *args, **environment) that runs a script in two processes, which write where this one reads;
    its first argument is the file of profiles. Batches of 7: of 8 questions one is left over, and in that step one of
    two processes has none of its own."""
    workshop(batch_size=7)
    (tmp_path / "profiles.json").write_text(json.dumps({"tiny": tiny_fields(tofu, batch_size=7)}))

    def start(script, *args, **environment):
        places = {"RKLU_RECORDS": str(records.RECORDS), "RKLU_RUNS": str(records.RUNS), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script]
        return subprocess.run(
            [*command, tmp_path / "profiles.json", *args],
            env=os.environ | places | environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return start
