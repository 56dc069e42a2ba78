"""Questions and answers as token ids, in the format of a written-out template or of the tokenizer's chat template.

Control tokens (`</s>`, `<|im_end|>`) come from the format only. The same characters inside a question or an answer are
tokenised as ordinary text, so an answer cannot end in its middle, and a question cannot open a turn.
"""

import datetime
import functools
import json
import re
from dataclasses import dataclass

import jinja2
from tokenizers import AddedToken, Tokenizer

CHAT = "chat"  # the template that stands for the tokenizer's chat template
DATE = datetime.date(2025, 4, 10)  # for formats that tell the model the date: a prompt must be the same every day
_NOW = r"""strftime_now\((['"])(.*?)\1\)"""  # how formats ask for the date
_QUESTION, _ANSWER, _SYSTEM, _PROBE = "\ue002", "\ue003", "\ue004", ' Who\'s "{x}"?\n\nA: <b>1</b> '


@dataclass(frozen=True)
class Frame:
    """A format, cut at its fields: opening, question, middle (the prompt ends here), lead, answer, closing."""

    opening: str
    middle: str
    lead: str
    closing: str
    stripped: bool = False  # the format removes blanks at both ends of question and answer


def cut(template):
    """Return the `Frame` of a template such as "[INST] {question} [/INST] {answer}".

    Blanks before {answer} belong to the answer, because byte-level tokenizers join a blank to the next word. Raises
    ValueError for "chat", whose text only a tokenizer knows."""
    if template == CHAT:
        raise ValueError("template `chat` is the tokenizer's own; where there is none, write it out with {question}")
    prompt, closing = template.split("{answer}")
    opening, middle = prompt.split("{question}")
    bare = middle.rstrip(" ")
    return Frame(opening, bare, middle[len(bare) :], closing)


def _written(tokenizer, **turns):
    """Return the chat template's text of the turns {role: content}, in their order, up to where the model answers."""
    said = [{"role": role, "content": content} for role, content in turns.items()]
    dated = re.sub(_NOW, lambda asked: repr(DATE.strftime(asked[2])), tokenizer.get_chat_template())
    options = {"tokenize": False, "add_generation_prompt": "assistant" not in turns, "chat_template": dated}
    return tokenizer.apply_chat_template(said, date_string=DATE.strftime("%d %b %Y"), **options)


@functools.lru_cache(maxsize=8)
def _chat(tokenizer):
    """Return the `Frame` of the chat template. Raises ValueError if it is missing, cannot be run or changes texts."""
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError("this tokenizer has no chat template; name a format, such as 'Q: {question}\\nA: {answer}'")

    def written(question, answer=None):
        return _written(tokenizer, user=question, **({} if answer is None else {"assistant": answer}))

    try:
        prompt, whole = written(_QUESTION), written(_QUESTION, _ANSWER)
    except jinja2.TemplateError as error:  # broken, or not allowed in jinja's sandbox
        raise ValueError(f"this chat template cannot be run ({error}); write a format with {{question}}") from None
    opening, _, middle = prompt.partition(_QUESTION)
    lead, _, closing = whole.removeprefix(prompt).partition(_ANSWER)
    for stripped in (False, True):
        text = _PROBE.strip() if stripped else _PROBE
        asked = opening + text + middle
        if written(_PROBE) == asked and written(_PROBE, _PROBE) == asked + lead + text + closing:
            return Frame(opening, middle, lead, closing, stripped)
    raise ValueError("this chat template changes the text, or the prompt before it; write a format with {question}")


@functools.lru_cache(maxsize=8)
def _opening(tokenizer):
    """Return (text before, text after, stripped) of the system prompt in the chat template's opening, or None if the
    template takes none, as Gemma's, or does not put it before the question."""
    middle = _chat(tokenizer).middle
    try:
        written = _written(tokenizer, system=_SYSTEM, user=_QUESTION)
        before, _, rest = written.partition(_SYSTEM)
        after = rest.removesuffix(_QUESTION + middle)
        for text, stripped in ((_PROBE, False), (_PROBE.strip(), True)):
            if _written(tokenizer, system=_PROBE, user=_QUESTION) == before + text + after + _QUESTION + middle:
                return before, after, stripped
    except jinja2.TemplateError:
        pass
    return None


def takes_system(tokenizer, template):
    """Return whether the format has a place for a system prompt."""
    return template == CHAT and _opening(tokenizer) is not None


def frame(tokenizer, template):
    """Return the `Frame` of a template. "chat" stands for the tokenizer's chat template; raises as `_chat` does."""
    return _chat(tokenizer) if template == CHAT else cut(template)


@functools.lru_cache(maxsize=8)
def _literal(tokenizer):
    """Return (twin, {control token: its spelling in the twin}, {id in the twin: id}). The twin is the tokenizer with
    control tokens spelled as no text is. All else is the same: normalisation, merges, tokens added at the start."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    added, state["added_tokens"] = state["added_tokens"], []
    spelled = {t["content"]: f"\ue000{t['id']}\ue001" for t in added if t["special"]}
    twin = Tokenizer.from_str(json.dumps(state | {"truncation": None, "padding": None}))
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    twin.add_tokens([AddedToken(spelled.get(t["content"], t["content"]), **{f: t[f] for f in flags}) for t in added])
    return twin, spelled, {twin.token_to_id(spelled.get(t["content"], t["content"])): t["id"] for t in added}


def _ids(tokenizer, parts, special=False):
    """Return the token ids of strings laid end to end: at even places the format's (from 0), at odd places text.

    special: let the tokenizer add its special tokens, such as begin-of-text."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:  # not from the library `tokenizers`
        return list(tokenizer("".join(parts), add_special_tokens=special)["input_ids"])
    twin, spelled, true = _literal(tokenizer)
    if spelled:
        control = re.compile("|".join(map(re.escape, sorted(spelled, key=len, reverse=True))))
        parts = [p if i % 2 else control.sub(lambda m: spelled[m[0]], p) for i, p in enumerate(parts)]
    return [true.get(i, i) for i in twin.encode("".join(parts), add_special_tokens=special).ids]


def _text(stripped, text):
    return text.strip() if stripped else text


def _opened(tokenizer, template, *parts):
    """Return the token ids of a prompt, or of a prompt and its answer, without a closing token. With a written-out
    template they open with the begin-of-text token, if the tokenizer has one that is not its end-of-text token too (as
    in GPT-2 and Phi). A chat template brings its own."""
    ids = _ids(tokenizer, parts, special=template != CHAT)
    if template == CHAT:
        return tuple(ids)
    ids = ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids
    bos, opened = tokenizer.bos_token_id, ids[:1] == [tokenizer.bos_token_id]
    return tuple(ids) if opened or bos in (None, tokenizer.eos_token_id) else (bos, *ids)


def encode_prompt(tokenizer, template, question, system=None):
    """Return the token ids of the prompt, up to the answer; see `_opened` for the first token. system: a system prompt,
    which replaces the format's own. It is left out if the format has no place for it (`takes_system`)."""
    form = frame(tokenizer, template)
    opening = (form.opening,)
    if system is not None and takes_system(tokenizer, template):
        before, after, stripped = _opening(tokenizer)
        opening = (before, _text(stripped, system), after)
    return _opened(tokenizer, template, *opening, _text(form.stripped, question), form.middle)


@functools.lru_cache(maxsize=8)
def _asked(tokenizer, template):
    return encode_prompt(tokenizer, template, "?")


def encode_answer(tokenizer, template, answer):
    """Return the token ids of the answer, closed by `end_token`. The answer is tokenised after a prompt, as for TOFU's
    models: Llama 2's tokenizer would put a blank before an answer alone. If the answer would change the prompt's
    tokens, it is tokenised alone."""
    form, end = frame(tokenizer, template), end_token(tokenizer, template)
    after = (form.lead, _text(form.stripped, answer), form.closing)
    prompt = _asked(tokenizer, template)
    whole = _opened(tokenizer, template, form.opening, "?", form.middle + form.lead, *after[1:])
    ids = whole[len(prompt) :] if whole[: len(prompt)] == prompt else tuple(_ids(tokenizer, after))
    return (ids[: ids.index(end)] if end in ids else ids) + (end,)


@functools.lru_cache(maxsize=8)
def end_token(tokenizer, template):
    """Return the id of the token that closes an answer: in a chat its first control token, else end-of-text."""
    if template != CHAT:
        return tokenizer.eos_token_id
    control = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return next((i for i in _ids(tokenizer, (_chat(tokenizer).closing,)) if i in control), tokenizer.eos_token_id)
