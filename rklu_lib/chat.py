"""Formats of a question and its answer, as token ids: a template of one's own, or the tokenizer's chat template.

A control token (`</s>`, `<|im_end|>`) belongs to the format. What looks like one inside a question or an answer is text
and is tokenised as ordinary characters: a forgotten answer cannot end in its middle, nor a question open a turn.
"""

import functools
import json
import re
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer

CHAT = "chat"  # as a template: the tokenizer's own
DATE = "10 Apr 2025"  # for formats that tell the model the day: a prompt must not differ from one day to the next
_QUESTION, _ANSWER, _PROBE = "\ue002", "\ue003", ' Who\'s "{x}"?\n\nA: <b>1</b> '


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


@functools.lru_cache(maxsize=8)
def _chat(tokenizer):
    """The `Frame` of the tokenizer's chat template. Raises ValueError where there is none or one that rewrites text."""
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError("this tokenizer has no chat template; name a format, such as 'Q: {question}\\nA: {answer}'")

    def written(question, answer=None):
        said = [] if answer is None else [{"role": "assistant", "content": answer}]
        turns = [{"role": "user", "content": question}, *said]
        options = {"tokenize": False, "add_generation_prompt": not said, "date_string": DATE}
        return tokenizer.apply_chat_template(turns, **options)

    prompt, whole = written(_QUESTION), written(_QUESTION, _ANSWER)
    opening, _, middle = prompt.partition(_QUESTION)
    lead, _, closing = whole.removeprefix(prompt).partition(_ANSWER)
    for stripped in (False, True):
        text = _PROBE.strip() if stripped else _PROBE
        asked = opening + text + middle
        if written(_PROBE) == asked and written(_PROBE, _PROBE) == asked + lead + text + closing:
            return Frame(opening, middle, lead, closing, stripped)
    raise ValueError("this chat template changes the text it is given, or its prompt; write a format with {question}")


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


def _text(form, text):
    return text.strip() if form.stripped else text


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


def encode_prompt(tokenizer, template, question):
    """Token ids of the prompt, not closed; see `_opened` for what opens it."""
    form = frame(tokenizer, template)
    return _opened(tokenizer, template, form.opening, _text(form, question), form.middle)


def encode_answer(tokenizer, template, answer):
    """Token ids of the answer, closed by `end_token`: as they follow the prompt, which is how TOFU's models read them
    (Llama 2's tokenizer would put a blank before an answer that stands alone); else tokenised apart."""
    form, end = frame(tokenizer, template), end_token(tokenizer, template)
    after = (form.lead, _text(form, answer), form.closing)
    prompt = _opened(tokenizer, template, form.opening, "?", form.middle)
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
