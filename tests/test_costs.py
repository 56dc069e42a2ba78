"""The costs page: its arithmetic against known counts and synthetic laws, and what the committed measurements claim."""

import json

import numpy as np
import pytest
from helpers import ROOT, record

from rklu_pages.beyond import costs
from rklu_pages.drawing import tables

RESULTS = "benchmarks/results"
LLAMA_2_7B = 6_738_415_616  # parameters, as its model card's checkpoint has them


def test_the_memory_plan_counts_llama_2_7b():
    plan = costs.memory_plan()
    assert plan.loc["three models", "student"] == pytest.approx(LLAMA_2_7B * 2 / 1e9)
    assert plan.loc["three models", "total"] == pytest.approx(7 * LLAMA_2_7B * 2 / 1e9)
    assert plan.loc["frozen teacher", "total"] == pytest.approx((5 * LLAMA_2_7B + 2 * 32000 * 4096) * 2 / 1e9)
    assert plan.loc["frozen teacher", "in main memory"] == pytest.approx(2 * 400 * 60 * 4096 * 2 / 1e9)
    assert plan["fits in 80 GB"].tolist() == [False, True]
    assert not costs.memory_plan(bytes_each=4)["fits in 80 GB"].any()


def test_exponents_are_those_of_the_law(tmp_path):
    rows = []
    for name, power in (("examples", 1.0), ("hidden_size", 2.0), ("vocab_size", 0.5)):
        for value in (10, 20, 40):
            seconds = 3 * value**power
            rows.append({"varied": name, name: value, "seconds": seconds, "flops": seconds * 50, "matmul_rate": 100})
    (tmp_path / "scaling.json").write_text(json.dumps({"rows": rows}))
    table = costs.growth(tmp_path)
    np.testing.assert_allclose(table["share of the product rate"], 0.5)
    assert costs.exponents(table).exponent.to_dict() == pytest.approx(
        {"examples": 1.0, "width": 2.0, "vocabulary": 0.5}
    )


def test_the_measurements_on_record_say_what_the_page_says():
    table = costs.ratios(RESULTS)
    faster = table["times as fast"]
    assert len(table) == 7 and (faster > 1).all()
    memory = table["extra memory, share of naive"].dropna()
    assert len(memory) == 5
    assert (memory[["losses, reverse kl", "losses, forward kl"]] <= 1 / 8).all()
    assert memory["losses, cross entropy"] <= 1 / 8
    assert faster["teacher, RKLU epoch"] >= 1.6 and memory["teacher, RKLU epoch"] <= 0.5


def test_a_peer_says_the_same_and_takes_longer():
    table = costs.peer(RESULTS)
    seconds, scores = table.loc["processor's seconds"], table.iloc[3:]
    assert seconds["OpenUnlearning"] > 2 * seconds["engine"]
    assert len(scores) == 12 and (scores["OpenUnlearning"] - scores["engine"]).abs().max() < 5e-4
    # what the book (Deviations, "Arithmetic at smollm2") says of bf16: ROUGE-L goes by whole answers
    moved = (scores["bf16"] - scores["engine"]).abs()
    words = moved.index.str.endswith("rouge")
    assert moved[~words].max() < 0.005 and moved[words].max() < 0.02 and moved["forget probability"] < 0.001


def test_what_runs_took_is_what_their_records_say():
    table = costs.spent([record("RKLU", [0.1, 0.2], [0.3, 0.4], seconds={"train": 120.0, "evaluate": 30.0})])
    assert list(table.index) == [("mini", "forget10", "RKLU")] and list(table.iloc[0]) == [2.0, 0.5, 2, "none"]


def test_targets_are_held_against_what_the_records_say():
    table = costs.targets(costs.every("smollm2"), RESULTS)
    paths = (ROOT / f"data/records/smollm2/tofu/forget05/{name}/seed0.json" for name in ("original", "oracle"))
    original, oracle = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    assert original["machine"] == oracle["machine"]
    here = table.xs(original["machine"], level="processor")
    speeds = 216_000 * 5 / original["seconds"]["train"], 216_000 * 0.95 * 5 / oracle["seconds"]["train"]
    assert here.loc["training, tokens a second"].tolist() == ["at least 400", *map(pytest.approx, speeds), True]
    minutes = sum(sum(made["seconds"].values()) for made in (original, oracle)) / 60
    bases = here.loc["original and oracle of one set, trained and judged, minutes"]
    assert bases.tolist() == ["at most 110", *[pytest.approx(minutes)] * 2, True]


def test_a_target_missed_says_so():
    judged = lambda where, *seconds: [  # noqa: E731
        record("RKLU", [0.1] * 10, [0.3] * 10, machine=where, seconds={"train": 600.0, "evaluate": s}) for s in seconds
    ]
    trained = lambda where, *seconds: [  # noqa: E731
        record("original", [0.1], [0.3], machine=where, seconds={"train": s, "evaluate": s / 10},
               settings={"finetune_epochs": 5})
        for s in seconds
    ]  # fmt: skip
    fast, slow = judged("fast", 1500.0) + trained("fast", 2400.0), judged("slow", 9, 1501) + trained("slow", 9, 2701)
    table = costs.targets(fast + slow, RESULTS)
    for what in ("training, tokens a second", "full evaluation of forget10, seconds"):
        assert table.met[what].to_dict() == {"fast": True, "slow": False}
    assert table.met["a method on forget10, judged ten times, minutes"].to_dict() == {"fast": True, "slow": False}
    assert not table.met.filter(like="OpenUnlearning", axis=0).any()
    assert repr(tables.show(table, "Targets.", "none")).splitlines()[-1].endswith("no")


def test_bf16_loses_what_float32_keeps():
    table = costs.lost_updates(RESULTS)
    assert (table["float32"] < 0.01).all() and table.loc[1e-5, "bfloat16"] > 0.5
    assert table["bfloat16"].is_monotonic_decreasing


def test_compensated_bf16_follows_float32_where_plain_bf16_does_not():
    table = costs.followed(RESULTS)
    exact, lost, kept = (table.loc[n] for n in ("float32, AdamW", "bfloat16, AdamW", "bfloat16, AdamW, compensated"))
    assert kept["share of the way off"] < 0.15 and lost["share of the way off"] > 0.8
    distance = lambda row: abs(row["loss after 200 steps"] - exact["loss after 200 steps"])  # noqa: E731
    assert distance(kept) < 0.05 * distance(lost)
