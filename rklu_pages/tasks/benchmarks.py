"""Read the paper's seven benchmarks from their published files, as rows for lm-evaluation-harness's tasks.

The rows have the fields of the harness's own data set, word for word, so that its task configuration (prompt, options,
target) applies unchanged. An item that cannot be rebuilt with certainty is left out and counted; nothing is guessed.
"""

import bz2
import contextlib
import json
import re
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from rklu_lib.data import DataError

FILES = {
    "piqa": "piqa.json",
    "hellaswag": "hellaswag_val_full.txt.bz2",
    "arc_easy": "arc-easy.json",
    "arc_challenge": "arc-challenge.json",
    "copa": "balanced-copa-dev-all.xml",
    "wsc273": "WSCollection.xml",
    "mathqa": "mathqa.json",
}
CHOOSE = "Please choose the correct {} to the question: "
SENTENCES = r".*[.!?][\"')\]]*"


def rows(task, folder):
    """Return (rows, left out) of one task: dicts in the file's order (COPA: 401 to 500 first), and items omitted.

    Raises FileNotFoundError, or DataError for a malformed file or one of which no item could be rebuilt.
    """
    path = Path(folder) / FILES[task]
    if not path.is_file():
        known = ", ".join(FILES.values())
        raise FileNotFoundError(f"{path} does not exist; a folder of the published files holds {known}")
    found = list(_READERS[task](path))
    kept = [row for row in found if row]
    if not kept:
        raise DataError(f"{path}: none of {len(found)} items could be rebuilt; take the file as it is published")
    return kept, len(found) - len(kept)


@contextlib.contextmanager
def folder_of(tasks, folder):
    """`with folder_of(tasks, folder) as (ready, counts)`: a folder of `<task>.jsonl`, and the numbers of items.

    If `folder` holds published files, `ready` is a temporary folder made from them, and `counts` is {task: {"rebuilt",
    "left_out"}}. Any other folder, and None (the hub), is passed on as it is, with empty `counts`.
    """
    if folder is None or not any((Path(folder) / name).exists() for name in FILES.values()):
        yield folder, {}
        return
    with tempfile.TemporaryDirectory() as ready:
        counts = {}
        for task in tasks:
            kept, left_out = rows(task, folder)
            counts[task] = {"rebuilt": len(kept), "left_out": left_out}
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
            (Path(ready) / f"{task}.jsonl").write_text(lines, encoding="utf-8")
        yield ready, counts


def _instructions(path):
    """Yield (instruction, answer) of each item of an instruction-formatted file."""
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise DataError(f"{path}: not JSON ({error}); take the file as it is published") from None
    if not isinstance(items, list):
        raise DataError(f"{path}: expected a list of objects with instruction and answer, found {type(items).__name__}")
    for number, item in enumerate(items, 1):
        for field in ("instruction", "answer"):
            value = item.get(field) if isinstance(item, dict) else None
            if not isinstance(value, str):
                raise DataError(f"{path}, item {number}: field {field!r} must be text, found {value!r}")
        yield item["instruction"], item["answer"]


def _parts(text, *openings):
    """Split a text at blank lines and strip each part's opening; None unless parts and openings match one by one."""
    parts = text.split("\n\n")
    if len(parts) == len(openings) and all(map(str.startswith, parts, openings)):
        return [part.removeprefix(opening) for part, opening in zip(parts, openings, strict=True)]
    return None


def _piqa(path):
    for text, answer in _instructions(path):
        parts = _parts(text, CHOOSE.format("solution"), "Solution1: ", "Solution2: ", "Answer format: ")
        whole = parts and answer in ("solution1", "solution2")
        yield dict(zip(("goal", "sol1", "sol2"), parts[:3], strict=True), label=int(answer[-1]) - 1) if whole else None


def _arc(path):
    """Yield ARC's rows. Labels A to E replace answer1 to answer5, since the harness uses only the right one's place."""
    for text, answer in _instructions(path):
        question, options, form = _parts(text, CHOOSE.format("answer"), "Answer1: ", "Answer format: ") or ("", "", "")
        options, *rest = re.split(r" Answer(\d): ", options)
        options, names = [options, *rest[1::2]], ["answer1", *(f"answer{digit}" for digit in rest[::2])]
        labels = list("ABCDE"[: len(options)])
        known = names == [f"answer{k}" for k in range(1, len(labels) + 1)] and form == "/".join(names)
        yield {
            "question": question,
            "choices": {"text": options, "label": labels},
            "answerKey": labels[names.index(answer)],
        } if known and answer in names else None  # fmt: skip


def _mathqa(path):
    """Yield MathQA's rows. The file's options have a to f in capitals; MathQA has no capitals, so all is lowered."""
    for text, answer in _instructions(path):
        problem, *options = text.split(" The options: ")
        known = len(options) == 1 and problem == problem.lower() and not re.search("[a-fG-Z]", options[0])
        known = known and re.search(r"A \) .*B \) .*C \) .*D \) .*E \) ", options[0]) and answer in list("ABCDE")
        yield {"Problem": problem, "options": options[0].lower(), "correct": answer.lower()} if known else None


def _hellaswag(path):
    """Yield HellaSwag's rows, from six lines per item. The harness capitalises `ctx_b`, the unfinished last sentence,
    which ends the context in lower case here. The harness also removes marks in brackets, as the file already did; an
    item that this would change again is left out."""
    try:
        lines = bz2.decompress(path.read_bytes()).decode("utf-8").removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not UTF-8 text compressed by bzip2 ({error}); take the published file") from None
    for start in range(0, len(lines), 6):
        context, label, *endings = lines[start : start + 6]
        if len(endings) != 4 or label not in list("0123") or ": " not in context:
            why = 'six lines an item: "activity: context", the right ending\'s number (0 to 3), four endings'
            raise DataError(f"{path}:{start + 1}: expected {why}; found {context[:40]!r}, {label[:40]!r}")
        activity, context = context.split(": ", 1)
        split = re.fullmatch(f"({SENTENCES}) ([a-z][^.!?]*)", context) or re.fullmatch(f"({SENTENCES})()", context)
        known = split and not any(re.search(r"\[.*?\]|  |^ | $", text) for text in (activity, context, *endings))
        yield {
            "activity_label": activity, "ctx_a": split[1], "ctx_b": split[2], "endings": endings, "label": label
        } if known else None  # fmt: skip


def _elements(path, kind):
    """Yield (element, text) of the elements of one kind; text(path) returns the text at a path inside the element."""
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: not XML ({error}); take the file as it is published") from None
    for number, element in enumerate(root.iter(kind), 1):

        def text(inside, required=True, element=element, number=number):
            found = element.findtext(inside)
            if required and not (found or "").strip():
                raise DataError(f"{path}, {kind} {number}: no text in <{inside}>; take the file as it is published")
            return found or ""

        yield element, text


def _copa(path):
    """Yield COPA's 401 to 500 (the validation set of SuperGLUE and the harness), then 1 to 400, no mirrored twins."""
    found = {}
    for element, text in _elements(path, "item"):
        number, asked, right = (element.get(key, "") for key in ("id", "asks-for", "most-plausible-alternative"))
        if not number.isdigit() or asked not in ("cause", "effect") or right not in ("1", "2"):
            raise DataError(f"{path}: <item> needs id, asks-for and most-plausible-alternative, has {element.attrib}")
        row = {"premise": text("p"), "choice1": text("a1"), "choice2": text("a2"), "question": asked}
        known = all(row[choice] == row[choice].strip() for choice in ("choice1", "choice2"))
        found[int(number)] = row | {"label": int(right) - 1} if known else None
    yield from (found[number] for number in (*range(401, 501), *range(1, 401)) if number in found)


def _wsc273(path):
    """Yield the first 273 schemas, with runs of white space made single, as in the hub's data set."""
    for _, text in list(_elements(path, "schema"))[:273]:
        before, pronoun, after = (" ".join(text(f"text/{p}", p != "txt1").split()) for p in ("txt1", "pron", "txt2"))
        options = [" ".join(text(f"answers/answer[{k}]").split()) for k in (1, 2)]
        right = text("correctAnswer").strip(" .\n")
        yield {
            "text": " ".join([before, pronoun, after]).strip(),
            "pronoun": pronoun,
            "pronoun_loc": len(before) + 1 if before else 0,
            "options": options,
            "label": "AB".index(right),
        } if right in ("A", "B") else None  # fmt: skip


_READERS = {
    "piqa": _piqa,
    "hellaswag": _hellaswag,
    "arc_easy": _arc,
    "arc_challenge": _arc,
    "copa": _copa,
    "wsc273": _wsc273,
    "mathqa": _mathqa,
}
