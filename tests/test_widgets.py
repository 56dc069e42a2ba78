"""Each widget in a real browser: its arithmetic against the library, its controls moved, its accessibility checked."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from browsing import SCREENS
from bs4 import BeautifulSoup
from helpers import ROOT
from invented import ALPHAS, ASKED, SCORES, TOKENS, alphas, explorer, playground

from rklu_lib import losses, teacher
from rklu_lib.records import Record, RunSpec
from rklu_pages.drawing import widgets
from rklu_pages.drawing.widgets import scores

PAGE = """<!doctype html><html lang="en"><title>A widget</title><meta name="viewport" content="width=device-width">
<style>:root { color-scheme: light dark }</style><body><main><h1>A widget</h1>%s</main>"""


def static(*shown):
    return PAGE % "".join(widget._repr_mimebundle_()[0]["text/html"] for widget in shown)


def scored(method, seed, quality, utility, split="forget10"):
    epochs = [
        {"epoch": i, "forget_quality_benchmark": q, "model_utility": u}
        for i, (q, u) in enumerate(zip(quality, utility, strict=True), 1)
    ]
    return Record(RunSpec("smoke", split, method, seed), {"epochs": epochs}, {})


RUNS = [
    scored("RKLU", 0, [0.1, 0.4, 0.2], [0.9, 0.5, 0.8]),
    scored("RKLU", 1, [1e-9, 1e-4, 1e-3], [0.9, 0.8, 0.7]),
    scored("NPO+RT", 0, [1e-20, 1e-6, 1e-7], [0.95, 0.6, 0.65]),
    scored("RKLU", 0, [0.7], [0.3], split="forget05"),
]


MARKS = ".rk-mark[role=option]"


def score_explorer():
    return scores.explorer([RUNS[-1], *RUNS[:-1]])


EXAMPLES = {"playground": playground, "explorer": explorer, "alpha": alphas, "scores": score_explorer}


@pytest.fixture(params=EXAMPLES)
def example(request):
    return EXAMPLES[request.param]()


@pytest.mark.parametrize("make", EXAMPLES.values(), ids=EXAMPLES)
def test_the_static_form_holds_nothing_random(make):
    example, again = make(), make()
    forms = [w._repr_mimebundle_()[0] for w in (example, again)]
    assert example.model_id != again.model_id
    assert example.model_id in json.dumps(forms[0]["application/vnd.jupyter.widget-view+json"])
    assert forms[0]["text/html"] == forms[1]["text/html"]
    assert forms[0]["text/plain"] == forms[1]["text/plain"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SCREENS)
def test_accessible_and_within_the_window(visit, example, size, scheme):
    page = visit(size, scheme, book=False).page
    page.set_content(static(example))
    report = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]})
    assert report.violations_count == 0, report.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    folder = ROOT / "_build/screens"
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"widget-{type(example).__name__}-{size}-{scheme}.png", full_page=True)


def test_the_accessibility_check_itself_finds_an_unlabelled_slider(visit):
    page = visit(book=False).page
    page.set_content(PAGE % '<input type="range">')
    assert "label" in [v["id"] for v in Axe().run(page).response["violations"]]


def test_every_control_is_reached_by_the_tab_key_and_shows_it(visit, example):
    page = visit(book=False).page
    page.set_content(static(example))
    # of a group of radio buttons only the chosen one is a stop
    wanted = "button:not([tabindex='-1']), select, input:not([type=radio]), input[type=radio]:checked, [tabindex='0']"
    stops = page.locator(wanted).count()
    seen = set()
    for _ in range(stops):
        page.keyboard.press("Tab")
        place, outline = page.evaluate("""() => {
          const all = [...document.querySelectorAll("button, select, input, [role=option]")];
          const e = document.activeElement;
          return [all.indexOf(e), getComputedStyle(e).outlineStyle];
        }""")
        assert place >= 0 and outline != "none"
        seen.add(place)
    assert len(seen) == stops


def arithmetic(page, name, *arguments):
    """Call a function that the playground's source exports."""
    call = """async ([source, name, args]) => {
      const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
      return (await import(url))[name](...args);
    }"""
    return page.evaluate(call, [widgets.DivergencePlayground._esm, name, arguments])


@pytest.mark.parametrize("seed", range(6))
def test_the_playgrounds_arithmetic_is_the_librarys(visit, seed):
    page, rng = visit(book=False).page, np.random.default_rng(seed)
    original, augmented, student = (rng.normal(0, (1, 4, 20)[seed % 3], 12) for _ in range(3))
    alpha, shift, rate = rng.uniform(0, 16), rng.uniform(-4, 4), rng.uniform(0.1, 5)
    found = arithmetic(page, "teacherLogits", list(original), list(augmented), alpha, shift)
    target = teacher.teacher_logits(torch.tensor(original), torch.tensor(augmented) + shift, alpha)
    np.testing.assert_allclose(found, target, rtol=0, atol=1e-6)
    for kind, loss in {"reverse": losses.reverse_kl, "forward": losses.forward_kl}.items():
        z = torch.tensor(student, requires_grad=True)
        value = loss(z[None], target[None], torch.tensor([True]))
        value.backward()
        pair = (list(student), found) if kind == "reverse" else (found, list(student))
        assert arithmetic(page, "kl", *pair) == pytest.approx(value.item(), rel=1e-6, abs=1e-6)
        slope = arithmetic(page, "gradient", kind, list(student), found)
        np.testing.assert_allclose(slope, z.grad, rtol=1e-6, atol=1e-6)
        moved = arithmetic(page, "descend", kind, list(student), found, rate)
        np.testing.assert_allclose(moved, z.detach() - rate * z.grad, rtol=1e-6, atol=1e-6)


def test_a_token_without_any_probability_gives_a_number(visit):
    page = visit(book=False).page
    low, high = [0.0, -2000.0], [0.0, 0.0]
    assert arithmetic(page, "kl", low, high) == pytest.approx(np.log(2))
    assert arithmetic(page, "gradient", "reverse", low, high) == pytest.approx([0, 0], abs=1e-12)
    near = [[0.1 * i + 1e-15 * i * j for i in range(5)] for j in range(20)]  # rounding may not lead below zero
    assert min(arithmetic(page, "kl", near[0], other) for other in near) == 0


def shown(page, token):
    """What the playground says about one token: {"original": p, ...}."""
    label = page.locator(f".rk-bars[aria-label^='{token}:']").first.get_attribute("aria-label")
    pairs = (part.rsplit(" ", 1) for part in label.split(": ")[1].split(", "))
    return {name: float(value.replace("−", "-")) for name, value in pairs}


def test_the_playground_moves(visit):
    page = visit(book=False).page
    page.set_content(static(playground()))
    start = shown(page, "Karachi")
    assert start["original"] == pytest.approx(torch.tensor([5, 3, 2, 0, -2.0]).softmax(0)[0].item(), rel=1e-2)
    assert start["reverse-KL student"] == start["forward-KL student"] == start["original"]
    for _ in range(3):
        page.get_by_role("button", name="10 steps").click()
    later = shown(page, "Karachi")
    assert later["reverse-KL student"] < later["forward-KL student"] < start["original"]
    assert "After 30 steps" in page.locator(".rk-facts").inner_text()

    page.get_by_label("α, strength").focus()  # by the keyboard: a weaker teacher lowers it less
    for _ in range(8):
        page.keyboard.press("ArrowLeft")
    assert page.get_by_label("α, strength").input_value() == "4"
    assert shown(page, "Karachi")["teacher"] > later["teacher"]

    before = shown(page, "Lahore")  # the constant c changes the teacher, and no probability of any model
    page.get_by_label("c, added to every augmented logit").fill("0.4")
    after = shown(page, "Lahore")
    assert after.pop("teacher") < before.pop("teacher") and after == before
    assert page.locator(".rk-row small").nth(1).inner_text() == "3.0 → 3.6"  # what rose, with the constant
    assert page.get_by_label("augmented logit of Lahore").get_attribute("aria-valuetext") == "3.2"

    page.get_by_label("original logit of Paris").fill("6")  # students start again from the moved original
    assert "After 0 steps" in page.locator(".rk-facts").inner_text()
    assert shown(page, "Paris")["original"] > 0.5

    page.get_by_label("Token in the chart").select_option("Paris")
    assert page.locator(".rk-plot svg").get_attribute("aria-label").startswith("Probability of Paris")
    assert "mid-line: 0.5" in page.locator(".rk-head").inner_text()
    width = page.locator(".rk-bar.rk-teacher").nth(1).evaluate("e => e.style.width")
    page.get_by_label("logarithmic").check()
    assert page.locator(".rk-bar.rk-teacher").nth(1).evaluate("e => e.style.width") != width
    assert "mid-line: 10⁻³" in page.locator(".rk-head").inner_text()

    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("!document.querySelector('.rk-facts').textContent.startsWith('After 0')")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Students back to the start").click()
    assert "After 0 steps" in page.locator(".rk-facts").inner_text()
    page.get_by_role("button", name="Reset all").click()
    opened = shown(page, "Karachi")
    assert {name: opened[name] for name in start} == start and page.get_by_label("α, strength").input_value() == "8"


def test_play_says_where_it_ends(visit):
    page = visit(book=False).page
    page.set_content(static(playground(steps=999)))
    assert "ends" not in page.locator(".rk-facts").inner_text()
    page.get_by_role("button", name="Play", exact=True).click()
    page.get_by_text("“Play” ends after 1000 steps.").wait_for()
    page.get_by_role("button", name="Play", exact=True).wait_for()


def test_the_playground_opens_with_the_steps_that_a_page_asks_for(visit):
    page = visit(book=False).page
    page.set_content(static(playground(steps=10)))
    opened = shown(page, "Karachi")
    assert "After 10 steps" in page.locator(".rk-facts").inner_text()
    page.get_by_role("button", name="Students back to the start").click()
    page.get_by_role("button", name="10 steps").click()
    assert shown(page, "Karachi") == opened and opened["reverse-KL student"] < opened["original"]


def test_two_playgrounds_on_a_page_do_not_disturb_each_other(visit):
    page = visit(book=False).page
    page.set_content(static(playground(), playground(), playground(alpha=2)))
    forms = page.locator("form")
    names = ["Divergence playground", "Divergence playground 2", "Divergence playground 3"]
    assert [form.get_attribute("aria-label") for form in forms.all()] == names
    forms.nth(0).get_by_label("logarithmic").check()
    forms.nth(1).get_by_role("button", name="10 steps").click()
    assert forms.nth(1).get_by_label("linear").is_checked() and forms.nth(0).get_by_label("logarithmic").is_checked()
    said = [forms.nth(i).locator(".rk-facts").inner_text().split(":")[0] for i in range(3)]
    assert said == ["After 0 steps", "After 10 steps", "After 0 steps"]
    assert forms.nth(2).get_by_label("α, strength").input_value() == "2"


def test_the_explorer_shows_what_was_recorded_and_moves(visit):
    page = visit(book=False).page
    page.set_content(static(explorer()))
    assert "unseen" not in page.content()

    def card(name):
        return page.get_by_role("group", name=name, exact=True)

    def check(content, position, k, names):
        assert [c.get_attribute("aria-label") for c in page.locator(".rk-card").all()] == names
        for name in names:
            model, text = content["models"][name], card(name).inner_text()
            rank, items = model["true_rank"][position], card(name).locator("li")
            assert f"rank {rank}\n" in text and f"{model['entropy'][position]:#.3g} nats" in text
            kl = model.get("kl_to_oracle")
            assert (f"{kl[position]:#.3g} nats" if kl else "not recorded") in text
            assert items.count() == k + (rank > k)
            true = card(name).locator(".rk-true")
            assert true.count() == 1 and true.inner_text() == items.nth(min(rank, k + 1) - 1).inner_text()
            shares = [float(b.evaluate("e => e.style.width")[:-1]) for b in items.locator(".rk-bar").all()]
            assert shares[:k] == pytest.approx([100 * p for _, p in model["top"][position][:k]], abs=1e-3)

    check(ASKED[0], 0, 5, ["original", "oracle", "teacher", "RKLU"])
    page.get_by_label("Position in the true answer").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.get_by_role("checkbox", name="NPO+RT").check()
    page.get_by_role("checkbox", name="teacher").uncheck()
    page.get_by_label("k, tokens shown").fill("3")
    check(ASKED[0], 2, 3, ["original", "oracle", "RKLU", "NPO+RT"])
    assert "The true token ␣Kar" in page.locator(".rk-facts").inner_text()
    token = page.get_by_role("group", name="Tokens of the true answer").get_by_role("button").nth(4)
    token.click()
    assert token.get_attribute("aria-pressed") == "true"
    assert page.get_by_label("Position in the true answer").input_value() == "4"
    check(ASKED[0], 4, 3, ["original", "oracle", "RKLU", "NPO+RT"])
    for name in ("original", "oracle", "RKLU", "NPO+RT"):
        page.get_by_role("checkbox", name=name, exact=True).uncheck()
    assert page.locator(".rk-facts").inner_text().startswith("Choose a model")
    for name in ("original", "RKLU"):
        page.get_by_role("checkbox", name=name, exact=True).check()

    page.get_by_label("Question").select_option("Who?")  # a shorter answer: back to its beginning
    check(ASKED[1], 0, 3, ["original", "RKLU"])
    page.get_by_label("logarithmic").check()
    share = float(card("RKLU").locator("li .rk-bar").first.evaluate("e => e.style.width")[:-1])
    p = ASKED[1]["models"]["RKLU"]["top"][0][0][1]
    assert share == pytest.approx(100 * (1 + np.log10(p) / 6), abs=1e-3)


def test_the_alpha_explorer_moves_and_says_what_is_missing(visit):
    page = visit(book=False).page
    page.set_content(static(alphas(recorded_at=(0.5, 8))))
    facts, strength = page.locator(".rk-facts"), page.get_by_label("α, strength")
    heights = []
    for step, alpha in enumerate(ALPHAS):
        quality, utility = SCORES[alpha]
        said = facts.inner_text().replace("−", "-")
        cards = "" if alpha == 2 else " The cards below are of the model after its last epoch."
        assert said.startswith(f"α = {alpha}: ") and said.endswith(f"at epoch 1.{cards}")
        told = [float(x) for x in re.findall(r"(?:quality|utility) ([0-9.e-]+\d)", said)]
        assert told == pytest.approx([quality, utility], rel=0.05)
        here = page.locator(".rk-plots svg").first.locator("circle").nth(step)
        assert here.get_attribute("r") == "6"
        heights.append(float(here.get_attribute("cy")))
        if alpha == 2:
            assert page.locator(".rk-card").count() == 0
            assert "No distributions are recorded" in page.locator(".rk-said").inner_text()
        else:
            assert f"RKLU,alpha={alpha} says" in page.locator(".rk-said").inner_text()
            assert [c.get_attribute("aria-label") for c in page.locator(".rk-card").all()] == ["teacher", "RKLU"]
        strength.focus()
        page.keyboard.press("ArrowRight")
    # the house's double scale: 0.05 stands half-way up, and a p-value of 0.4 is drawn by the linear half
    low, high = 26, 150
    span = np.log10(0.05 / 1e-12)
    expected = [np.log10(3e-7 / 1e-12) / span / 2, np.log10(0.03 / 1e-12) / span / 2, (1 + 0.35 / 0.95) / 2]
    assert heights == pytest.approx([high - (high - low) * y for y in expected], abs=0.2)
    before = page.locator(".rk-cards").inner_text()
    page.get_by_label("Position in the true answer").fill("2")
    assert page.locator(".rk-cards").inner_text() != before
    assert list(saved(page).alpha) == list(ALPHAS)


def test_the_score_explorer_draws_what_is_asked_for_and_says_whose_a_mark_is(visit):
    page = visit(book=False).page
    page.set_content(static(score_explorer()))
    facts, marks = page.locator(".rk-told"), page.locator(MARKS)
    expected = {"peak": {(0.5, 0.4), (0.7, 1e-3), (0.6, 1e-6)}, "last": {(0.8, 0.2), (0.7, 1e-3), (0.65, 1e-7)}}
    expected["product"] = {(0.5, 0.4), (0.7, 1e-3), (0.6, 1e-6)}  # 0.4 * 0.5 > 0.2 * 0.8
    for rule, points in expected.items():
        page.get_by_label(rule).check()
        assert told(marks) == points
    page.get_by_label("forget set").select_option("forget05")
    assert told(marks) == {(0.3, 0.7)}
    page.get_by_label("forget set").select_option("forget10")
    page.get_by_role("combobox", name="seed").select_option(label="0")
    page.get_by_role("checkbox", name="NPO+RT").uncheck()
    assert marks.count() == 1
    assert page.locator("[aria-live=polite]").inner_text() == "1 of 4 runs drawn."
    page.get_by_label("every epoch").check()
    assert "seed" not in facts.inner_text()  # one line needs no number at its end
    assert marks.count() == 6 and page.locator(".rk-chart").count() == 2  # three epochs, two scores
    assert page.get_by_text("Reported epoch", exact=True).is_hidden()

    marks.first.focus()
    assert facts.inner_text().startswith("RKLU, smoke, forget10, seed 0, epoch 1, forget quality 0.100")
    page.keyboard.press("End")
    assert "epoch 3" in facts.inner_text() and page.locator("[aria-selected=true]").count() == 1
    page.keyboard.press("ArrowLeft")
    assert "epoch 2" in facts.inner_text()
    box = page.locator(".rk-chart").nth(1).locator(MARKS).first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 + 3, box["y"] + box["height"] / 2)
    assert "epoch 1" in facts.inner_text()
    table = saved(page)
    assert list(table["forget quality"]) == [0.1, 0.4, 0.2] and set(table.name) == {"RKLU"}
    assert "rule" not in table
    page.get_by_label("reported epochs").check()
    assert list(saved(page).rule) == ["product"]


def test_a_line_stops_where_a_score_is_missing_and_a_mark_under_another_is_named(visit):
    gaps = [scored("RKLU", s, [0.1, 0.4, 0.2, 0.3, 0.25], [0.9, 0.5, None, 0.8, 0.7]) for s in (0, 1)]
    page = visit(book=False).page
    page.set_content(static(scores.explorer(gaps, view="epochs")))
    charts = page.locator(".rk-chart")
    drawn = [[len(line.get_attribute("points").split()) for line in c.locator("polyline").all()] for c in charts.all()]
    assert drawn == [[5, 5], [2, 2, 2, 2]] and charts.nth(1).locator(MARKS).count() == 8
    assert "Not every epoch's utility was scored" in page.locator("[aria-live=polite]").inner_text()
    box = charts.first.locator(MARKS).first.bounding_box()
    page.mouse.move(0, 0)
    touch = {"clientX": box["x"] + 4, "clientY": box["y"] + 12, "pointerType": "touch", "bubbles": True}
    charts.first.dispatch_event("pointerdown", touch)
    said = page.locator(".rk-told").inner_text()
    assert "seed 0, epoch 1" in said and "seed 1, epoch 1" in said and said.count("epoch") == 2
    assert "RKLU, seed 0 and 1 more" in charts.first.locator(".rk-tag").text_content()


def test_in_the_dark_two_greys_are_two(visit):
    page = visit(scheme="dark", book=False).page
    page.set_content(static(explorer()))
    bars = [page.get_by_role("group", name=n, exact=True).locator("li .rk-bar").first for n in ("original", "oracle")]
    assert len({bar.evaluate("e => getComputedStyle(e).backgroundColor") for bar in bars}) == 2


def test_on_paper_there_is_nothing_to_press(visit):
    page = visit(book=False).page
    page.set_content(static(explorer(), playground()))
    page.emulate_media(media="print")
    pressed = page.locator("button:visible")
    assert pressed.count() == page.locator(".rk-answer button").count()  # the answer's tokens, which are read


def told(marks):
    """{(utility, quality)} of marks, from what a screen reader is told."""
    said = [re.search("quality (.+), model utility (.+)", m.get_attribute("aria-label")) for m in marks.all()]
    return {tuple(float(text.replace("−", "-")) for text in (match[2], match[1])) for match in said}


def test_the_score_explorer_draws_a_grid_and_the_tokens_of_an_answer(visit):
    page = visit(book=False).page
    grid = [
        Record(RunSpec("smoke", "forget10", "RKLU", 0), {**r.content, "settings": {"alpha": a}}, {})
        for a, r in zip((2, 8), RUNS, strict=False)
    ]
    page.set_content(static(scores.along({0: grid}, "alpha")))
    labels = [m.get_attribute("aria-label") for m in page.locator(".rk-chart").first.locator(MARKS).all()]
    assert ["alpha 2, epoch 2" in labels[0], "alpha 8, epoch 3" in labels[1]] == [True, True] and len(labels) == 2
    page.set_content(static(scores.tokens(ASKED[0], ["original", "RKLU"])))
    assert page.locator(MARKS).count() == 2 * len(ASKED[0]["tokens"])
    page.get_by_role("button", name="All").click()
    assert page.locator(MARKS).count() == 5 * len(ASKED[0]["tokens"])
    p = ASKED[0]["models"]["original"]["true_probability"][0]
    first = page.locator("[role=option][aria-label^='original, token ␣Born']")
    assert f"{p:.3g}"[:4] in first.get_attribute("aria-label")


def test_runs_at_other_scales_are_shown_as_far_as_they_are_recorded(monkeypatch):
    there = RunSpec("mini", "forget10", "RKLU", 0)
    monkeypatch.setattr(scores, "load", lambda spec: Record(spec, {}, {}) if spec == there else None)
    assert [r.spec for r in scores.recorded(RUNS[:2], ["smoke", "mini"])] == [RUNS[0].spec, RUNS[1].spec, there]


def saved(page):
    with page.expect_download() as started:
        page.get_by_role("button", name="Download").click()
    return pd.read_csv(started.value.path(), keep_default_na=False)


def test_what_a_widget_shows_can_be_saved(visit):
    page = visit(book=False).page
    page.set_content(static(playground()))
    page.get_by_role("button", name="Step", exact=True).click()
    table = saved(page)
    assert list(table.token) == TOKENS and list(table["original logit"]) == playground().original
    start, aim = (torch.tensor(table[f"{name} logit"].to_numpy(float)) for name in ("original", "teacher"))
    z = start.requires_grad_()
    losses.forward_kl(z[None], aim[None], torch.tensor([True])).backward()
    np.testing.assert_allclose(table["forward logit"], (z - z.grad).detach(), atol=1e-6)
    np.testing.assert_allclose(table["teacher probability"], aim.softmax(0), atol=1e-6)
    assert table.loc[0, ["alpha", "c", "rate", "steps"]].tolist() == [8, 0, 1, 1]

    page.set_content(static(explorer()))
    table = saved(page)
    chosen = table[(table.position == 3) & (table.model == "NPO+RT")]
    top = ASKED[0]["models"]["NPO+RT"]["top"][2]
    assert list(chosen.token) == [text for text, _ in top] and set(table.question) == {ASKED[0]["question"]}
    assert {"entropy, nats", "KL to oracle, nats"} <= set(table)
    np.testing.assert_allclose(chosen.probability, [p for _, p in top])


def test_without_a_script_the_explorer_shows_where_it_opens():
    odd = ASKED[0] | {"question": "<b>?", "tokens": [" <i>", *ASKED[0]["tokens"][1:]]}
    words = BeautifulSoup(static(widgets.TokenDistributions([odd], position=1)), "html.parser").noscript
    text, p = ASKED[0]["models"]["RKLU"]["top"][1][0]
    said = [line.text for line in words.find_all("p")]
    assert said[0] == "<b>?" and said[2].endswith("after “ <i>”:") and not words.find_all(["b", "i"])
    assert said[-1].startswith(f"RKLU: {text.replace(' ', '␣')} {p:.3g}, ") and len(said) == 7
    assert "needs JavaScript" in words.text


def test_lines_of_several_seeds_end_in_their_seed(visit):
    page = visit(book=False).page
    page.set_content(static(scores.explorer(RUNS[:2], view="epochs")))
    ends = page.locator(".rk-chart").first.locator("> text[aria-hidden]")
    assert sorted(ends.all_text_contents()) == ["0", "1"] and "is its seed" in page.locator(".rk-told").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_widgets_live_in_the_built_pages(visit, scheme):
    page = visit("phone", scheme).open("notebooks/divergence_playground")
    forms = page.locator(".rk-widget form")
    assert forms.count() == 3
    forms.nth(1).get_by_role("button", name="10 steps").click()
    assert "After 10 steps" in forms.nth(1).locator(".rk-facts").inner_text()
    assert forms.nth(1).evaluate("e => getComputedStyle(e.parentElement).colorScheme") == scheme
    page = visit("phone", scheme).open("notebooks/token_explorer")
    before = page.locator(".rk-cards").inner_text()
    page.get_by_label("Position in the true answer").press("ArrowRight")
    assert page.locator(".rk-cards").inner_text() != before
    rules = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]
    options = {"runOnly": rules, "preload": False}  # axe would fetch the page's style sheets a second time
    report = Axe().run(page, context=".rk-widget", options=options)
    assert report.violations_count == 0, report.generate_report()


def test_text_from_data_cannot_end_the_script(visit):
    page = visit(book=False).page
    page.set_content(static(playground(tokens=["</script><b id=x>", *TOKENS[1:]])))
    assert page.locator("#x").count() == 0 and page.locator(".rk-row b").first.inner_text() == "</script><b id=x>"
