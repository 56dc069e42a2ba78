"""`rklu plan`: estimate a study's jobs, tokens, operations, memory, disk and hours before anything is downloaded.

Tokens are characters divided by `CHARACTERS`; TOFU's were counted once (`_TOFU`), those of other data are counted here.
Time is the sum of three parts, a rough guide: operations at `budget.EFFICIENCY` of the card's peak in the run's
precision; generation, which reads all weights for each token of a batch, at half of the card's bandwidth; and writing
each epoch's state at `DISK`."""

import math
from dataclasses import dataclass
from pathlib import Path

from rich.table import Column, Table
from rich.text import Text
from transformers import AutoConfig, LlamaConfig, PhiConfig

from rklu_lib import budget, data, evaluation, hub, metrics, models, records, runs
from rklu_lib.methods import AUGMENTED, FORGET_REFERENCE, METHODS, REFERENCE, REFUSALS, RETAIN_REFERENCE, RETAIN_STATES

DISK = 1e9  # bytes per second
CHARACTERS = 4  # per token of English text, with a vocabulary of 32,000 or more
# name: (GB of memory, Tflop/s in dense bf16 and in float32, TB/s of memory), from the manufacturers' data sheets
CARDS = {"h100": (80, 989, 67, 3.35), "h200": (141, 989, 67, 4.8), "a100": (80, 312, 19.5, 2.04)}
CARDS |= {"l40s": (48, 362, 91.6, 0.864), "l4": (24, 121, 30.3, 0.3), "rtx4090": (24, 165, 82.6, 1.01)}
# The shapes of the hub's models that profiles name, from their config.json.
_SHAPES = {
    "meta-llama/Llama-2-7b-chat-hf": (LlamaConfig, 4096, 11008, 32, 32, 32, 32000, False),
    "meta-llama/Llama-3.2-1B-Instruct": (LlamaConfig, 2048, 8192, 16, 32, 8, 128256, True),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (LlamaConfig, 576, 1536, 30, 9, 3, 49152, True),
    "microsoft/phi-1_5": (PhiConfig, 2048, 8192, 24, 32, 32, 51200, False),
}
_FIELDS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
_FIELDS += ("vocab_size", "tie_word_embeddings")
# TOFU: number of questions; mean characters of a question, of its answer, and of all its other answers that are scored.
_TOFU = {"full": (4000, 70, 169, 0), "retain": (300, 63, 166, 1171), "authors": (100, 58, 14, 40)}
_TOFU |= {"facts": (117, 56, 10, 30), "forget01": (40, 79, 183, 1293), "forget05": (200, 77, 177, 1208)}
_TOFU |= {"forget10": (400, 77, 182, 1218)}


@dataclass(frozen=True)
class Step:
    """A job: tokens trained on and scored, operations, bytes of memory on the card and kept on disk, seconds."""

    name: str
    trained: int
    scored: int
    flops: float
    memory: float
    disk: float
    seconds: float


def configuration(profile):
    """Return the configuration of a profile's model: from the profile's sizes, `_SHAPES`, or a local config.json."""
    if profile.model is None:
        shape = (profile.hidden_size, profile.intermediate_size, profile.n_layers, profile.n_heads, profile.n_heads)
        kind = LlamaConfig if profile.architecture == "llama" else PhiConfig
        return kind(**dict(zip(_FIELDS, (*shape, profile.vocab_size, True), strict=True)))
    if profile.model in _SHAPES:
        kind, *shape = _SHAPES[profile.model]
        return kind(**dict(zip(_FIELDS, shape, strict=True)))
    for name in filter(None, (profile.model, profile.original)):
        for folder in (models.folder() / name, Path(name)):
            if (folder / "config.json").is_file():
                return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    raise ValueError(f"the shape of {profile.model} is not known here; put its config.json into {models.folder()}")


def _characters(name, source):
    """Return (questions, mean characters of a question, its answer, its other answers) of a split or a utility set."""
    if source == "locuslab/TOFU":
        return _TOFU[name]
    file = {"retain": "retain_perturbed", "authors": "real_authors_perturbed", "facts": "world_facts_perturbed"}
    rows = data.load_tofu(file.get(name, name if name == "full" else f"{name}_perturbed"), source)
    other = [len(r.get("paraphrased_answer", "")) + sum(map(len, r.get("perturbed_answer", ()))) for r in rows]
    n = len(rows)
    return n, *(sum(v) / n for v in (map(len, (r[f] for r in rows)) for f in ("question", "answer"))), sum(other) / n


def _cut(counted, most):
    return (min(counted[0], most or counted[0]), *counted[1:])


class _Study:
    """The sizes of a spec's profile and split, from which `step` computes those of each job."""

    def __init__(self, spec, card):
        self.p, self.card, bandwidth = spec.values, CARDS[card], CARDS[card][3]
        self.config = configuration(self.p)
        self.model = budget.empty(self.config)
        self.n = self.model.num_parameters()
        self.fetched = 2 * self.n  # bytes: the hub's weights are in 16 bits
        self.bandwidth = 1e12 * bandwidth / 2
        frame = len(self.p.template) - len("{question}{answer}") if self.p.template != "chat" else 120
        self.frame, self.size = frame / CHARACTERS, budget.BYTES[self.p.dtype]
        self.forget, self.full = (_characters(name, self.p.source) for name in (spec.split, "full"))
        left = 4000 if self.p.n_retain is None else self.p.n_retain + _characters("forget10", self.p.source)[0]
        self.full = _cut(self.full, left)
        also = () if self.p.model else metrics.UTILITY_SETS  # see `bases.training_pairs`
        self.told = sum(_characters(name, self.p.source)[0] for name in also)

    def pair(self, counted):
        """Return the mean tokens of (a question with its answer, the answer alone)."""
        answer = counted[2] / CHARACTERS + 1
        return self.frame + counted[1] / CHARACTERS + answer, answer

    def passes(self, counted, times):
        """Return (tokens, operations of the forward passes) of reading all pairs `times` times."""
        whole, answer = self.pair(counted)
        tokens = counted[0] * times * whole
        return tokens, budget.forward(self.model, tokens, counted[0] * times * answer, whole)

    def evaluation(self, sets):
        """Return (tokens, operations, seconds of generation) of scoring each set once and generating its answers."""
        tokens = flops = seconds = 0
        for n, question, answer, other in sets:
            prompt, said = self.frame + question / CHARACTERS, min(answer / CHARACTERS + 1, self.p.max_new_tokens)
            read = n * (prompt + (answer + other) / CHARACTERS + said)
            tokens, flops = tokens + read, flops + budget.forward(self.model, read, read - n * prompt, prompt + said)
            steps = math.ceil(n / evaluation.BATCH) * self.p.max_new_tokens
            seconds += steps * self.n * self.size / self.bandwidth
        return tokens, flops, seconds

    def judged(self):
        """Return the sizes of the sets of one evaluation: forget, retain, real authors, world facts."""
        sets = [_characters(name, self.p.source) for name in ("retain", "authors", "facts")]
        return [_cut(self.forget, self.p.n_questions), _cut(sets[0], min(300, self.p.n_questions or 300)), *sets[1:]]

    def step(self, spec, stage):
        p, chosen, base = self.p, METHODS.get(spec.method), spec.method in ("original", "oracle")
        unlearns = bool(chosen and chosen.forget)
        trains = unlearns or (stage == "checkpoint" and not chosen)
        epochs = runs.epochs((spec, stage)) if trains else 0
        retained = (self.full[0] - self.forget[0], *self.full[1:])
        if base:
            read = self.full if spec.method == "original" else retained
            trained, forward = self.passes((read[0] + self.told, *read[1:]), epochs)
        else:
            trained, forward = self.passes(self.forget, epochs * (2 if unlearns and chosen.retain else 1))
        once = {AUGMENTED: (self.forget, 2), REFERENCE: (self.forget, 1), FORGET_REFERENCE: (self.forget, 1)}
        once |= {RETAIN_REFERENCE: (retained, 1), RETAIN_STATES: (retained, 1)}
        once |= {REFUSALS: (self.forget, p.unlearn_epochs)}
        frozen = sum(self.passes(*once[need])[1] for need in chosen.needs) if unlearns else 0
        scored = flops = wait = 0
        if stage == "record":
            times = math.ceil(p.unlearn_epochs / p.judge_every) if unlearns else 1
            times *= 2 if spec.method == "teacher" else 1  # two models at every step
            scored, flops, wait = (v * times for v in self.evaluation(self.judged()))
        total = (4 if p.gradient_checkpointing else 3) * forward + frozen + flops
        kept = self.n * self.size if trains or spec.method == "TA" else 0
        precision = p.finetune_precision if trains and base else p.precision
        peak = self.card[1 if "bf" in (p.dtype + precision) else 2] * 1e12 * budget.EFFICIENCY
        seconds = total / peak + wait + epochs * budget.state(self.n, p.dtype) / DISK
        memory = self.memory(trains, chosen, not base)
        return Step(f"{spec.label}, {stage}", round(trained), round(scored), total, memory, kept, seconds)

    def memory(self, trains, chosen, adapted):
        """Return the peak bytes: of training with its activations, or of two whole models while the teacher is made.
        adapted: train adapters only, if the profile has a lora_rank. TA, which trains nothing, holds three models."""
        whole, p = self.n * self.size, self.p
        if not trains:
            return whole * {"TA": 3, "teacher": 2}.get(chosen and chosen.name, 1)
        batch, lora = p.micro_batch_size or p.batch_size, budget.adapters(self.config, p.lora_rank * adapted)
        kept = budget.activations(
            self.config, p.dtype, batch * 1.5 * self.pair(self.forget)[0], p.gradient_checkpointing
        )
        needs = chosen.needs if chosen else ()
        heads = 2 * (AUGMENTED in needs) + (RETAIN_REFERENCE in needs) + (FORGET_REFERENCE in needs)
        held = sum(budget.held(self.n, p.dtype, lora).values()) + heads * budget.products(self.model)[1] * self.size
        return max(held + kept, 2 * whole if AUGMENTED in needs else 0)

    def state(self):
        """Return the peak bytes of one run's state on disk: the new state is written before the last is deleted."""
        lora = budget.adapters(self.config, self.p.lora_rank) if self.p.original else None
        return 2 * budget.state(self.n, self.p.dtype, lora)


def study(specs, card="h100"):
    """Return (sizes, `Step`s in order of all jobs that `specs` still need). All specs must share profile and split."""
    if card not in CARDS:
        raise ValueError(f"no card {card!r}; there are {', '.join(CARDS)}")
    if any(spec.task != "tofu" for spec in specs):
        raise ValueError("what a novel takes depends on the reader's file; plan one of TOFU's splits")
    made = _Study(specs[0], card)
    return made, [made.step(*job) for job in runs.jobs(specs)]


def downloads(specs):
    """Return the names of the models that the missing jobs of `specs` load from the hub and that are not here yet."""
    first, jobs = specs[0].values.original or specs[0].values.model, runs.jobs(specs)
    names = dict.fromkeys(filter(None, (first, *(spec.loaded for spec, _ in jobs)))) if jobs else ()
    return [n for n in names if not (any(p.is_dir() for p in (models.folder() / n, Path(n))) or hub.cached(n))]


def needs(profile):
    """Return (bytes on the card, bytes on disk with downloads) that RKLU on forget10 still needs at a profile."""
    specs = [records.RunSpec(profile, "forget10", "RKLU")]
    made, steps = study(specs)
    disk = sum(s.disk for s in steps) + made.state() * bool(steps) + made.fetched * len(downloads(specs))
    return max((s.memory for s in steps), default=0), disk


def show(specs, card="h100"):
    """Return what `rklu plan` prints, a list of rich renderables."""
    made, steps = study(specs, card)
    heads = ("trained, tokens", "scored, tokens", "operations", "GB on the card", "GB kept", f"hours, {card}")
    table = Table(Column("job", overflow="fold"), *(Column(h, min_width=9) for h in heads), padding=0)
    for s in steps:
        numbers = (f"{s.memory / 1e9:.1f}", f"{s.disk / 1e9:.1f}", f"{s.seconds / 3600:.2g}")
        table.add_row(s.name, f"{s.trained:,}", f"{s.scored:,}", f"{s.flops:.2g}", *numbers)
    peak, kept = max((s.memory for s in steps), default=0), sum(s.disk for s in steps)
    first, fetched = specs[0].values.original or specs[0].values.model, downloads(specs)
    there, hours, state = CARDS[card][0] * 1e9, sum(s.seconds for s in steps) / 3600, made.state()
    fits = "fits" if peak < there else "does not fit: gradient_checkpointing, another dtype, or several cards"
    fetching = made.fetched * len(fetched)
    lines = {
        "model": f"{first or specs[0].profile}: {made.n:,} parameters, {specs[0].values.dtype}",
        "memory": f"{peak / 1e9:.0f} GB at the highest, of {there / 1e9:.0f} on this card: {fits}",
        "disk": f"{(kept + state + fetching) / 1e9:.0f} GB: checkpoints {kept / 1e9:.0f}, the state of a run up to "
        f"{state / 1e9:.0f} (deleted when the run ends), downloads {fetching / 1e9:.0f}",
        "to download": ", ".join(fetched) or "nothing",
        "time": f"{hours:.2g} hours on one {card}, a rough guide: at {budget.EFFICIENCY:.0%} of its {CARDS[card][1]} "
        f"Tflop/s in bf16, {CARDS[card][2]} in float32, and half of its {CARDS[card][3]} TB/s; states written at "
        f"{DISK / 1e9:g} GB/s; {CHARACTERS} characters a token",
    }
    said = Table(box=None, show_header=False)
    for name, value in lines.items():
        said.add_row(Text(name, style="bold"), Text(value))
    return [table, said] if steps else [Text("Nothing is missing: the records are there.")]
