"""TOFU's splits, tokenised examples whose answers are scored, and batches of examples of similar length.

A source is `fictional` (embedded, made by this project), a folder in the hub's layout (JSON lines, one file per split)
or a hub id such as `locuslab/TOFU`. `describe_source` says which one is used. There is no fallback to another source.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from rklu_lib import files, hub
from rklu_lib.chat import encode_answer, encode_prompt

CHECKOUT = Path(__file__).resolve().parents[1]
_WHEEL = Path(__file__).with_name("embedded")  # a wheel has `data/` inside the package, see setup.py
ROOT = Path.cwd() if _WHEEL.is_dir() else CHECKOUT  # where records and runs lie: never in an installed package
EMBEDDED = _WHEEL if _WHEEL.is_dir() else ROOT / "data"
FICTIONAL = EMBEDDED / "fictional"
PASSAGES = EMBEDDED / "passages"
REFUSALS = EMBEDDED / "refusals.txt"
NOVEL = "novel"  # the forget split of the task "passages"
ORACLE_SPLIT = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}
HOLDOUT_SPLIT = {"forget01": "holdout01", "forget05": "holdout05", "forget10": "holdout10"}  # authors in no other split
_OPTIONS = ("perturbed_answer",)
_PARAPHRASED = ("paraphrased_answer", "paraphrased_question", *_OPTIONS)
_PLAIN = ("full", *ORACLE_SPLIT, *ORACLE_SPLIT.values(), *HOLDOUT_SPLIT.values(), "real_authors", "world_facts")
FIELDS = {name: ("question", "answer") for name in _PLAIN}
FIELDS |= {f"{name}_perturbed": ("question", "answer", *_PARAPHRASED) for name in (*ORACLE_SPLIT, "retain")}
FIELDS |= {f"{name}_perturbed": ("question", "answer", *_OPTIONS) for name in ("real_authors", "world_facts")}


class DataError(ValueError):
    """A data file that cannot be used; the message names the file, the line, the field and the fix."""


def resolve_source(source):
    """Return the source to read: for `locuslab/TOFU` the folder in `RKLU_TOFU`, if set; otherwise `source` itself."""
    if source == "locuslab/TOFU" and (named := os.environ.get("RKLU_TOFU")):
        if not Path(named).is_dir():
            raise FileNotFoundError(f"RKLU_TOFU is {named}, which is no folder; it holds full.json, forget10.json, …")
        return named
    return source


def load_tofu(split, source="locuslab/TOFU"):
    """Return one split of TOFU as a list of dicts with the fields of `FIELDS[split]`.

    source: `fictional`, a folder with `<split>.json`, or a hub id. Raises ValueError for a split that is not in TOFU or
    a source that is none of the three, FileNotFoundError for a missing file, DataError for a malformed row."""
    if split not in FIELDS:
        raise ValueError(f"TOFU has no split {split!r}; it has {', '.join(FIELDS)}")
    source = resolve_source(source)
    folder = FICTIONAL if source == "fictional" else Path(source)
    if folder.is_dir():
        return _even(read_json_lines(folder / f"{split}.json", FIELDS[split]), f"{folder / split}.json")
    if not re.fullmatch(r"[\w-]+/[\w.-]+", str(source)):
        raise ValueError(f"{source!r} is neither 'fictional', nor an existing folder, nor a hub id (owner/name)")
    fix = "name a folder in the hub's layout: export RKLU_TOFU=path/to/folder"
    rows = hub.dataset(source, split, split="train", fix=fix).to_list()
    return _even([checked(row, FIELDS[split], f"{source}, {split}, row {i}") for i, row in enumerate(rows, 1)], source)


def _even(rows, where):
    """Return the rows. Raises DataError unless all have equally many wrong answers: truth ratios need an array."""
    counts = [len(row.get("perturbed_answer", ())) for row in rows]
    if odd := next((i for i, n in enumerate(counts) if n != counts[0]), 0):
        raise DataError(f"{where}, row {odd + 1}: {counts[odd]} wrong answers, but {counts[0]} in row 1; give as many")
    return rows


def describe_source(source):
    """Return what records keep of a source: {"source": name, no local path, "sha256": 16 hex digits, of `full`}."""
    resolved = resolve_source(source)
    local = resolved != "fictional" and Path(resolved).is_dir()
    rows = load_tofu("full", source)
    text = json.dumps([[row["question"], row["answer"]] for row in rows], ensure_ascii=False)
    return {
        "source": "folder in the hub's layout" if local else resolved,
        "sha256": hashlib.sha256(text.encode()).hexdigest()[:16],
    }


def describe_text(text):
    """Return what records keep of a novel: {"novel": embedded or not (no path), "novel_sha256": 16 hex digits}."""
    digest = hashlib.sha256(load_novel(text).encode()).hexdigest()[:16]
    return {"novel": "fictional" if text == "fictional" else "the reader's own file", "novel_sha256": digest}


def read_json_lines(path, fields=("question", "answer")):
    """Return the rows of a JSON-lines file, dicts with at least `fields`. Raises FileNotFoundError or DataError."""
    text = read_text(path, "a folder in TOFU's layout holds one JSON-lines file per split")
    rows = [checked(row, fields, where) for where, row in json_lines(text, path)]
    if not rows:
        raise DataError(f"{path}: no rows; expected one JSON object per line with {', '.join(fields)}")
    return rows


def json_lines(text, path):
    """Yield ("path:line number", value) of each line that is not blank. Raises DataError if a line is not JSON."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield f"{path}:{number}", json.loads(line)
        except (ValueError, RecursionError) as error:
            fix = "write one object per line, or an array"
            raise DataError(f"{path}:{number}: not JSON ({files.why(error)}); {fix}") from None


def checked(row, fields, where):
    """Return the row if its `fields` hold text (perturbed_answer: a list), else raise DataError, naming `where`."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with {', '.join(fields)}, found {type(row).__name__}")
    for field in fields:
        if field not in row:
            raise DataError(f"{where}: field {field!r} is missing; the row has {', '.join(row) or 'no fields'}")
        value, plural = row[field], field == "perturbed_answer"
        for text in value if plural and isinstance(value, list) else [value]:
            if not isinstance(text, str) or not text.strip():
                kind = "a list of non-empty strings" if plural else "a non-empty string"
                raise DataError(f"{where}: field {field!r} must be {kind}, found {shortened(text)}; correct the row")
            if any("\ud800" <= c <= "\udfff" for c in text):
                why = "holds half a character (a lone \\ud800 to \\udfff); write it whole"
                raise DataError(f"{where}: field {field!r} {why}")
        if plural and not (isinstance(value, list) and value):
            raise DataError(f"{where}: field {field!r} must be a non-empty list of wrong answers, found {value!r}")
    return row


def shortened(value):
    """Return a value as error messages quote it: its repr, cut after 60 characters to fit one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def printable(text):
    """Return text that is safe for a terminal: escapes, control characters and direction marks are spelled out."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def read_text(path, hint="name a UTF-8 text file"):
    """Return the text of a UTF-8 file, without a byte-order mark. Raises FileNotFoundError, DataError if not UTF-8."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} {'is a folder' if Path(path).is_dir() else 'does not exist'}; {hint}")
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        fix = f"convert the file to UTF-8 (the byte is in line {line})"
        raise DataError(f"{path}: byte {error.start} is not UTF-8; {fix}") from None


def novel_path(text):
    """Return the novel's file: embedded if "fictional", `RKLU_NOVEL` if "own" (ValueError if no file), else `text`."""
    if text == "own" and not Path(os.environ.get("RKLU_NOVEL", "")).is_file():
        now = os.environ.get("RKLU_NOVEL")
        now = f", not to {now}, which is no file" if now else "; no novel is shipped"
        raise ValueError(f"set RKLU_NOVEL to a UTF-8 text file that you may use{now}")
    return {"fictional": PASSAGES / "novel.txt", "own": Path(os.environ.get("RKLU_NOVEL", ""))}.get(text, Path(text))


def load_novel(text):
    """Return the novel in `novel_path(text)`. Of a Project Gutenberg file, the header, the licence and the line breaks
    within paragraphs are removed. Raises FileNotFoundError, or DataError if the file is not UTF-8."""
    text = read_text(novel_path(text))
    body = re.search(r"(?s)\*\*\* ?START OF TH[^\n]*\n(.*?)\*\*\* ?END OF TH", text)
    return re.sub(r"(?<!\n)\n(?!\n)", " ", body[1]).strip() if body else text


def load_prose(split, source):
    """Return general text, split "valid" or "test". source: `fictional` (embedded), a folder with `<split>.txt`, or
    WikiText-2's hub id, for which `RKLU_WIKITEXT` may name a folder. Raises FileNotFoundError, DataError."""
    if source == "Salesforce/wikitext" and (named := os.environ.get("RKLU_WIKITEXT")):
        if not Path(named).is_dir():
            raise FileNotFoundError(f"RKLU_WIKITEXT is {named}, which is no folder; it holds valid.txt and test.txt")
        source = named
    folder = PASSAGES if source == "fictional" else Path(source)
    if folder.is_dir():
        return read_text(folder / f"{split}.txt")
    name = {"valid": "validation"}.get(split, split)
    fix = "name a folder with valid.txt and test.txt: export RKLU_WIKITEXT=path/to/folder"
    return "".join(hub.dataset(source, "wikitext-2-raw-v1", split=name, fix=fix)["text"])


def chunks(text, n_chunks, chunk_tokens, tokenizer, where):
    """Return the first `n_chunks` chunks of `chunk_tokens` tokens of a text, as tuples of token ids. Raises DataError,
    whose message names the text's source `where`, if the text is too short."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if len(ids) < chunk_tokens:
        raise DataError(f"{where}: {len(ids)} tokens, but one chunk has {chunk_tokens}; take a longer text")
    if len(ids) < n_chunks * chunk_tokens:
        fit = len(ids) // chunk_tokens
        raise DataError(f"{where}: {fit} chunks of {chunk_tokens} tokens, not {n_chunks}; ask for {fit} or fewer")
    return [tuple(ids[i * chunk_tokens : (i + 1) * chunk_tokens]) for i in range(n_chunks)]


def refusals():
    """Return the project's list of refusals, from which IDK and DPO draw (TOFU's own list is not on the hub)."""
    return REFUSALS.read_text(encoding="utf-8").split("\n")[:-1]


@dataclass(frozen=True)
class Example:
    """Token ids of a prompt and of the answer, which is scored (with the end-of-text token, unless it is a passage)."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def __len__(self):
        return len(self.prompt) + len(self.answer)


def passage(tokenizer, chunk, prompt_tokens=0):
    """Return a chunk of text as an `Example`: its first `prompt_tokens` are the prompt, the rest is scored.

    The begin-of-text token opens the prompt; if the tokenizer has none, the first token is not scored. No end-of-text
    token follows."""
    opening = () if tokenizer.bos_token_id is None else (tokenizer.bos_token_id,)
    cut = prompt_tokens or 1 - len(opening)
    return Example((*opening, *chunk[:cut]), chunk[cut:])


def encode(tokenizer, template, question, answer, system=None):
    """Return one question-answer pair as an `Example`. system: see `chat.encode_prompt`.

    The prompt in training has exactly the same tokens as the prompt in generation."""
    return Example(encode_prompt(tokenizer, template, question, system), encode_answer(tokenizer, template, answer))


@dataclass(frozen=True)
class Batch:
    """Examples padded on the right, each without its last token. `mask` is True where the NEXT token is scored.

    input_ids: (batch, seq) int64. mask: (batch, seq) bool. targets: (tokens,) int64, all scored tokens laid end to end.
    rows: (tokens,) int64, each token's row. index: for each row, its place in the list that the batch was drawn from.
    """

    input_ids: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor
    index: tuple[int, ...]

    def to(self, device):
        return Batch(*(t.to(device) for t in (self.input_ids, self.mask, self.targets, self.rows)), self.index)


def collate(examples, index):
    """Return the `Batch` of examples[i] for i in index."""
    chosen = [examples[i] for i in index]
    tokens = [torch.tensor(e.prompt + e.answer) for e in chosen]
    scored = [torch.arange(1, len(t)) >= len(e.prompt) for t, e in zip(tokens, chosen, strict=True)]
    input_ids, mask = (pad_sequence(x, batch_first=True) for x in ([t[:-1] for t in tokens], scored))
    targets = torch.tensor([t for e in chosen for t in e.answer])
    return Batch(input_ids, mask, targets, mask.nonzero()[:, 0], tuple(int(i) for i in index))


def epoch_order(lengths, batch_size, seed, epoch, pool=16):
    """Return the index lists of one epoch's batches, shuffled, with similar lengths in each batch.

    Examples are shuffled, then sorted by length within pools of `pool` batches; then batches are shuffled. So the order
    is random with little padding. It depends on (seed, epoch) alone, so it is the same after an interruption."""
    rng = np.random.default_rng((seed, epoch))
    order, span = rng.permutation(len(lengths)), batch_size * pool
    batches = []
    for start in range(0, len(order), span):
        chunk = sorted(order[start : start + span], key=lambda i: lengths[i])
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def batches(examples, batch_size, seed=0, epoch=0):
    """Return one epoch of `Batch`es over `examples`, in the order of `epoch_order`."""
    return [collate(examples, index) for index in epoch_order(list(map(len, examples)), batch_size, seed, epoch)]
