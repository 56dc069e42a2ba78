"""What models were choosing between, against plain forwards."""

import pytest
import scipy.stats
import torch

from rklu_lib import probing


def test_direct_answer_is_transformers_greedy(tiny_model, tokenizer, profile):
    model = tiny_model()
    text = probing.direct_answer(model, tokenizer, profile.template, "Who?", max_new_tokens=6)
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer("Q: Who? A:")["input_ids"]]])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6, pad_token_id=0)
    assert text == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()


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
    assert probing.most_changed(content, "a", "b") == 1
    assert probing.most_changed(content, "b", "a") in (0, 2)
