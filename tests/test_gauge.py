"""What the page on the gauge says of logits, on logits whose answer is known."""

import torch

from rklu_pages.beyond import gauge


def test_a_common_shift_moves_the_levels_and_no_probability():
    torch.manual_seed(0)
    original, true = torch.randn(6, 9, dtype=torch.float64), torch.arange(6)
    found = gauge._tokens(original, original + 3, true, alpha=8)
    for name in ("mean logit", "log-partition", "true logit"):
        torch.testing.assert_close(found[f"{name}, rise"], torch.full((6,), 3.0, dtype=torch.float64))
    assert (found["vocabulary lowered, raw"] == 1).all()
    for name in gauge.GAUGES:  # everything lowered alike is nothing lowered
        before, after = (found[f"true token's probability, {k}"] for k in ("original", name))
        torch.testing.assert_close(before, after)


def test_one_raised_logit_is_lowered_in_every_gauge():
    original = torch.zeros(1, 4, dtype=torch.float64)
    augmented = original.clone()
    augmented[0, 2] = 1.0
    found = gauge._tokens(original, augmented, torch.tensor([2]), alpha=2)
    assert found["mean logit, rise"].item() == 0.25 and found["true logit, rise"].item() == 1
    assert all(found[f"vocabulary lowered, {name}"].item() == 0.25 for name in gauge.GAUGES)
    e = torch.e
    closed = {"raw": 2.0, "centred": 1.5, "normalised": 2 * (1 - torch.log(torch.tensor((3 + e) / 4)).item())}
    for name, drop in closed.items():
        expected = 1 / (1 + 3 * e**drop)
        assert abs(found[f"true token's probability, {name}"].item() - expected) < 1e-6


def test_levels_are_recorded_and_read_again(workshop, tiny_model, tokenizer, monkeypatch):
    asked, pair = [], {"original": tiny_model(), "augmented": tiny_model(seed=1)}
    monkeypatch.setattr(gauge.loading, "load_models", lambda *a: asked.append(a) or (pair, tokenizer))
    first = gauge.levels("tiny", "forget10")
    assert gauge.levels("tiny", "forget10") == first and len(asked) == 1
    workshop(alpha=2.0)
    assert gauge.levels("tiny", "forget10")["mean"] != first["mean"] and len(asked) == 2
    shown = gauge.table(first)
    assert shown.loc["mean logit, rise", "mean"] == first["mean"]["mean logit, rise"] != 0
    assert (shown["5 %"] <= shown["95 %"]).all() and first["tokens"] > 20
    assert len(gauge.plot(first).figure.axes) == 2
