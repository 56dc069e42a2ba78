"""TOFU's evaluation of SmolLM2 by the engine against OpenUnlearning's own (github.com/locuslab/open-unlearning).

python benchmarks/openunlearning.py CHECKOUT MODEL

CHECKOUT: a clone of that repository, used unchanged; it needs `pip install hydra-core==1.3.2`. MODEL: a checkpoint
trained on TOFU, such as `smollm2`'s original. Both evaluators ask the same questions in the same tokens, and read TOFU
from where the profile says. In their code only the loading of rows from the hub is replaced; their pad token is changed
(see `theirs`). Our scores divide as theirs do (see `EPSILON`). Settings as theirs: float32, batches of 32, at most 200
generated tokens. `bf16` is our engine under autocast, where the processor supports it."""

import json
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import measured, write

from rklu_lib import chat, evaluation, metrics, models, profiles
from rklu_lib.data import load_tofu

SPLIT, ASKED = "forget01", {"forget": 20, "retain": 10, "authors": 10, "facts": 10}
LENGTH, BATCH = 200, 32
EPSILON = 1e-10  # they add it to a probability before dividing by it; for some facts this is 2e-9
P = profiles.profile("smollm2")
THEIRS = {"forget_probability": "forget_Q_A_Prob", "forget_rouge": "forget_Q_A_ROUGE", "model_utility": "model_utility"}
for ours, short in {"retain": "retain", "authors": "ra", "facts": "wf"}.items():  # their names of utility's parts
    THEIRS |= {f"{ours}_rouge": f"{short}_Q_A_ROUGE", f"{ours}_truth_ratio": f"{short}_Truth_Ratio"}
    THEIRS[f"{ours}_probability"] = f"{short}_Q_A_Prob" + "_normalised" * (ours != "retain")
LEFT_OUT = ("privleak", "extraction_strength", "forget_quality")  # they need an oracle's log or a holdout


def theirs(checkout, model, tokenizer, limit):
    """Return {score: value} by OpenUnlearning's evaluator, under our names."""
    sys.path.insert(0, str(Path(checkout).resolve() / "src"))
    import data.qa  # theirs, as are the next imports
    import datasets
    import hydra
    from evals import get_evaluator
    from omegaconf import open_dict

    logging.disable(logging.WARNING)
    sets = {f"{SPLIT}_perturbed": "forget", "retain_perturbed": "retain"}
    sets |= {"real_authors_perturbed": "authors", "world_facts_perturbed": "facts"}

    def rows(path, name, **_):
        return datasets.Dataset.from_list(load_tofu(name, P.source)[: limit or ASKED[sets[name]]])

    data.qa.load_hf_dataset = rows
    with hydra.initialize_config_dir(str(Path(checkout).resolve() / "configs"), version_base=None):
        settings = [f"~eval.tofu.metrics.{name}" for name in LEFT_OUT]
        settings += ["hydra/job_logging=disabled", "hydra/hydra_logging=disabled"]
        asked = ["task_name=benchmark", f"eval.tofu.batch_size={BATCH}", f"eval.tofu.forget_split={SPLIT}"]
        config = hydra.compose("eval.yaml", [*asked, *settings]).eval
    form = chat.frame(tokenizer, P.template)
    tags = {"user_start_tag": form.opening, "user_end_tag": form.middle, "asst_start_tag": form.lead}
    tags["apply_chat_template"] = False  # a chat template would close an answer twice
    with tempfile.TemporaryDirectory() as out, open_dict(config):
        config.tofu.output_dir, config.tofu.overwrite = out, True
        # their collator masks every pad token; SmolLM2's pad is its end of turn, which a prompt holds twice
        tokenizer.pad_token, tokenizer.padding_side = tokenizer.unk_token, "left"
        get_evaluator("tofu", config.tofu).evaluate(model, tokenizer=tokenizer, template_args=tags)
        found = json.loads((Path(out) / "TOFU_EVAL.json").read_text(encoding="utf-8"))
    return {name: found[key]["agg_value"] for name, key in THEIRS.items()}


def engine(model, tokenizer, limit, precision):
    """Return the same scores by `rklu_lib`, with their `EPSILON` added in the two scores that are quotients."""
    p = metrics.probability
    metrics.normalised_probability = lambda right, wrong: p(right) / (p(right) + p(wrong).sum(1) + EPSILON)
    metrics.truth_ratio = lambda right, wrong, form=None: p(np.mean(wrong, axis=1)) / (p(right) + EPSILON)
    asked = evaluation.load_questions(P, SPLIT, tokenizer)
    asked = {name: q.part(0, limit or ASKED[name]) for name, q in asked.items()}
    found = evaluation.evaluate(model, tokenizer, asked, LENGTH, precision=precision)[0]
    return {name: found[name] for name in THEIRS}


def one(form, checkout, path):
    model, tokenizer = models.load(path)
    limits, scores = iter([1]), {}  # warm-up: one question of each set, not measured

    def step():
        how = (model, tokenizer, next(limits, None))
        peer = form == "OpenUnlearning"
        scores.update(theirs(checkout, *how) if peer else engine(*how, {"engine": "no"}.get(form, form)))
        return scores["forget_probability"]

    print(json.dumps(measured(step, repeats=1) | {"scores": scores}))


if __name__ == "__main__":
    if len(sys.argv) == 4:
        one(*sys.argv[1:])
    elif len(sys.argv) == 3:
        forms = ["OpenUnlearning", "engine", *["bf16"] * models.bf16("bf16")]
        case = f"SmolLM2-135M, {SPLIT}, {' + '.join(map(str, ASKED.values()))} questions"
        write("openunlearning", __file__, {case: {form: (form, *sys.argv[1:]) for form in forms}})
    else:  # as in `make bench`
        print("openunlearning: skipped; it is given a clone of OpenUnlearning and a model, see its first lines")
