"""Read pairs, chats and documents, from files or the hub, as text; then tokenise them.

Files are not read with `datasets`, which would leave a copy of private data in its cache, and would turn an answer such
as "007" in a CSV into a number. A data set on the hub is read with `datasets`."""

import csv
import hashlib
import io
import json
import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from rklu_lib import chat, data, files, hub
from rklu_lib.robustness import sampling

PAIRS = (("question", "answer"), ("prompt", "completion"), ("prompt", "response"))
DOCUMENTS = (".txt", ".md")
KINDS = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet", *DOCUMENTS)
CHUNK = 512  # a document is cut into examples of at most so many tokens
_SHAPES = "give question and answer, or messages (a chat), or text (a document)"
_TWICE = "a row that stood there already is taken once"
_OPTIONAL = ("system", "paraphrases", "paraphrased_question", "secret", "paraphrased_answer", "perturbed_answer")


@dataclass(frozen=True)
class Item:
    """A question with its answer; or, with question None, a document or part of one. where: file and line or row.
    system: a chat's system prompt. paraphrases: other wordings of the question, asked but never trained on. secret: the
    words that give the answer away. For `rklu attack` only: right and wrong, the paraphrased and the wrong answers of
    TOFU's rows (`paraphrased_answer`, `perturbed_answer`), from which the truth ratio is computed."""

    question: str | None
    answer: str
    where: str
    system: str | None = None
    paraphrases: tuple[str, ...] = ()
    secret: str | None = None
    right: str | None = None
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """The data of one set, as the forget set. sources: {"name", "rows", "sha256"} of each. notes: what was left out."""

    items: tuple[Item, ...] = ()
    sources: tuple[dict, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self):
        return len(self.items)


def read(given):
    """Return the `Corpus` of one or several files, hub ids (owner/name[:config[:split]]) or rows (dicts).

    A row is a pair (see `PAIRS`), a chat {"messages": [{"role", "content"}, ...]}, each answer of which becomes an
    item, or a document {"text"}. Of equal items the first is kept.
    Raises FileNotFoundError, or DataError, which names file, line, field and fix."""
    given = [given] if isinstance(given, str | Path | dict) else list(given or ())
    parts = [(g, *_load(str(g))) for g in given if not isinstance(g, dict)]
    if rows := [g for g in given if isinstance(g, dict)]:
        parts.append(("rows", _digest(rows), [(f"row {i}", row) for i, row in enumerate(rows, 1)]))
    items, sources, left_out = [], [], Counter()
    for name, sha256, found in parts:
        if not found:
            raise data.DataError(f"{name}: no rows; {_SHAPES}")
        items += [item for where, row in found for item in _items(row, where, left_out)]
        sources.append({"name": Path(str(name)).name, "rows": len(found), "sha256": sha256})
    once = {}
    for item in items:
        left_out.update([_TWICE] if once.setdefault(replace(item, where=""), item) is not item else [])
    return Corpus(tuple(once.values()), tuple(sources), tuple(f"{what} ({n}×)" for what, n in left_out.items()))


def _digest(rows):
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False, sort_keys=True, default=str).encode()).hexdigest()


def _load(source):
    """Return (sha256, [(where, row), ...]) of a file, or of a data set on the hub."""
    path, kind = Path(source), Path(source).suffix.lower()
    if path.is_dir():
        raise data.DataError(f"{source} is a folder; name its files, repeating the option")
    if not path.is_file():
        if kind not in KINDS and re.fullmatch(r"[\w-]+/[\w.-]+(:[\w.-]+){0,2}", source):
            rows = _hub(*source.split(":"))
            return _digest(rows), [(f"{source}, row {i}", row) for i, row in enumerate(rows, 1)]
        fix = f"name a file ({', '.join(KINDS)}), or a data set on the hub as owner/name:config:split"
        raise FileNotFoundError(f"{source} does not exist; {fix}")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if kind == ".parquet":
        return sha256, [(f"{source}, row {i}", row) for i, row in enumerate(_parquet(path), 1)]
    try:
        text = data.read_text(source)
        if kind in DOCUMENTS:
            return sha256, [(source, {"text": text})]
        if kind in (".csv", ".tsv"):
            return sha256, _csv(text, source)
        return sha256, _array(text, source) if text.lstrip().startswith("[") else list(data.json_lines(text, source))
    except data.DataError as error:
        other = f"{str(error).rsplit('; ', 1)[0]}; export it as CSV, JSON lines or .txt"
        raise data.DataError(str(error) if kind in KINDS else other) from None


def _hub(name, config=None, split=None):
    try:
        found = hub.dataset(name, config, split=split, fix="download it as a file, and name that")
    except ImportError:
        raise data.DataError(f"{name}: a data set on the hub needs datasets: pip install 'rklu-lib[hub]'") from None
    except (ValueError, OSError, ConnectionError) as error:  # their messages have several lines
        raise data.DataError(f"{name}: {files.first_line(error)} (name it as owner/name:config:split)") from None
    if isinstance(found, dict) and len(found) > 1:
        example = f"{name}:{config or 'default'}:{next(iter(found))}"
        raise data.DataError(f"{name} has the splits {', '.join(found)}; name one, such as {example}")
    return (next(iter(found.values())) if isinstance(found, dict) else found).to_list()


def _parquet(path):
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise data.DataError(f"{path}: Parquet needs pyarrow: pip install 'rklu-lib[hub]'") from None
    try:
        return parquet.read_table(path).to_pylist()
    except ArrowException as error:
        raise data.DataError(f"{path}: not Parquet ({files.first_line(error)})") from None


def _csv(text, path):
    """Return [(where, row), ...] of a CSV with a header line. Separators: comma, semicolon or tab. Fields stay text."""
    above = len(text) - len(text := text.lstrip("\n"))  # count the empty lines above the header
    header = text.split("\n", 1)[0]
    csv.field_size_limit(2**31 - 1)  # a field may hold a document
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
    rows = []
    try:
        reader.fieldnames = names = [name.strip() for name in reader.fieldnames or ()]
        if twice := [name for name in names if names.count(name) > 1]:
            raise data.DataError(f"{path}:{above + 1}: column {twice[0]!r} occurs twice; rename one")
        for row in reader:
            where = f"{path}:{above + reader.line_num}"
            if None in row or None in row.values():
                n = f"{len(reader.fieldnames)} columns"
                raise data.DataError(f"{where}: the header has {n}, this row has not; quote fields with the separator")
            if any(row.values()):  # spreadsheets write rows that hold only separators
                rows.append((where, row))
    except csv.Error as error:
        last = above + reader.line_num
        raise data.DataError(f"{path}, after line {last}: {error}; quote fields as CSV does") from None
    return rows


def _array(text, path):
    try:
        return [(f"{path}, row {i}", row) for i, row in enumerate(json.loads(text), 1)]
    except (ValueError, RecursionError) as error:
        raise data.DataError(f"{path}:{getattr(error, 'lineno', 1)}: not JSON ({files.why(error)})") from None


def _items(row, where, left_out):
    """Return the items of one row. Count in `left_out` fields that are not read, and later turns of a chat."""
    if not isinstance(row, dict):
        raise data.DataError(f"{where}: expected an object, found {type(row).__name__}; {_SHAPES}")
    question, answer = max(PAIRS, key=lambda pair: len(set(pair) & set(row)))
    paired = "messages" not in row and bool({question, answer} & set(row))
    read = (question, answer, *_OPTIONAL) if paired else ("messages" if "messages" in row else "text",)
    unread = [k for k, v in row.items() if k not in read and v not in (None, "")]
    left_out.update(f"field {data.shortened(k)} is not read" for k in unread)
    if "messages" in row:
        return _chat(row["messages"], where, left_out)
    if paired:
        data.checked(row, (question, answer), where)
        system = data.checked(row, ("system",), where)["system"] if row.get("system") else None
        return [Item(row[question], row[answer], where, system, _paraphrases(row, where), *_answers(row, where))]
    if "text" not in row:
        names = ", ".join(map(str, row)) or "none"
        raise data.DataError(f"{where}: no field that is known here, only {names}; {_SHAPES}")
    return [Item(None, data.checked(row, ("text",), where)["text"], where)]


def _paraphrases(row, where):
    """Return other wordings of a row's question: the field `paraphrases` (a list) or TOFU's `paraphrased_question`."""
    field = next((f for f in ("paraphrases", "paraphrased_question") if row.get(f)), None)
    given = row[field] if field else []
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(q, str) and q.strip() for q in given):
        raise data.DataError(f"{where}: field {field!r} must be a list of questions, not {data.shortened(row[field])}")
    return tuple(given)


def _answers(row, where):
    """Return (secret, right, wrong) of a row, see `Item`. Wrong answers that are not a list (in a CSV) are ignored."""
    wrong = row.get("perturbed_answer") if isinstance(row.get("perturbed_answer"), list) else []
    fields = [f for f in ("secret", "paraphrased_answer") if row.get(f)] + ["perturbed_answer"] * bool(wrong)
    data.checked(row, fields, where)
    return row.get("secret") or None, row.get("paraphrased_answer") or None, tuple(wrong)


def _chat(messages, where, left_out):
    """Return an `Item` for each answer of a chat, with the question just before it and the system prompt."""
    if not isinstance(messages, list) or not messages:
        raise data.DataError(f"{where}: field 'messages' must be a non-empty list, found {data.shortened(messages)}")
    items, asked, system = [], None, None
    for number, message in enumerate(messages, 1):
        at = f"{where}, message {number}"
        data.checked(message, ("role",), at)
        if isinstance(message.get("content"), list):  # parts, as for a multimodal model
            parts = [p.get("text") if isinstance(p, dict) else p for p in message["content"]]
            message = message | {"content": "".join(parts) if all(isinstance(p, str) for p in parts) else parts}
        role, said = message["role"], message.get("content") != "" or message["role"] not in ("system", "developer")
        content = data.checked(message, ("content",), at)["content"] if said else ""  # an empty system prompt is valid
        if role in ("system", "developer") and number == 1:
            system = content
        elif role == "user" and asked is None:
            asked = content
        elif role == "assistant" and asked is not None:
            left_out.update(["a later turn of a chat is asked without the turns before it"] if items else [])
            items.append(Item(asked, content, at if items else where, system))
            asked = None
        else:
            turns = "a chat is one system prompt at most, then user and assistant by turns"
            raise data.DataError(f"{at}: role {data.shortened(role)} here; {turns}")
    if asked is not None or not items:
        raise data.DataError(f"{where}: the chat ends without an answer; what is forgotten is the assistant's")
    return items


def encode(corpus, tokenizer, template, limit=math.inf):
    """Return (examples, items) of a corpus, one item per `data.Example`. A pair is one example. A document is cut into
    about equal parts of at most min(CHUNK, limit - 1) tokens. limit: how many tokens the model reads.

    Raises DataError for a document of fewer than 2 tokens, and for a pair too long for `models.check_lengths`."""
    examples, items = [], []
    longest = max(map(len, tokenizer.get_vocab()))  # characters per token: refuse without tokenising
    for item in corpus.items:
        if item.question is not None:
            if (least := (len(item.question) + len(item.answer)) // longest) > limit:
                fix = 'Shorten it, make several pairs of it, or give it as {"text": …}, which is split'
                raise data.DataError(f"{item.where}: at least {least} tokens; the model reads {limit}. {fix}")
            examples.append(data.encode(tokenizer, template, item.question, item.answer, item.system))
            items.append(item)
            continue
        ids = tokenizer(item.answer, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        if len(ids) < 2:
            raise data.DataError(f"{item.where}: a document of {len(ids)} token; there is nothing to predict in it")
        n = -(-len(ids) // min(CHUNK, limit - 1))
        for number, chunk in enumerate(np.array_split(ids, n), 1):
            examples.append(data.passage(tokenizer, tuple(chunk.tolist())))
            part = f", part {number} of {n}" if n > 1 else ""
            items.append(Item(None, tokenizer.decode(chunk) if n > 1 else item.answer, item.where + part))
    return examples, items


def paraphrased(items, tokenizer, template):
    """Return an example for each paraphrase of each item, in order: a paraphrased question with the item's answer."""
    return [data.encode(tokenizer, template, q, i.answer, i.system) for i in items for q in i.paraphrases]


def unplaced(corpus, tokenizer, template):
    """Return notes on what `encode` leaves out: system prompts, if the prompt format has no place for one."""
    n = sum(i.system is not None for i in corpus.items)
    note = f"a system prompt is left out ({n}×): the format of these prompts has no place for one"
    return (note,) if n and not chat.takes_system(tokenizer, template) else ()


def unsaid(items):
    """Return a note on secrets that their own answer does not contain, with the first one's file and row."""
    rows = [Path(i.where).name for i in items if i.secret and not sampling.leaks([i.answer], i.secret)]
    why = f"field 'secret' is not in the answer ({len(rows)}×): it leaks only where it is said as it stands there"
    return (f"{rows[0]}: {why}",) if rows else ()


def check_apart(corpora):
    """Raise DataError if the forget set is empty, or if two corpora of {set: corpus} share a question, paraphrase or
    document (but for case and blanks). Only watch and holdout, which are never trained on, may overlap."""
    if "forget" in corpora and not corpora["forget"]:
        raise data.DataError(f"the forget set has no rows; {_SHAPES}")
    known = {}
    for name, corpus in corpora.items():
        texts = ((text, i.where) for i in corpus.items for text in (i.question or i.answer, *i.paraphrases))
        known[name] = {" ".join(text.split()).casefold(): where for text, where in texts}
    for one, other in combinations(known, 2):
        if {one, other} != {"watch", "holdout"} and (both := [t for t in known[one] if t in known[other]]):
            places = " and ".join(f"{known[name][both[0]]} (--{name})" for name in (one, other))
            what = f"{places} are the same, {data.shortened(both[0])}, one of {len(both)} in both"
            raise data.DataError(f"{what}; take what is shared out of one")
