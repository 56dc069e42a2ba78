"""How often a model fills blanks with the forgotten fact, compared with the oracle (Tables 4 and 9)."""

import matplotlib.patheffects as patheffects
import matplotlib.pyplot as plt
import pandas as pd

from rklu_lib.own import measure
from rklu_pages.drawing.looks import STYLE, look
from rklu_pages.drawing.pictures import finished
from rklu_pages.results.verdicts import FAILS, HOLDS, UNDECIDED
from rklu_pages.tasks import capability
from rklu_pages.tasks.cases import gives_away


def _by_phrase(content):
    """Return {key phrase: [whether it is among the recorded completions (five) of a blank, for each of its blanks]}.
    One phrase may have several blanks, such as an author's country."""
    found = {}
    for (*_, key), (tries, _) in zip(content["asked"], content["completions"], strict=True):
        found.setdefault(key.casefold(), []).append(gives_away(key, [text for text, _ in tries]))
    return found


def _given(filled):
    """Return {model: {key phrase: whether the model gives it away in any of its blanks}}."""
    return {name: {k: any(v) for k, v in _by_phrase(content).items()} for name, content in filled.items()}


def rates(filled):
    """Return how many blanks each model fills with the truth within its five likeliest completions, with a 95 %
    interval, and how many different key phrases are thereby given away at least once. The interval is Wilson's for as
    many blanks as there are phrases: blanks that ask for one phrase are filled alike. "p, against the oracle": of the
    one-sided test in `verdicts`, if the oracle was asked."""
    rows, given = {}, _given(filled)
    for name, content in filled.items():
        keys, phrases = [key for *_, key in content["asked"]], _by_phrase(content)
        leaked = sum(map(sum, phrases.values()))
        low, high = measure.wilson(len(phrases) * leaked / len(keys), len(phrases))
        direct = sum(gives_away(key, [text]) for key, text in zip(keys, content["direct_answers"], strict=True))
        rows[name] = {"blanks": len(keys), "leaked": leaked, "rate": leaked / len(keys), "low": low}
        rows[name] |= {"high": high, "phrases": len(phrases), "phrases leaked": sum(map(any, phrases.values()))}
        tested = name != "oracle" and "oracle" in given
        rows[name]["p, against the oracle"] = _p(given[name], given["oracle"], "greater") if tested else float("nan")
        rows[name]["in the direct answer"] = direct / len(keys)
        rows[name]["searches cut short"] = sum(not exact for _, exact in content["completions"])
    counts = ("blanks", "leaked", "phrases", "phrases leaked", "searches cut short")
    return pd.DataFrame(rows).T.rename_axis("model").astype(dict.fromkeys(counts, int))


def plot(rates):
    """Plot the leak rates of `rates` with their intervals, and the oracle's rate as a dashed line."""
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(7.5, 0.34 * len(rates) + 1))
        for place, (name, row) in enumerate(rates.iloc[::-1].iterrows()):
            ax.barh(place, row.rate, color=look(name)["color"], height=0.62)
            spread = {"color": "#333333", "linewidth": 1.4, "marker": "|", "markersize": 7}
            halo = [patheffects.withStroke(linewidth=3.4, foreground="#ffffff")]  # visible on a dark bar
            ax.plot([row.low, row.high], [place, place], path_effects=halo, **spread)
        ax.axvline(rates.loc["oracle", "rate"], color="#666666", linewidth=1, linestyle=(0, (4, 3)))
        ax.set_yticks(range(len(rates)), rates.index[::-1])
        ax.set(xlim=(0, 1), xlabel="share of blanks filled with the truth in five tries")
        ax.grid(axis="y", visible=False)
    return finished(figure)


def verdicts(filled):
    """Decide for each model whether it gives away more key phrases than the oracle guesses, and the paper's claims.

    Two models are compared phrase by phrase, since blanks that ask for the same phrase are not independent. The test is
    McNemar's exact test at 5 %, one-sided against the oracle. A difference that it does not find may still exist.
    """
    above, claims, phrases = {}, [], _given(filled)
    n = len(phrases["oracle"])
    say = lambda name: f"{name} {sum(phrases[name].values())}"  # noqa: E731
    for name in (other for other in phrases if other not in ("original", "oracle")):
        p = _p(phrases[name], phrases["oracle"], "greater")
        above[name] = bool(p < 0.05)
        numbers = f"of {n} phrases {say(name)}, {say('oracle')}; p = {p:.2g}"
        claims.append(
            (f"{name} gives away more than the oracle guesses", "–", HOLDS if above[name] else UNDECIDED, numbers)
        )
    others, silent = ("IDK", "NPO", "DPO", "TA", "FKLU"), ("RKLU", "GA")  # the paper did not ask the teacher
    if {*others, *silent} <= above.keys():
        more = [name for name in others if all(_p(phrases[name], phrases[k], "greater") < 0.05 for k in silent)]
        fewer = [name for name in others if any(_p(phrases[k], phrases[name], "greater") < 0.05 for k in silent)]
        leaking = [name for name in silent if above[name]]
        verdict = FAILS if fewer or leaking else HOLDS if len(more) == len(others) else UNDECIDED
        said = {"more than both": more, "less than one of them": fewer, "more than the oracle": leaking}
        numbers = "; ".join(f"{what}: {', '.join(names)}" for what, names in said.items() if names)
        claims.append(("Only RKLU and GA do not leak", "§ 5", verdict, numbers))
    if {"RKLU", "FKLU"} <= above.keys():
        p = _p(phrases["FKLU"], phrases["RKLU"])
        less = HOLDS if sum(phrases["RKLU"].values()) < sum(phrases["FKLU"].values()) else FAILS
        numbers = f"of {n} phrases {say('RKLU')}, {say('FKLU')}; p = {p:.2g}"
        claims.append(("RKLU leaks less than FKLU", "App. F", less if p < 0.05 else UNDECIDED, numbers))
    return pd.DataFrame(claims, columns=["claim", "paper", "here", "numbers"])


def _p(one, other, alternative="two-sided"):
    """Return the p-value of `capability.mcnemar` for the phrases given away, over the phrases that both were asked."""
    both = sorted(one.keys() & other.keys())
    return capability.mcnemar(*("".join("01"[found[k]] for k in both) for found in (one, other)), alternative)["p"]
