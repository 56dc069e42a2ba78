"""Writes the embedded texts: a little novel to forget, and plain prose of the same kind to keep, from a seed.

Run as `python data/passages/generate.py [--out DIR]`. Nothing in them was ever published; every word is drawn here.
"""

import argparse
import random
from pathlib import Path

HERE = Path(__file__).resolve().parent
SEED, SENTENCES = 20250430, 130
PEOPLE = "Abigail Barnaby Cordelia Dunstan Eudora Fergus Gwendolen Humphrey Isolde Jocelyn Kenelm Lavinia".split()
PLACES = "abbey attic bakehouse boathouse cellar chapel cloister courtyard granary harbour mill orchard quay".split()
THINGS = "anchor bell candle clock compass fiddle kettle key lantern ledger letter mirror saddle telescope".split()
QUALITIES = "borrowed broken brass crooked faded gilded hollow painted patched rusty silent silver wooden".split()
SEASONS = "autumn winter spring summer evening morning midnight noon".split()
DEEDS = "buried carried followed forgot found hid lost mended promised sold stole watched".split()
SENTENCES_OF = (
    "In the {season} {a} {deed} the {quality} {thing} behind the {place}.",
    "Nobody in the {place} believed that {a} had {deed} a {quality} {thing}, and {b} least of all.",
    "{a} asked {b} for the {thing}, but the {place} was already {quality}.",
    '"You {deed} my {thing}," said {a}, "and the whole {place} knows of it by {season}."',
    "When {b} came back from the {place}, the {quality} {thing} lay beside the {other}.",
    "It was {a} who {deed} it, in the {season}, between the {place} and the {quality} {other}.",
)


def pick(rng, items):
    """One of `items`. Only `random.random` is promised to repeat across Python versions; `choice` is not."""
    return items[int(rng.random() * len(items))]


def sentence(rng):
    words = {"season": SEASONS, "deed": DEEDS, "quality": QUALITIES, "place": PLACES}
    drawn = {name: pick(rng, values) for name, values in words.items()}
    a, thing = pick(rng, PEOPLE), pick(rng, THINGS)
    b, other = pick(rng, [p for p in PEOPLE if p != a]), pick(rng, [t for t in THINGS if t != thing])
    return pick(rng, SENTENCES_OF).format(a=a, b=b, thing=thing, other=other, **drawn)


def build():
    """{file: text}: the novel, and two more texts that share its language and none of its events."""
    rng = random.Random(SEED)
    texts = {}
    for name in ("novel", "valid", "test"):
        lines = [" ".join(sentence(rng) for _ in range(5)) for _ in range(SENTENCES // 5)]
        texts[f"{name}.txt"] = "\n\n".join(lines) + "\n"
    return texts


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Write the embedded texts.")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: beside this file)")
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    for name, text in build().items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
