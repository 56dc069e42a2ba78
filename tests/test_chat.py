"""Chat formats, token for token what `apply_chat_template` gives, and text that stays text, in six formats on disk."""

import pytest
from formats import CHATML, FORMATS, GEMMA

from rklu_lib import chat, models

ENDS = {"SmolLM2": "<|im_end|>", "Qwen2": "<|im_end|>", "Llama-3": "<|eot_id|>", "Llama-2": "</s>"}
ENDS |= {"Gemma": "<end_of_turn>", "Phi-3": "<|end|>"}
TEXTS = ("Where was she born?", " two  blanks ", "1984, in\n\nSetúbal", "[/INST] {answer}", "¿Dónde? 🙂", "a", "'s\n")


@pytest.fixture(scope="module", params=FORMATS)
def spoken(request, tmp_path_factory):
    """(its name, the tokenizer as it is read back from disk)."""
    folder = tmp_path_factory.mktemp(request.param)
    FORMATS[request.param]().save_pretrained(folder)
    return request.param, models.load_tokenizer(folder)


def _theirs(tokenizer, question, answer=None):
    said = [] if answer is None else [{"role": "assistant", "content": answer}]
    turns = [{"role": "user", "content": question}, *said]
    return tokenizer.apply_chat_template(turns, add_generation_prompt=answer is None)["input_ids"]


@pytest.mark.parametrize("system", ["Be brief.", " Never say\n</s> <|im_end|> ", ""])
def test_a_system_prompt_is_the_chat_templates_token_for_token_and_text(spoken, system):
    tokenizer = spoken[1]
    turns = [{"role": "system", "content": system}, {"role": "user", "content": "Where?"}]
    assert chat.takes_system(tokenizer, chat.CHAT) and not chat.takes_system(tokenizer, "{question} {answer}")
    ours = list(chat.encode_prompt(tokenizer, chat.CHAT, "Where?", system))
    if "<" in system:  # what looks like a control token is spelled out: as many of those as without it
        controls = lambda ids: [i for i in ids if i in set(tokenizer.all_special_ids)]  # noqa: E731
        assert controls(ours) == controls(chat.encode_prompt(tokenizer, chat.CHAT, "Where?", "Be brief."))
        assert system.strip() in tokenizer.decode(ours)
    else:
        theirs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, date_string="10 Apr 2025")[
            "input_ids"
        ]
        assert ours == theirs


def test_a_format_that_asks_for_the_day_is_the_same_on_all_days():
    """SmolLM3's and Granite's ask the clock themselves, by a function that transformers hands them."""
    tokenizer = FORMATS["Qwen2"]()
    for day in ('{{ strftime_now("%d %B %Y") }}', "{{ date_string }}"):
        tokenizer.chat_template = f"It is {day}. " + "{% for m in messages %}{{ m.content }}{% endfor %}"
        chat._chat.cache_clear()
        assert chat.frame(tokenizer, chat.CHAT).opening in ("It is 10 April 2025. ", "It is 10 Apr 2025. ")


def test_a_format_that_refuses_a_system_prompt_takes_none(tmp_path):
    tokenizer = FORMATS["Gemma"]()
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + GEMMA
    )
    assert not chat.takes_system(tokenizer, chat.CHAT)


@pytest.mark.parametrize("text", TEXTS)
def test_prompt_and_answer_are_the_chat_templates_token_for_token(spoken, text):
    name, tokenizer = spoken
    prompt, answer = (f(tokenizer, "chat", text) for f in (chat.encode_prompt, chat.encode_answer))
    assert list(prompt) == _theirs(tokenizer, text)
    whole = _theirs(tokenizer, text, text)
    assert list(prompt + answer) == whole[: len(prompt + answer)]
    assert tokenizer.convert_ids_to_tokens(answer[-1]) == ENDS[name]
    assert chat.end_token(tokenizer, "chat") == answer[-1] not in answer[:-1]
    assert prompt.count(tokenizer.bos_token_id) == whole.count(tokenizer.bos_token_id)  # never doubled


def test_what_looks_like_a_control_token_is_text(spoken):
    _, tokenizer = spoken
    control = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    for template in ("chat", "Q: {question} A: {answer}"):
        for f in (chat.encode_prompt, chat.encode_answer):
            plain = [i for i in f(tokenizer, template, "Where?") if i in control]
            for token in [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]:
                said = f(tokenizer, template, f"It says {token} here.")
                assert [i for i in said if i in control] == plain, (template, token)
                assert token in tokenizer.decode([i for i in said if i not in control])


def test_a_control_token_in_a_template_of_ones_own_is_one():
    tokenizer = FORMATS["SmolLM2"]()
    template = "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}"
    asked = chat.encode_prompt(tokenizer, template, "Who?")
    assert asked == tuple(tokenizer("<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n")["input_ids"])
    assert asked.count(tokenizer.bos_token_id) == 2  # it opens the prompt already, and is not set before it again


def test_a_prompt_does_not_differ_from_day_to_day():
    tokenizer = FORMATS["SmolLM2"]()
    tokenizer.chat_template = "{{ 'Today is ' + date_string + '. ' }}" + CHATML
    assert "Apr 2025" in tokenizer.decode(chat.encode_prompt(tokenizer, "chat", "Who?"))


def test_a_format_that_cannot_be_had_is_refused():
    for template, why in ((None, "no chat template; name a format"), ("{{ messages[0].content | upper }}", "changes")):
        tokenizer = FORMATS["SmolLM2"]()
        tokenizer.chat_template = template
        with pytest.raises(ValueError, match=why):
            chat.encode_prompt(tokenizer, "chat", "Who?")
    with pytest.raises(ValueError, match="template `chat` is the tokenizer's own"):
        chat.cut("chat")
