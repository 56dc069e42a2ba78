"""Formats of a question and its answer, as token ids: a template of one's own, or the tokenizer's chat template.

A control token (`</s>`, `<|im_end|>`) belongs to the format. What looks like one inside a question or an answer is text
and is tokenised as ordinary characters: a forgotten answer cannot end in its middle, nor a question open a turn.
"""

import datetime
import functools
import json
import re
from dataclasses import dataclass

import jinja2
from tokenizers import AddedToken, Tokenizer

CHAT = "chat"  # as a template: the tokenizer's own
DATE = datetime.date(2025, 4, 10)  # for formats that tell the model the day: a prompt must be the same on all days
_NOW = r"""strftime_now\((['"])(.*?)\1\)"""  # how formats ask the clock
_QUESTION, _ANSWER, _SYSTEM, _PROBE = "\ue002", "\ue003", "\ue004", ' Who\'s "{x}"?\n\nA: <b>1</b> '


@dataclass(frozen=True)
class Frame:
    """A format, cut at its two fields: opening, question, middle, [here the prompt ends] lead, answer, closing."""

    opening: str
    middle: str
    lead: str
    closing: str
    stripped: bool = False  # the format takes blanks at the ends of question and answer away


def cut(template):
    """The `Frame` of a template such as "[INST] {question} [/INST] {answer}".

    Blanks before {answer} go to the answer's side, as byte-level tokenisers want them. Raises ValueError for "chat",
    which only a tokenizer can spell out.
    """
    if template == CHAT:
        raise ValueError("template `chat` is the tokenizer's own; where there is none, write it out with {question}")
    prompt, closing = template.split("{answer}")
    opening, middle = prompt.split("{question}")
    bare = middle.rstrip(" ")
    return Frame(opening, bare, middle[len(bare) :], closing)


def _written(tokenizer, **turns):
    """What the tokenizer's chat template makes of {role: content}, in the order given, up to where it is to answer."""
    said = [{"role": role, "content": content} for role, content in turns.items()]
    dated = re.sub(_NOW, lambda asked: repr(DATE.strftime(asked[2])), tokenizer.get_chat_template())
    options = {"tokenize": False, "add_generation_prompt": "assistant" not in turns, "chat_template": dated}
    return tokenizer.apply_chat_template(said, date_string=DATE.strftime("%d %b %Y"), **options)


@functools.lru_cache(maxsize=8)
def _chat(tokenizer):
    """The `Frame` of the tokenizer's chat template. Raises ValueError where there is none or one that rewrites text."""
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError("this tokenizer has no chat template; name a format, such as 'Q: {question}\\nA: {answer}'")

    def written(question, answer=None):
        return _written(tokenizer, user=question, **({} if answer is None else {"assistant": answer}))

    try:
        prompt, whole = written(_QUESTION), written(_QUESTION, _ANSWER)
    except jinja2.TemplateError as error:  # broken, or it reaches for more than text and is kept from it
        raise ValueError(f"this chat template cannot be run ({error}); write a format with {{question}}") from None
    opening, _, middle = prompt.partition(_QUESTION)
    lead, _, closing = whole.removeprefix(prompt).partition(_ANSWER)
    for stripped in (False, True):
        text = _PROBE.strip() if stripped else _PROBE
        asked = opening + text + middle
        if written(_PROBE) == asked and written(_PROBE, _PROBE) == asked + lead + text + closing:
            return Frame(opening, middle, lead, closing, stripped)
    raise ValueError("this chat template changes the text it is given, or its prompt; write a format with {question}")


@functools.lru_cache(maxsize=8)
def _opening(tokenizer):
    """(before, after, stripped) a system prompt in the opening of the tokenizer's chat template; None where it takes
    none, as Gemma's, or puts it anywhere but before the question."""
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
    """Has the format a place for a system prompt?"""
    return template == CHAT and _opening(tokenizer) is not None


def frame(tokenizer, template):
    """The `Frame` of a template; "chat" is the tokenizer's own, see `_chat` for what is raised."""
    return _chat(tokenizer) if template == CHAT else cut(template)


@functools.lru_cache(maxsize=8)
def _literal(tokenizer):
    """(a twin of the tokenizer in which each control token is spelled as no text is, {control token: that spelling},
    {id of the twin: id}). Everything else is the same: normalisation, merges, what opens a text."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    added, state["added_tokens"] = state["added_tokens"], []
    spelled = {t["content"]: f"\ue000{t['id']}\ue001" for t in added if t["special"]}
    twin = Tokenizer.from_str(json.dumps(state | {"truncation": None, "padding": None}))
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    twin.add_tokens([AddedToken(spelled.get(t["content"], t["content"]), **{f: t[f] for f in flags}) for t in added])
    return twin, spelled, {twin.token_to_id(spelled.get(t["content"], t["content"])): t["id"] for t in added}


def _ids(tokenizer, parts, special=False):
    """Token ids of strings laid end to end; those at even places are the format's, those at odd places are text.

    special: let the tokenizer add what it opens a text with.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:  # not one of the library `tokenizers`
        return list(tokenizer("".join(parts), add_special_tokens=special)["input_ids"])
    twin, spelled, true = _literal(tokenizer)
    if spelled:
        control = re.compile("|".join(map(re.escape, sorted(spelled, key=len, reverse=True))))
        parts = [p if i % 2 else control.sub(lambda m: spelled[m[0]], p) for i, p in enumerate(parts)]
    return [true.get(i, i) for i in twin.encode("".join(parts), add_special_tokens=special).ids]


def _text(stripped, text):
    return text.strip() if stripped else text


def _opened(tokenizer, template, *parts):
    """Token ids of a prompt, or of one and its answer, not closed. In a template of one's own the begin-of-text token
    opens it, where the tokenizer has one that is not its end-of-text token too, as GPT-2's and Phi's is; a chat
    template brings its own."""
    ids = _ids(tokenizer, parts, special=template != CHAT)
    if template == CHAT:
        return tuple(ids)
    ids = ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids
    bos, opened = tokenizer.bos_token_id, ids[:1] == [tokenizer.bos_token_id]
    return tuple(ids) if opened or bos in (None, tokenizer.eos_token_id) else (bos, *ids)


def encode_prompt(tokenizer, template, question, system=None):
    """Token ids of the prompt, not closed; see `_opened` for what opens it. system: a system prompt, in place of the
    one that the format may bring; left out unless the format `takes_system`."""
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
    """Token ids of the answer, closed by `end_token`: as they follow the prompt, which is how TOFU's models read them
    (Llama 2's tokenizer would put a blank before an answer that stands alone); else tokenised apart."""
    form, end = frame(tokenizer, template), end_token(tokenizer, template)
    after = (form.lead, _text(form.stripped, answer), form.closing)
    prompt = _asked(tokenizer, template)
    whole = _opened(tokenizer, template, form.opening, "?", form.middle + form.lead, *after[1:])
    ids = whole[len(prompt) :] if whole[: len(prompt)] == prompt else tuple(_ids(tokenizer, after))
    return (ids[: ids.index(end)] if end in ids else ids) + (end,)


@functools.lru_cache(maxsize=8)
def end_token(tokenizer, template):
    """Id of the token that closes an answer: the first control token after it in a chat, else end-of-text."""
    if template != CHAT:
        return tokenizer.eos_token_id
    control = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return next((i for i in _ids(tokenizer, (_chat(tokenizer).closing,)) if i in control), tokenizer.eos_token_id)
