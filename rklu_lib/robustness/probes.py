"""Other ways to ask for an answer: with its first tokens given, or after an assent such as "Sure, here is the answer:".

`prefixed` and `assured` return `data.Example`s, whose answers `asked` then scores. Knowledge that another prompt brings
to light was hidden, not removed. The examples of paraphrased questions come from `own.inputs.paraphrased`.
"""

from rklu_lib import data, evaluation, metrics
from rklu_lib.own import measure

SURE = "Sure, here is the answer:"  # after Zou et al. (2023): attacks on refusals aim at it
SHARES = (0.25, 0.5, 0.75)


def prefixed(examples, end, share):
    """Move the first floor(share * t) tokens of each answer to its prompt; leave at least one (Carlini et al., 2023).
    t counts the answer's tokens without the closing token `end`. Return new `data.Example`s, in the same order."""
    found = []
    for e in examples:
        t = len(e.answer) - (e.answer[-1] == end)
        cut = min(int(share * t), max(0, t - 1))
        found.append(data.Example(e.prompt + e.answer[:cut], e.answer[cut:]))
    return found


def assured(items, tokenizer, template):
    """Return an example per question, whose prompt ends with `SURE` as the answer's first words; omit documents."""
    begun, found = data.encode_answer(tokenizer, template, SURE)[:-1], []
    for item in (i for i in items if i.question is not None):
        prompt = data.encode_prompt(tokenizer, template, item.question, item.system)
        whole = data.encode_answer(tokenizer, template, f"{SURE} {item.answer}")
        if whole[: len(begun)] != begun:  # this tokenizer joins the colon with the text after it
            whole = begun + data.encode_answer(tokenizer, template, item.answer)
        found.append(data.Example(prompt + begun, whole[len(begun) :]))
    return found


def asked(model, tokenizer, examples, end):
    """Return {"probability", "rouge"} of n answers, each (n,) and in [0, 1]. "probability" is the geometric mean per
    token. "rouge" is the ROUGE-L recall (`metrics.rouge_l`) of greedy decoding, cut to the true answer's length."""
    probability = metrics.probability(measure.score(model, examples)[0])
    lengths = [len(e.answer) for e in examples]
    said = evaluation.greedy(model, [e.prompt for e in examples], max(lengths), end)
    said = [tokens[:n] for tokens, n in zip(said, lengths, strict=True)]
    texts, truth = (
        [t.strip() for t in tokenizer.batch_decode(x, skip_special_tokens=True)]
        for x in (said, [e.answer for e in examples])
    )
    return {"probability": probability, "rouge": metrics.rouge_l(truth, texts)}
