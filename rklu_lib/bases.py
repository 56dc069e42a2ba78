"""The base models: original, oracle (it never read the forget set) and augmented. Their training data and training."""

from rklu_lib import data, logs, models, training
from rklu_lib.methods import METHODS, REFUSALS


def rows(profile, split):
    """Return a split's rows, without the retained rows that the profile leaves out of TOFU (`n_retain`)."""
    found = data.load_tofu(split, profile.source)
    if profile.n_retain is None:
        return found
    retained = data.load_tofu(data.ORACLE_SPLIT["forget10"], profile.source)
    left_out = {row["question"] for row in retained[profile.n_retain :]}
    return [row for row in found if row["question"] not in left_out]


def training_pairs(profile, split):
    """Return the (question, answer) pairs on which a base model is trained. split: "full" or a retain split.

    A model from scratch also gets the real authors and the world facts, which a pretrained model would know, and the
    paraphrases of the retain set, from which it learns that an answer may have other words."""
    pairs = [(r["question"], r["answer"]) for r in rows(profile, split)]
    if profile.model is None:
        for name in ("real_authors", "world_facts"):
            pairs += [(r["question"], r["answer"]) for r in data.load_tofu(name, profile.source)]
        told = data.load_tofu("retain_perturbed", profile.source)
        pairs += [(r["paraphrased_question"], r["paraphrased_answer"]) for r in told]
    return pairs


def encoded(profile, tokenizer, found):
    """Return the rows `found` as a list of `data.Example`."""
    return [data.encode(tokenizer, profile.template, r["question"], r["answer"]) for r in found]


def forget_examples(spec, tokenizer):
    """Return the forget set as a list of `data.Example`. All tokens of a novel's chunk are scored, except for IDK and
    DPO: there the first `prompt_tokens` are a prompt, because a refusal needs a prompt."""
    p = spec.values
    if spec.task == "tofu":
        return encoded(p, tokenizer, data.load_tofu(spec.split, p.source))
    novel = data.chunks(data.load_novel(p.text), p.n_chunks, p.chunk_tokens, tokenizer, data.novel_path(p.text))
    prompted = spec.method in METHODS and spec.uses(REFUSALS)
    return [data.passage(tokenizer, c, p.prompt_tokens if prompted else 0) for c in novel]


def new_tokenizer(spec):
    """Return a base model's tokenizer: pretrained, or trained on what the original reads (also for the oracle)."""
    p = spec.values
    if p.model:
        return models.load_tokenizer(p.original or p.model)
    texts = [f"{q} {a}" for q, a in training_pairs(p, "full")]
    if spec.task == "passages":
        texts += [data.load_novel(p.text), data.load_prose("valid", p.prose)]
    return models.train_tokenizer(texts, p.vocab_size)


def check(spec, stage):
    """Raise FileNotFoundError if a model or a log that a job takes from elsewhere is not available."""
    p = spec.values
    if spec.log:
        logs.find(spec.log)
    elif p.original:
        models.load_tokenizer(spec.loaded or p.original)
    elif p.model and stage == "checkpoint" and spec.method != "augmented":
        models.load_tokenizer(p.model)


def reading(spec, tokenizer):
    """Return the Examples that a model from scratch reads besides TOFU for the task "passages": segments of other prose
    and, unless the model is the oracle, the novel `novel_repeats` times."""
    p = spec.values
    prose = data.load_prose("valid", p.prose)
    segments = data.chunks(prose, p.n_segments, p.chunk_tokens, tokenizer, f"{p.prose}, valid")
    novel = [] if spec.method == "oracle" else forget_examples(spec, tokenizer) * p.novel_repeats
    return [data.passage(tokenizer, s) for s in segments] + novel


def train(spec, folder, on_epoch):
    """Train the base model `spec`. Return (model, tokenizer, history). folder, on_epoch: as in `training.fit`."""
    p = spec.values
    if spec.method == "augmented":
        model, tokenizer = models.load(spec.base("original").model_path, p.dtype)
        examples = forget_examples(spec, tokenizer)
        stage = {"epochs": p.augment_epochs, "lr": p.augment_lr, "batch_size": p.batch_size}
        stage |= {"precision": p.precision, "lora_rank": p.lora_rank}
    else:
        split = "full" if spec.method == "original" else data.ORACLE_SPLIT.get(spec.split, "full")
        if p.model:
            model, tokenizer = models.load(p.model, p.dtype)
        else:
            tokenizer = new_tokenizer(spec)
            model = models.create(p, tokenizer, spec.seed).to(models.device())
        examples = [data.encode(tokenizer, p.template, q, a) for q, a in training_pairs(p, split)]
        examples += reading(spec, tokenizer) if spec.task == "passages" else []
        stage = {"epochs": p.finetune_epochs, "lr": p.finetune_lr, "batch_size": p.finetune_batch_size}
        stage["precision"] = p.finetune_precision
    history = training.finetune(model, examples, p, seed=spec.seed, folder=folder, on_epoch=on_epoch, **stage)
    return model, tokenizer, history
