import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from aim.study.shown.page import render, span_text
from tests.pages.browser import look
from tests.study.example import ADAPTERS, PAIRS, SCORES, TRUNKS, example, table_example

EVIL = ["<script>evil()</script>", '"><img src=x onerror=evil()>', "{{ 7 * 7 }}", "a & b"]


def shown(browser: Any, folder: Path, text: str, width: int, scheme: str) -> Any:
    """The page of this text in a window of this width."""
    page = folder / "study.html"
    page.write_text(text, encoding="utf-8")
    return look(browser, page, width, scheme)


DRAWN = """() => [...document.querySelectorAll("svg[role=img]")]
  .filter(svg => svg.getClientRects().length)"""
OUTSIDE = f"""{DRAWN}.flatMap(svg => {{
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text, use, path")].filter(each => {{
    if (each.closest("defs")) return false;
    const box = each.getBoundingClientRect();
    return box.left < frame.left - 5 || box.right > frame.right + 12 || box.top < frame.top - 5
      || box.bottom > frame.bottom + 5;
  }}).map(each => each.outerHTML);
}})"""
OVERLAPPING = f"""{DRAWN}.flatMap(svg => {{
  const boxes = [...svg.querySelectorAll("text")].map(each => [each.textContent, each.getBoundingClientRect()]);
  return boxes.flatMap(([a, one], i) => boxes.slice(i + 1).filter(([b, two]) =>
    one.left < two.right && two.left < one.right && one.top + 3 < two.bottom && two.top + 3 < one.bottom
  ).map(([b]) => [a, b]));
}})"""


@cache
def whole() -> str:
    """The page of the whole example, rendered once."""
    return render(example())


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_real_browser_shows_the_page_at_any_width(browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    """Nothing in it is wider than a phone, nothing complains, nothing is fetched, no labels overlap."""
    text = whole()
    assert len(text.encode()) < 2 * 2**20
    tab = shown(browser, tmp_path, text, width, scheme)
    tab.wait_for_selector("table.cells")
    assert tab.wrong == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(251, 250, 248)" if scheme == "light" else "rgb(20, 22, 26)"
    )
    tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(OUTSIDE) == []
    assert tab.evaluate(OVERLAPPING) == []
    tab.evaluate("document.querySelectorAll('svg[role=img] text').forEach(each => each.setAttribute('x', 500))")
    assert tab.evaluate(OUTSIDE)
    assert tab.evaluate(OVERLAPPING)
    ids = tab.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))
    assert tab.evaluate("[...document.querySelectorAll('use')].every(use => document.querySelector(use.href.baseVal))")
    tab.close()


def test_every_cell_is_in_a_table_that_sorts(browser: Any, tmp_path: Path) -> None:
    study = example(shares=[0.1, 1.0], seeds=1)
    tab = shown(browser, tmp_path, render(study), 1280, "light")
    rows = tab.locator("table.cells tbody tr")
    assert rows.count() == len(study["cells"]) == len(TRUNKS) * len(ADAPTERS) * 2
    done = [cell for cell in study["cells"] if cell["state"] == "done"]
    best = max(done, key=lambda cell: cell["scores"]["top1"][0])
    worst = min(done, key=lambda cell: cell["scores"]["top1"][0])
    head = tab.locator("table.cells thead button").filter(has_text=re.compile("^top-1$"))
    head.click()
    tab.wait_for_selector("table.cells th[aria-sort=descending]")
    assert rows.first.locator("th").inner_text() == best["name"]
    head.click()
    tab.wait_for_selector("table.cells th[aria-sort=ascending]")
    lost = len(study["cells"]) - len(done)
    assert "out of memory" in " ".join(rows.nth(i).inner_text() for i in range(lost))  # those without a value first
    assert rows.nth(lost).locator("th").inner_text() == worst["name"]
    assert tab.wrong == []
    tab.close()


def test_tasks_stand_under_their_kind_with_their_sentence(browser: Any, tmp_path: Path) -> None:
    study = example(shares=[1.0], seeds=1, axes=["parameters"])
    tab = shown(browser, tmp_path, render(study), 1280, "light")
    for kind in ("smooth", "emergent", "flat", "falling"):
        found = tab.locator(f"h3:has(.kind-{kind}) + .tiles figure")
        expected = [c for c in study["curves"] if c["kind"] == kind and c["score"] == "top1" and c["task"] in PAIRS]
        assert found.count() == len(expected) > 0
        assert {each.split("\n")[-1] for each in found.all_inner_texts()} == {c["why"] for c in expected}
    assert tab.locator("h3:has(.kind-few)").count() == 0
    emergent = tab.locator("h3:has(.kind-emergent) + .tiles figure").first
    for part in ("fit", "threshold", "chance"):
        assert emergent.locator(f"g.{part}").count() == 1
    assert tab.locator(".pair").count() == len(study["mirages"])
    assert tab.locator(".pair").first.locator("svg").count() == 2  # top-1 and, of single tasks here, cross-entropy
    tab.close()


def test_names_are_never_run(browser: Any, tmp_path: Path) -> None:
    trunks = dict(zip(EVIL, (10, 100, 1000, 10000), strict=True))
    study = example(trunks=trunks, adapters=EVIL, shares=[1.0], seeds=1)
    study |= {"title": EVIL[0], "summary": EVIL}
    text = render(study)
    assert "<script>evil" not in text
    assert "<img src=x" not in text
    tab = shown(browser, tmp_path, text, 390, "light")
    assert tab.wrong == []
    assert tab.locator("h1").inner_text() == EVIL[0]
    assert tab.locator(".found li").all_inner_texts() == EVIL
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.close()


def test_a_table_from_elsewhere_has_a_chart_for_each_task() -> None:
    text = render(table_example())
    assert re.findall("<figcaption>(.*?)</figcaption>", text)[:2] == ["modular arithmetic", "word unscramble"]
    assert "Every cell" not in text
    assert "No score that counts right answers jumps" not in text  # there is no continuous score to compare it with


def test_a_study_before_its_first_result_says_so() -> None:
    study = example(shares=[1.0], seeds=1)
    for cell in study["cells"]:
        cell |= {"state": "missing", "scores": {}}
    text = render({**study, "curves": [], "mirages": [], "thresholds": [], "laws": [], "helps": [], "summary": []})
    assert "there is nothing to draw" in text
    assert f"{len(study['cells'])} of {len(study['cells'])} cells have no result" in text


def test_scores_of_both_sorts_stand_side_by_side() -> None:
    text = render(example(shares=[1.0], seeds=1, axes=["parameters"]))
    part = text.split("Emergence, or a mirage")[1].split("<h3>Jumps")[0]
    right, continuous = part.split("<h3>Continuous</h3>")
    names = [spec["name"] for spec in SCORES.values()]
    assert re.findall("<figcaption>(.*?)</figcaption>", right) == names[:4]
    assert re.findall("<figcaption>(.*?)</figcaption>", continuous) == names[4:]


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ((None, None, None), "nowhere"),
        ((5000.0, 1000.0, 20000.0), "5000 (1000 to 20 k)"),
        ((50.0, None, 50.0), "50 or less"),
        ((50.0, None, 70.0), "50 (at most 70)"),
        ((50.0, 20.0, None), "50 (at least 20)"),
        ((50.0, None, None), "50"),
    ],
)
def test_places_are_said_with_what_is_known(at: tuple[float | None, ...], expected: str) -> None:
    assert span_text(*at) == expected
