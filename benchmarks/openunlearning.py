"""TOFU's evaluation of SmolLM2 by the engine against OpenUnlearning's own (github.com/locuslab/open-unlearning).

python benchmarks/openunlearning.py CHECKOUT MODEL

CHECKOUT: a clone of that repository, which is used as it is; it wants `pip install hydra-core==1.3.2` beside. MODEL: a
checkpoint after TOFU, such as `smollm2`'s original. Both are asked the same questions in the same tokens, and TOFU is
read from where the profile says: of their code only what would ask the hub for rows is replaced. Their settings:
float32, batches of 32, at most 200 tokens generated. `bf16` is the engine under autocast, where the processor has it.
"""

import json
import logging
import sys
import tempfile
from pathlib import Path

from measure import measured, write

from rklu_lib import chat, evaluation, models, profiles
from rklu_lib.data import load_tofu

SPLIT, ASKED = "forget01", {"forget": 20, "retain": 10, "authors": 10, "facts": 10}
LENGTH, BATCH = 200, 32
P = profiles.profile("smollm2")
LEFT_OUT = ("privleak", "extraction_strength", "forget_quality")  # of their standard list: an oracle's log, holdout


def theirs(checkout, model, tokenizer, limit):
    """(answer probability of the forget set, model utility) as OpenUnlearning's evaluator gives them."""
    sys.path.insert(0, str(Path(checkout).resolve() / "src"))
    import data.qa  # theirs, as all that follows
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
    tags["apply_chat_template"] = False  # which would close an answer twice
    with tempfile.TemporaryDirectory() as out, open_dict(config):
        config.tofu.output_dir, config.tofu.overwrite = out, True
        tokenizer.padding_side = "left"
        found = get_evaluator("tofu", config.tofu).evaluate(model, tokenizer=tokenizer, template_args=tags)
    return found["forget_Q_A_Prob"], found["model_utility"]


def engine(model, tokenizer, limit, precision):
    """The same two by `rklu_lib`."""
    asked = evaluation.load_questions(P, SPLIT, tokenizer)
    asked = {name: q.part(0, limit or ASKED[name]) for name, q in asked.items()}
    found = evaluation.evaluate(model, tokenizer, asked, LENGTH, precision=precision)[0]
    return found["forget_probability"], found["model_utility"]


def one(form, checkout, path):
    model, tokenizer = models.load(path)
    limits, kept = iter([1]), []  # one question of each set first, which is not measured

    def step():
        how = (model, tokenizer, next(limits, None))
        kept[:] = theirs(checkout, *how) if form == "OpenUnlearning" else engine(*how, {"engine": "no"}.get(form, form))
        return kept[0]

    print(json.dumps(measured(step, repeats=1) | {"forget_probability": kept[0], "model_utility": kept[1]}))


if __name__ == "__main__":
    if len(sys.argv) == 4:
        one(*sys.argv[1:])
    elif len(sys.argv) == 3:
        forms = ["OpenUnlearning", "engine", *["bf16"] * models.bf16("bf16")]
        case = f"SmolLM2-135M, {SPLIT}, {' + '.join(map(str, ASKED.values()))} questions"
        write("openunlearning", __file__, {case: {form: (form, *sys.argv[1:]) for form in forms}})
    else:  # as in `make bench`
        print("openunlearning: skipped; it is given a clone of OpenUnlearning and a model, see its first lines")
