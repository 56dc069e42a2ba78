"""What a base model is: original, oracle (it never read the forget set) and augmented; what each reads, and how."""

from rklu_lib import data, logs, models, training
from rklu_lib.methods import METHODS, REFUSALS


def rows(profile, split):
    """A split's rows, less the retained ones that the profile leaves out of TOFU (`n_retain`)."""
    found = data.load_tofu(split, profile.source)
    if profile.n_retain is None:
        return found
    retained = data.load_tofu(data.ORACLE_SPLIT[profile.largest], profile.source)
    left_out = {row["question"] for row in retained[profile.n_retain :]}
    return [row for row in found if row["question"] not in left_out]


def training_pairs(profile, split):
    """(question, answer) pairs a base model is trained on: `split` is full or a retain split.

    A model created from scratch has read nothing, so it is also given the real authors, the world facts and the retain
    set's paraphrases: what a pretrained model would know, and how an answer may be put in other words.
    """
    pairs = [(r["question"], r["answer"]) for r in rows(profile, split)]
    if profile.model is None:
        for name in ("real_authors", "world_facts"):
            pairs += [(r["question"], r["answer"]) for r in data.load_tofu(name, profile.source)]
        told = data.load_tofu("retain_perturbed", profile.source)
        pairs += [(r["paraphrased_question"], r["paraphrased_answer"]) for r in told]
    return pairs


def encoded(profile, tokenizer, found):
    """Rows of a split as Examples."""
    return [data.encode(tokenizer, profile.template, r["question"], r["answer"]) for r in found]


def forget_examples(spec, tokenizer):
    """The forget set's Examples. A refusal needs a prompt, so IDK and DPO get a chunk of text cut at its prompt's end;
    for every other method all its tokens are scored."""
    p = spec.values
    if spec.task == "tofu":
        return encoded(p, tokenizer, data.load_tofu(spec.split, p.source))
    novel = data.chunks(data.load_novel(p.text), p.n_chunks, p.chunk_tokens, tokenizer, data.novel_path(p.text))
    prompted = spec.method in METHODS and spec.uses(REFUSALS)
    return [data.passage(tokenizer, c, p.prompt_tokens if prompted else 0) for c in novel]


def new_tokenizer(spec):
    """The tokenizer of a base model: a pretrained one's, or trained on what the original reads, for the oracle too."""
    p = spec.values
    if p.model:
        return models.load_tokenizer(p.original or p.model)
    texts = [f"{q} {a}" for q, a in training_pairs(p, "full")]
    if spec.task == "passages":
        texts += [data.load_novel(p.text), data.load_prose("valid", p.prose)]
    return models.train_tokenizer(texts, p.vocab_size)


def check(spec, stage):
    """Raises FileNotFoundError where what a job takes from elsewhere, a model or a log, is not to be had."""
    p = spec.values
    if spec.log:
        logs.find(spec.log)
    elif p.original:
        models.load_tokenizer(spec.loaded or p.original)
    elif p.model and stage == "checkpoint" and spec.method != "augmented":
        models.load_tokenizer(p.model)


def reading(spec, tokenizer):
    """What a model from scratch reads beside TOFU for the task "passages": other prose and the novel, `novel_repeats`
    times, unless it is the oracle."""
    p = spec.values
    prose = data.load_prose("valid", p.prose)
    segments = data.chunks(prose, p.n_segments, p.chunk_tokens, tokenizer, f"{p.prose}, valid")
    novel = [] if spec.method == "oracle" else forget_examples(spec, tokenizer) * p.novel_repeats
    return [data.passage(tokenizer, s) for s in segments] + novel


def train(spec, folder, on_epoch):
    """Train one of `BASES`. Returns (model, tokenizer, history). folder, on_epoch: as of `training.fit`."""
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
