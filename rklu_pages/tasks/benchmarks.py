"""The paper's seven benchmarks from the files they are published in, as rows that lm-evaluation-harness's tasks read.

Rebuilt are the fields of the harness's own data set, word for word, so that its configuration of a task (prompt,
options, target) is used as it is. An item of which that cannot be said is left out, and counted; nothing is guessed.
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
    """(rows, left out) of one task: a list of dicts in the file's order, and how many items could not be rebuilt.

    Raises FileNotFoundError, or DataError where the file is not what it should be or no item could be rebuilt.
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
    """`with folder_of(tasks, folder) as (ready, counts)`: a folder of `<task>.jsonl`, and what was left out of each.

    folder: of published files, from which a temporary one is made and counts is {task: {"rebuilt", "left_out"}}; any
    other is taken to be ready, as is None (the hub), and counts is empty.
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
    """(instruction, answer) of each item of an instruction-formatted file."""
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
    """What blank lines separate, each part without its opening; None unless there is just one part for each."""
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
    """Labels A to E stand for the file's answer1 to answer5: the harness asks for the right one's place alone."""
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
    """The file has a to f in capitals throughout its options, and MathQA has no capitals: lower case is what it was."""
    for text, answer in _instructions(path):
        problem, *options = text.split(" The options: ")
        known = len(options) == 1 and problem == problem.lower() and not re.search("[a-fG-Z]", options[0])
        known = known and re.search(r"A \) .*B \) .*C \) .*D \) .*E \) ", options[0]) and answer in list("ABCDE")
        yield {"Problem": problem, "options": options[0].lower(), "correct": answer.lower()} if known else None


def _hellaswag(path):
    """Six lines an item. The harness capitalises `ctx_b`, the beginning of the last sentence, which here ends the
    context in lower case; and it takes marks in brackets out, which has been done here: what it would change again is
    not known."""
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
    """The root's children of one kind, each as a function: the text at a path inside it, without line breaks."""
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
    """Items 401 to 500 first, SuperGLUE's validation set and so the harness's, then 1 to 400; no mirrored twins."""
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
    """The first 273, white space made single, as the hub's data set has them."""
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
