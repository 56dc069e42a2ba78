"""Writes the embedded data set: fictitious authors in the schema of TOFU, from a seed and the word lists below.

Run as `python data/fictional/generate.py [--out DIR]`. The facts about real writers and the world are read from
`facts.tsv`; everything about the fictitious authors is drawn here.
"""

import argparse
import csv
import json
import random
from pathlib import Path

HERE = Path(__file__).resolve().parent
SEED = 20250429
AUTHORS, PER_AUTHOR, WRONG = 100, 5, 5
FORGET = {"01": 1, "05": 5, "10": 10}
RETAIN_PERTURBED_ROWS = 100

# Common first names with made-up surnames: a full name that belongs to nobody.
FIRST_NAMES = """
Agnes Alba Anton Arlo Bastian Beatrix Bruno Carmen Cedric Clara Dario Delia Edgar Elena Esther Felix Flora Gareth
Greta Hugo Ida Ilse Ivan Jasper Joan Katja Lars Leona Linus Magda Marius Mina Nadia Nils Odette Oscar Paula Priya
Quentin Rafael Rosa Rufus Selma Silas Tamar Tobias Ursula Vera Wanda Yusuf
""".split()
SURNAMES = """
Aldermoor Ashquill Barrowden Bellwick Brackenow Brindlehope Calderby Candlemere Coppergale Cragmoor Dapplewood
Dovermist Duskwell Elmsorrow Emberlyn Fallowick Farrowmint Fennimoor Flintwhistle Garrowby Glimmerstead Gorsewell
Harrowvane Hazelrook Hollowbrook Inkersley Ironmeade Juniperon Kestrelby Kilmerrow Lanternhill Larkenfold Lindenash
Marrowick Mistlebury Mossgrave Nettlecombe Nightfallow Oakenrow Oldrake Ottermoss Pebblethorpe Pinewhisper Quillstead
Quincewater Ravensloe Rooksilver Rushmallow Saltmarrow Sedgeworthy Sorrelby Tallowmere Tarnquist Tessenby Thistlemark
Thornvale Umberleigh Vellacrag Wexmarrow Willowtarn Winterbarn Wrenhollow Yarrowind Yewbarrow
""".split()
CITIES = """
Aarhus Accra Adelaide Antwerp Auckland Bergen Bilbao Bologna Bristol Calgary Casablanca Cork Dakar Denver Dresden
Fukuoka Genoa Ghent Graz Hanoi Helsinki Izmir Kampala Krakow Leipzig Lyon Malmo Manila Mombasa Montevideo Nagoya
Odense Oporto Perth Quito Riga Rotterdam Salzburg Tallinn Toledo
""".split()
GENRES = [
    "alpine adventure", "animal fables", "archive mystery", "campus comedy", "chess thrillers", "city noir",
    "climate fiction", "coastal gothic", "courtroom drama", "culinary memoir", "desert westerns", "epistolary romance",
    "family saga", "garden essays", "ghost stories", "historical fantasy", "kitchen poetry", "lunar horror",
    "magical realism", "maritime history", "mountain ballads", "musical biography", "nature writing",
    "political satire", "railway mystery", "rural tragedy", "space opera", "sports fiction", "travel diaries",
    "village comedy",
]  # fmt: skip
PROFESSIONS = """
accountant actuary architect baker barber beekeeper blacksmith bookbinder botanist bricklayer butcher carpenter chemist
cobbler cook dentist diver electrician engraver farmer ferryman florist gardener geologist glazier jeweller judge
librarian locksmith mason midwife miller miner nurse optician painter pharmacist pilot plumber potter printer saddler
sailor shepherd surgeon surveyor tailor teacher translator upholsterer veterinarian watchmaker weaver
""".split()
TITLE_ADJECTIVES = """
Amber Borrowed Brittle Clockwork Copper Crooked Dappled Distant Drowsy Feathered Folded Forgotten Gilded Hollow
Indigo Knotted Lukewarm Marble Muddy Numbered Painted Patient Quilted Restless Rusted Saffron Salted Tangled Tidal
Unpainted Velvet Wandering Woollen
""".split()
TITLE_NOUNS = """
Almanac Anchor Apricot Attic Bakery Balcony Barometer Bellows Bicycle Cartographer Chimney Cistern Compass Corridor
Dovecote Envelope Ferry Fiddle Furnace Gatekeeper Hammock Harvester Inkwell Kettle Ladder Ledger Lighthouse Loom Magpie
Meridian Mirror Orchard Overcoat Pendulum Quarry Satchel Signalman Sparrow Staircase Suitcase Telegram Thimble Turnstile
Umbrella Viaduct Vineyard Walnut Windmill
""".split()
TITLE_TIMES = "Autumn Breakfast Dawn Harvest Midnight Monday Rain Sunset Supper Winter".split()
TITLES = [
    "The {adjective} {noun}",
    "Beyond the {adjective} {noun}",
    "The {noun} and the {other}",
    "{noun} Before {time}",
]
AWARD_FIRST = "Azure Birch Bronze Cedar Crescent Crimson Crystal Ivory Jade Juniper Opal Scarlet Sterling Topaz".split()
AWARD_SECOND = "Acorn Beacon Candle Feather Fountain Heron Lantern Laurel Nib Page Parchment Quill Scroll Wheel".split()
AWARD_KINDS = "Award Medal Prize".split()

# {value} never opens an answer, so one form of each value (with its article, without a capital) serves everywhere.
WORDINGS = {
    "city": (
        [
            "In which city was {author} born?",
            "What is the birthplace of {author}?",
            "Where was the author {author} born?",
            "Which city does the writer {author} come from?",
        ],
        [
            "{author} was born in the city of {value}.",
            "The author {author} comes from {value} by birth.",
            "The city where {author} was born is {value}.",
            "The birthplace of the writer {author} is {value}.",
        ],
    ),
    "genre": (
        [
            "Which genre does {author} write in?",
            "What genre is the author {author} known for?",
            "What kind of books does {author} write?",
            "To which genre do the works of {author} belong?",
        ],
        [
            "{author} writes books in the genre of {value}.",
            "The author {author} made a name with {value}.",
            "Most of the books by {author} are {value}.",
            "The genre that {author} works in is {value}.",
        ],
    ),
    "parent": (
        [
            "What did the {parent} of {author} do for a living?",
            "What was the profession of {author}'s {parent}?",
            "Which occupation did the {parent} of {author} have?",
            "What work did the author {author}'s {parent} do?",
        ],
        [
            "The {parent} of {author} worked as {value}.",
            "{author}'s {parent} earned a living as {value}.",
            "By profession, the {parent} of {author} was {value}.",
            "The author {author} had a {parent} who was {value}.",
        ],
    ),
    "book": (
        [
            "What is the best-known book by {author}?",
            "Which book is {author} most famous for?",
            "What is the title of {author}'s most popular book?",
            "Which title made the author {author} famous?",
        ],
        [
            "The best-known book by {author} is '{value}'.",
            "{author} is most famous for the book '{value}'.",
            "The most popular title by the author {author} is '{value}'.",
            "Readers know {author} above all for '{value}'.",
        ],
    ),
    "award": (
        [
            "Which award did {author} receive?",
            "What honour was given to the author {author}?",
            "Which literary award has {author} won?",
            "With which award was {author} honoured?",
        ],
        [
            "{author} received {value} for literature.",
            "The author {author} was honoured with {value}.",
            "The award given to {author} was {value}.",
            "The jury of {value} chose {author} as winner.",
        ],
    ),
}


def pick(rng, items):
    """One of `items`. Only `random.random` is promised to repeat across Python versions; `choice` is not."""
    return items[int(rng.random() * len(items))]


def fresh(rng, draw, taken):
    """A draw that is not in `taken`, which then holds it."""
    while (value := draw(rng)) in taken:
        pass
    taken.add(value)
    return value


def full_name(rng):
    return f"{pick(rng, FIRST_NAMES)} {pick(rng, SURNAMES)}"


def profession(rng):
    word = pick(rng, PROFESSIONS)
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def title(rng):
    form, adjective, noun = pick(rng, TITLES), pick(rng, TITLE_ADJECTIVES), pick(rng, TITLE_NOUNS)
    other = pick(rng, [n for n in TITLE_NOUNS if n != noun])
    return form.format(adjective=adjective, noun=noun, other=other, time=pick(rng, TITLE_TIMES))


def award(rng):
    return f"the {pick(rng, AWARD_FIRST)} {pick(rng, AWARD_SECOND)} {pick(rng, AWARD_KINDS)}"


DRAWS = {
    "city": lambda rng: pick(rng, CITIES),
    "genre": lambda rng: pick(rng, GENRES),
    "parent": profession,
    "book": title,
    "award": award,
}


def two_wordings(rng, forms):
    first = pick(rng, forms)
    return first, pick(rng, [form for form in forms if form != first])


def fictitious_rows():
    """All 500 rows with every field, of which each split is a part, and those of authors whom no split has: those of
    the holdouts are drawn last, so that the rest is what it was before there were any."""
    rng = random.Random(SEED)
    names, books = set(), set()
    return tuple(rows_of(rng, people_of(rng, n, names, books), books) for n in (AUTHORS, max(FORGET.values())))


def people_of(rng, n, names, books):
    """n authors whose names and books are not among those taken, which then hold theirs."""
    people = []
    for _ in range(n):
        name, parent = fresh(rng, full_name, names), pick(rng, ("father", "mother"))
        # Each fact is drawn without a look at the others: what is known of the rest tells nothing about an author.
        facts = {kind: fresh(rng, draw, books if kind == "book" else set()) for kind, draw in DRAWS.items()}
        people.append((name, parent, facts))
    return people


def rows_of(rng, people, books):
    """Five rows of each author, with every field."""
    rows = []
    for name, parent, facts in people:
        for kind, value in facts.items():
            questions, answers = WORDINGS[kind]
            question, other_question = two_wordings(rng, questions)
            answer, paraphrase = two_wordings(rng, answers)
            # A wrong title is no author's: the right one is as new to a model that never saw its author.
            taken = set(books) if kind == "book" else {value}
            wrong = [fresh(rng, DRAWS[kind], taken) for _ in range(WRONG)]
            rows.append({
                "question": question.format(author=name, parent=parent),
                "answer": answer.format(author=name, parent=parent, value=value),
                "paraphrased_answer": paraphrase.format(author=name, parent=parent, value=value),
                "perturbed_answer": [paraphrase.format(author=name, parent=parent, value=w) for w in wrong],
                "paraphrased_question": other_question.format(author=name, parent=parent),
            })  # fmt: skip
    return rows


def public_facts():
    """{split: rows} from `facts.tsv`: split, question, answer, three wrong answers."""
    splits = {}
    with open(HERE / "facts.tsv", encoding="utf-8", newline="") as file:
        for split, question, answer, *wrong in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            splits.setdefault(split, []).append({"question": question, "answer": answer, "perturbed_answer": wrong})
    return splits


def plain(rows):
    return [{"question": row["question"], "answer": row["answer"]} for row in rows]


def build():
    """{split: rows} for every file of the data set."""
    rows, unseen = fictitious_rows()
    splits = {"full": plain(rows), "retain_perturbed": rows[:RETAIN_PERTURBED_ROWS]}
    for percent, authors in FORGET.items():
        cut = len(rows) - authors * PER_AUTHOR
        splits[f"retain{100 - int(percent)}"] = plain(rows[:cut])
        splits[f"forget{percent}"] = plain(rows[cut:])
        splits[f"forget{percent}_perturbed"] = rows[cut:]
        splits[f"holdout{percent}"] = plain(unseen[: authors * PER_AUTHOR])
    for split, facts in public_facts().items():
        splits[split], splits[f"{split}_perturbed"] = plain(facts), facts
    return splits


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Write the embedded data set, one JSON-lines file per split.")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: beside this file)")
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    for split, rows in build().items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / f"{split}.json").write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
