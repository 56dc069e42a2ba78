"""What models were choosing between, against plain forwards."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import generated
from transformers import DynamicCache, MistralConfig, MistralForCausalLM

from rklu_lib import data, probing
from rklu_pages.tasks import distributions


def test_direct_answer_is_transformers_greedy(tiny_model, tokenizer, profile):
    model = tiny_model()
    text = probing.direct_answer(model, tokenizer, profile.template, "Who?", max_new_tokens=6)
    said = generated(model, [tokenizer.bos_token_id, *tokenizer("Q: Who? A:")["input_ids"]], 6, tokenizer.eos_token_id)
    assert text == tokenizer.decode(said, skip_special_tokens=True).strip()


@torch.no_grad()
def test_distributions_are_the_softmax_after_each_true_prefix(tiny_model, tokenizer, examples):
    models, example = {"one": tiny_model(), "other": tiny_model(seed=1)}, examples[0]
    content = probing.token_distributions(models, tokenizer, example, k=5)
    assert "".join(content["tokens"]) == tokenizer.decode(example.answer)
    for name, model in models.items():
        found = content["models"][name]
        for i, token in enumerate(example.answer):
            prefix = torch.tensor([example.prompt + example.answer[:i]])
            p = model(input_ids=prefix).logits[0, -1].softmax(-1)
            assert found["true_probability"][i] == pytest.approx(p[token].item(), rel=1e-3)
            assert found["true_rank"][i] == int((p > p[token]).sum()) + 1
            assert found["entropy"][i] == pytest.approx(-(p * p.log()).sum().item(), rel=1e-3)
            values, top = p.topk(5)
            assert [text for text, _ in found["top"][i]] == [tokenizer.decode([t]) for t in top]
            assert [v for _, v in found["top"][i]] == pytest.approx(values.tolist(), rel=1e-3)


@torch.no_grad()
def test_kl_to_the_oracle_is_over_the_whole_vocabulary(tiny_model, tokenizer, examples):
    models, example = {"oracle": tiny_model(), "other": tiny_model(seed=1)}, examples[0]
    content = probing.token_distributions(models, tokenizer, example, k=2)["models"]
    assert content["oracle"]["kl_to_oracle"] == [0.0] * len(example.answer)
    for i, found in enumerate(content["other"]["kl_to_oracle"]):
        prefix = torch.tensor([example.prompt + example.answer[:i]])
        p, q = (models[n](input_ids=prefix).logits[0, -1].double().softmax(-1).numpy() for n in ("other", "oracle"))
        assert found == pytest.approx(scipy.stats.entropy(p, q), rel=1e-3)
    alone = probing.token_distributions({"other": models["other"]}, tokenizer, example)
    assert "kl_to_oracle" not in alone["models"]["other"]


def test_the_most_changed_position_is_where_the_true_token_lost_most():
    content = {"models": {"a": {"true_probability": [0.9, 0.8, 0.3]}, "b": {"true_probability": [0.8, 0.1, 0.2]}}}
    assert distributions.most_changed(content, "a", "b") == 1
    assert distributions.most_changed(content, "b", "a") == 0  # the last one would be the end of text
    content["models"]["c"] = {"true_probability": [0.1, 0.9, 0.2]}
    assert distributions.most_changed(content, "a", "b", "c") == 0  # where neither has kept it


def test_an_answer_without_end_is_cut_where_it_is_shown():
    content = {"answer": "Karachi.", "direct_answers": {"NPO": "", "GA": "full " * 90, "RKLU": "x" * 200}}
    told = distributions.in_words(content).set_index("model")["its answer"]
    assert told.to_dict() == {
        "the true answer": "Karachi.",
        "NPO": "(ends at once)",
        "GA": "full " * 39 + "full …",
        "RKLU": "x" * 200,
    }
    assert distributions.in_words(content, None)["its answer"][2] == "full " * 90


def test_the_distance_to_the_oracle_along_an_answer_is_a_mean_over_its_tokens():
    models = {"oracle": {"kl_to_oracle": [0.0, 0.0]}, "GA": {"kl_to_oracle": [1.0, 2.0]}, "TA": {}}
    second = models | {"GA": {"kl_to_oracle": [3.0]}}
    contents = [{"question": "Who?", "models": models}, {"question": "Where?", "models": second}]
    table = distributions.divergences(contents, ["oracle", "GA", "TA"])
    assert table.to_dict() == {"GA": {"Who?": 1.5, "Where?": 3.0, "mean of these questions": 2.25}}
    assert distributions.divergences(contents, ["TA"]).empty


ALPHABET = ["<s>", "</s>", " a", " b", "c", ".", ",d", "e."]


class Letters:
    """A tokenizer of eight tokens, and (below) a language that is a random table of bigrams and trigrams."""

    bos_token_id, eos_token_id = 0, 1

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [3] * len(text.strip())}

    def __len__(self):
        return len(ALPHABET)

    def decode(self, tokens):
        return "".join(ALPHABET[t] for t in tokens)


def trigrams(seed, scale):
    table = torch.randn(8, 8, 8, generator=torch.Generator().manual_seed(seed)) * scale

    def base_model(input_ids, past_key_values=None, use_cache=False):
        past = past_key_values or DynamicCache()  # of the tokens themselves
        ids = past.update(*[input_ids[:, None, :, None].double()] * 2, 0)[0][:, 0, :, 0].long()
        before = torch.nn.functional.pad(ids, (1, 0))[:, :-1]
        return SimpleNamespace(last_hidden_state=table[before, ids][:, -input_ids.shape[1] :], past_key_values=past)

    model = SimpleNamespace(
        device="cpu", config=MistralConfig(), base_model=base_model, get_output_embeddings=lambda: lambda hidden: hidden
    )
    return model, table.double().softmax(-1).numpy()


@pytest.mark.parametrize("seed", range(8))
def test_fill_in_blank_finds_what_enumeration_finds(seed):
    model, p = trigrams(seed, scale=(0.3, 1, 3)[seed % 3])
    found, exact = probing.fill_in_blank(model, Letters(), "{question}{answer}", "q", "b", k=5, max_tokens=4)
    # independently: every sequence of up to four open tokens, then each text that a boundary can leave behind
    best = {}
    for n in range(5):
        for tokens in itertools.product((0, 2, 3, 4), repeat=n):
            path, chance = [0, 3, 3, *tokens], 1.0
            for i in range(3, len(path)):
                chance *= p[path[i - 2], path[i - 1], path[i]]
            last, spelt = p[path[-2], path[-1]], "".join(ALPHABET[t] for t in tokens)
            for text, ends in {spelt: [1, 5, 6], spelt + "e": [7]}.items():
                best[text.strip()] = max(best.get(text.strip(), 0), chance * last[ends].sum())
    expected = sorted(best.items(), key=lambda item: -item[1])[:5]
    assert exact
    assert [text for text, _ in found] == [text for text, _ in expected]
    np.testing.assert_allclose([q for _, q in found], [q for _, q in expected], rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 4])
def test_what_follows_a_stem_is_what_a_plain_forward_says(window):
    shape = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": window}
    torch.manual_seed(0)
    model, stem = MistralForCausalLM(MistralConfig(**shape, **heads)).eval(), list(range(3, 12))
    cache = model.base_model(input_ids=torch.tensor([stem[:-1]]), use_cache=True).past_key_values
    rows = [(), (7,), (7, 1, 2), (30, 4)]
    for _ in range(2):  # the cache is as it was
        found = probing._next(model, stem[-1], cache, rows)
        for row, p in zip(rows, found, strict=True):
            expected = model(input_ids=torch.tensor([[*stem, *row]])).logits[0, -1].softmax(-1)
            torch.testing.assert_close(p, expected)


def test_a_search_cut_short_says_so():
    model, _ = trigrams(0, scale=0.3)
    found, exact = probing.fill_in_blank(model, Letters(), "{question}{answer}", "q", "b", max_tokens=8, budget=2)
    assert not exact and 0 < len(found) <= 5
    assert [q for _, q in found] == sorted((q for _, q in found), reverse=True)


@torch.no_grad()
def test_fill_in_blank_of_a_transformer_is_the_same_alone_and_in_a_batch(tiny_model, tokenizer, profile):
    model, question, prefix = tiny_model(), "Where was she born?", "She was born in"
    found, _ = probing.fill_in_blank(model, tokenizer, profile.template, question, prefix, k=4, max_tokens=3)
    stem = data.encode_prompt(tokenizer, profile.template, question)
    stem += data.encode_answer(tokenizer, profile.template, prefix)[:-1]
    for text, p in found:  # one of the ways to spell the text, ended by any boundary, has this probability
        ways = (
            [()]
            if not text
            else [tuple(tokenizer(s, add_special_tokens=False)["input_ids"]) for s in (text, f" {text}")]
        )
        chances = []
        for way in ways:
            q = model(input_ids=torch.tensor([stem + way])).logits[0, len(stem) - 1 :].softmax(-1)
            spelt = torch.tensor([q[i, t] for i, t in enumerate(way)]).prod() if way else 1
            tokens, places, texts = probing._endings(tokenizer, tokenizer.eos_token_id)
            ends = tokens[places == texts.index("")].tolist()
            chances.append(float(spelt * q[-1, ends].sum()))
        assert any(c == pytest.approx(p, rel=1e-3) for c in chances), text
