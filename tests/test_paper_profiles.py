"""The paper's scales without the paper's weights: tiny checkpoints in the hub's layout, each notebook on both.

What stands in for the hub is what a reader without network would use: RKLU_MODELS, RKLU_TOFU, RKLU_NOVEL, RKLU_WIKITEXT
and RKLU_CAPABILITY name folders. The profiles are the paper's own, untouched.
"""

import nbformat
import papermill
import pytest
import torch
from formats import FORMATS, llama
from helpers import write_lines
from transformers import CodeGenTokenizer, LlamaConfig, LlamaForCausalLM, LlamaTokenizer, PhiConfig, PhiForCausalLM

from rklu_lib import data, models, profiles
from rklu_pages.results.verdicts import VERDICTS

LLAMA, PHI = "meta-llama/Llama-2-7b-chat-hf", "microsoft/phi-1_5"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
# Four invented items for each of the paper's tasks, in the fields of its data set on the hub.
ITEMS = {
    "piqa": {"goal": "dry a cup", "sol1": "Use a towel.", "sol2": "Use a river.", "label": 0},
    "hellaswag": {"activity_label": "Tea", "ctx_a": "A man boils water.", "ctx_b": "he", "ctx": "A man boils water. he",
                  "endings": ["pours it.", "sings it.", "eats it.", "buys it."], "label": "0"},
    "arc_easy": {"question": "What melts?", "choices": {"text": ["Ice", "Rye"], "label": ["A", "B"]}, "answerKey": "A"},
    "copa": {"premise": "It rained.", "question": "effect", "choice1": "The road was wet.", "choice2": "It sang.",
             "label": 0},
    "wsc273": {"text": "The cup fell off the shelf because it was round.", "pronoun": "it", "pronoun_loc": 35,
               "options": ["The cup", "The shelf"], "label": 0},
    "mathqa": {"Problem": "one and one ?", "options": "a ) 1 , b ) 2 , c ) 3 , d ) 4 , e ) 5", "correct": "b"},
}  # fmt: skip
ITEMS["arc_challenge"] = ITEMS["arc_easy"]


def terse(model, tokenizer):
    """The same model, saying as good as nothing: untrained, it would babble to the limit, which is nine tenths of what
    these notebooks take. Its first hidden unit is on for every token, and tells the end of text alone."""
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] = 1.0
        model.get_output_embeddings().weight[tokenizer.eos_token_id, 0] = 4.0
    return model, tokenizer


def phi():
    """Phi-1.5's tokenizer class, whose only special token opens, closes and pads, and a small Phi with its layout."""
    from tokenizers.pre_tokenizers import ByteLevel

    vocab = {c: k for k, c in enumerate(sorted(ByteLevel.alphabet()))} | {"<|endoftext|>": 256}
    tokenizer = CodeGenTokenizer(vocab=vocab, merges=[])
    shape = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    return PhiForCausalLM(PhiConfig(**shape, vocab_size=len(vocab), max_position_embeddings=2048)), tokenizer


def smollm2():
    """SmolLM2's chat format and grouped heads, its begin token the format's opening one, and byte-level text."""
    tokenizer = FORMATS["SmolLM2"]()
    shape = dict(
        hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1
    )
    shape |= dict(vocab_size=len(tokenizer), max_position_embeddings=8192, tie_word_embeddings=True)
    return LlamaForCausalLM(LlamaConfig(**shape)), tokenizer


@pytest.fixture(scope="module")
def hub(tmp_path_factory, tofu):
    """A folder with all that the paper's scales take from the hub, small; the environment that points there."""
    folder = tmp_path_factory.mktemp("hub")
    for name, make in ((LLAMA, llama), (PHI, phi), (SMOLLM2, smollm2)):
        torch.manual_seed(0)
        model, tokenizer = terse(*make())
        models.save(model, tokenizer, folder / name)
    (folder / "tasks").mkdir()
    for task, item in ITEMS.items():
        write_lines(folder / "tasks" / f"{task}.jsonl", [item] * 4)
    places = {"RKLU_MODELS": folder, "RKLU_TOFU": tofu, "RKLU_NOVEL": data.PASSAGES / "novel.txt"}
    places |= {"RKLU_WIKITEXT": data.PASSAGES, "RKLU_CAPABILITY": folder / "tasks"}
    places |= {"RKLU_RECORDS": folder / "records", "RKLU_RUNS": folder / "runs", "PYTHONPATH": data.ROOT}
    return {name: str(path) for name, path in places.items()}


@pytest.fixture
def elsewhere(hub, monkeypatch):
    for name, value in hub.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("profile", "name"), [("llama2-7b", LLAMA), ("phi-1.5", PHI)])
def test_a_local_directory_in_the_hubs_layout_stands_in(elsewhere, profile, name):
    p = profiles.profile(profile)
    assert p.model == name
    model, tokenizer = models.load(p.model, p.dtype)
    assert (type(tokenizer), type(model)) == {
        LLAMA: (LlamaTokenizer, LlamaForCausalLM), PHI: (CodeGenTokenizer, PhiForCausalLM)
    }[name]  # fmt: skip
    assert model.dtype == getattr(torch, p.dtype)


def test_our_llama_prompt_is_the_chat_templates(elsewhere):
    tokenizer = models.load_tokenizer(LLAMA)
    question = "Where was Mira Adeyo born?"
    theirs = tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False)
    bos, *ours = data.encode_prompt(tokenizer, profiles.profile("llama2-7b").template, question)
    assert theirs.startswith("<s>") and bos == tokenizer.bos_token_id
    assert ours == tokenizer(theirs.removeprefix("<s>"), add_special_tokens=False)["input_ids"]


def test_our_phi_prompt_is_tofus(elsewhere):
    """Phi's one special token ends texts; its tokenizer opens none with it, and neither does TOFU."""
    tokenizer = models.load_tokenizer(PHI)
    prompt = data.encode_prompt(tokenizer, profiles.profile("phi-1.5").template, "Where was Mira Adeyo born?")
    assert tokenizer.bos_token_id == tokenizer.eos_token_id not in prompt
    assert list(prompt) == tokenizer("Question: Where was Mira Adeyo born?\nAnswer:")["input_ids"]


# Chunks are fewer and shorter, so that the embedded text fills them; every other value is the paper's profile's.
CHANGES = {"n_chunks": 8, "chunk_tokens": 64, "prompt_tokens": 24, "n_segments": 8}
ONE = {"methods": ["FKLU", "RKLU"], "seeds": [0], "rates": [2e-3]}
PAGES = {
    "table3_fkl_vs_rkl": ONE | {"splits": ["forget10"]},
    "table1_general_capability": {"methods": ["FKLU", "RKLU"], "splits": ["forget10"]},
    "table2_copyright": {"methods": ["RKLU"], "changes": CHANGES},
}
NOTEBOOKS = [("llama2-7b", name, given) for name, given in PAGES.items()]
NOTEBOOKS += [("smollm2", "table3_fkl_vs_rkl", ONE | {"splits": ["forget01"]})]
NOTEBOOKS += [  # the same code on another architecture: its TOFU always, the rest where there is time
    pytest.param("phi-1.5", name, given, marks=[pytest.mark.slow] * (name != "table3_fkl_vs_rkl"))
    for name, given in PAGES.items()
]


@pytest.mark.parametrize(
    ("profile", "notebook", "parameters"), NOTEBOOKS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_the_notebooks_run_at_the_papers_scales(elsewhere, tmp_path, profile, notebook, parameters):
    source, out = data.ROOT / "notebooks" / f"{notebook}.ipynb", tmp_path / "out.ipynb"
    papermill.execute_notebook(
        source, out, {"profile": profile} | parameters, kernel_name="python3", progress_bar=False
    )
    cells = nbformat.read(out, as_version=4).cells
    verdict = cells[-1].outputs[0]["data"]["text/html"]
    assert any(word in verdict for word in VERDICTS)
