import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aim.report import strips
from aim.report.page import render
from aim.report.runs import RunData, read
from tests.pages.browser import look
from tests.report.made import predicted, random_predictions, run_directory

EVIL = ["<script>evil()</script>", '"><img src=x onerror=evil()>', "{{ 7 * 7 }}", "a & b"]
MEBIBYTE = 2**20


def made(folder: Path, name: str, *, seed: int = 0, classes: list[str] | None = None) -> RunData:
    found = random_predictions(60, 4, seed=seed, skill=1.0 + seed, classes=classes)
    run_dir = run_directory(
        folder / name, {"top1": 100 * float(found.right.mean()), "num_videos": 60}, f"{{lr: {seed}}}", found
    )
    return read(run_dir, whole=True)


def written(folder: Path, text: str) -> Path:
    page = folder / "report.html"
    page.write_text(text, encoding="utf-8")
    return page


def test_a_real_browser_shows_the_page_of_a_run_at_any_width(browser: Any, tmp_path: Path, unbroken: Path) -> None:
    """A run with frames; nothing in the page is wider than a phone, nothing complains, nothing is fetched."""
    page = written(tmp_path, render([read(unbroken, whole=True)]))
    for width, scheme in ((1280, "light"), (390, "dark")):
        tab = look(browser, page, width, scheme)
        assert tab.wrong == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.locator("svg").count() == 5  # four curves and the reliability diagram
        assert tab.locator("img").count() == 16  # all of the toy's videos are right or wrong
        tab.wait_for_function("[...document.images].every(image => image.naturalWidth > 100)")
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(251, 250, 248)" if scheme == "light" else "rgb(20, 22, 26)"
        )
        tab.close()


def test_several_runs_stand_side_by_side_and_sort(browser: Any, tmp_path: Path) -> None:
    runs = [made(tmp_path, f"run{i}", seed=i) for i in (1, 0, 2)]
    going_on = run_directory(tmp_path / "going on", None, "train: {epochs: 9}")
    page = written(tmp_path, render([*runs, read(going_on, whole=True)]))
    tab = look(browser, page, 390, "light")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    names = tab.locator("table.sortable").first.locator("tbody th a")
    assert names.all_inner_texts() == ["run1", "run0", "run2", "going on"]
    best_first = [run.name for run in sorted(runs, key=lambda run: -(run.results or {})["top1"])]
    head = tab.get_by_role("button", name="top-1 %")
    for order in ([*best_first, "going on"], ["going on", *best_first[::-1]]):
        head.click()
        assert names.all_inner_texts() == order
    tab.get_by_role("button", name="run", exact=True).click()
    assert names.all_inner_texts() == ["going on", "run0", "run1", "run2"]
    assert tab.locator("details.run[open]").count() == 0
    names.nth(1).click()
    tab.wait_for_selector("details.run[open]")  # the address changes a moment after the click
    assert tab.locator("details.run[open] > summary").all_inner_texts() == ["run0"]
    assert tab.locator("figure:has(.legend) polyline[stroke-width='2']").count() == 4 * 4
    assert tab.wrong == []
    tab.close()


def test_no_column_runs_off_the_page(browser: Any, tmp_path: Path) -> None:
    """With more settings than have a column, long names and several lists no table has to be scrolled."""
    runs = []
    for i, adapter in enumerate(("aim", "st_adapter", "lora")):
        more = "".join(f"setting_{j}: {i * 0.1}\n" for j in range(12))
        settings = f"adapter: {{kind: {adapter}}}\ndata: {{root: /videos/birds_{i}}}\nclip: {{size: {64 * i}}}\n{more}"
        results = {"identity": {"train_hash": f"{i:08}"}, "checkpoint": "x"} | ({"calibration_error": 0.1} if i else {})
        found = random_predictions(60, 4, seed=i)
        name = f"birds,adapter={adapter},optim.lr=0.0003,clip.size={64 * i},train.batch_size=64"
        runs.append(read(run_directory(tmp_path / name, results, settings, found), whole=True))
    tab = look(browser, written(tmp_path, render(runs)), 1200, "light")
    assert tab.locator(".scroll").first.is_visible()
    tab.evaluate("document.querySelectorAll('section details').forEach(each => each.open = true)")
    assert tab.evaluate("[...document.querySelectorAll('.scroll')].every(it => it.scrollWidth <= it.clientWidth)")
    assert tab.locator("table.compared").first.locator("thead th").all_inner_texts()[1:3] == ["data", "adapter"]
    assert tab.get_by_text("9 more settings differ").count() == 1
    tab.close()


def test_names_of_classes_and_files_are_never_run(browser: Any, tmp_path: Path) -> None:
    run = made(tmp_path, "<script>evil()<", classes=EVIL)
    assert run.found is not None
    path = np.array([f"<script>evil()</script>{i}'\"" for i in range(60)])
    bad = {"<img src=x onerror=evil()>": "<script>evil()</script>"}
    text = render([replace(run, found=replace(run.found, path=path), bad=bad)])
    assert "<script>evil" not in text
    assert "<img src=x" not in text
    tab = look(browser, written(tmp_path, text), 390, "light")
    assert tab.wrong == []
    assert tab.locator(".classes .name").all_inner_texts() == [
        each for each in tab.locator(".classes .name").all_inner_texts() if each in EVIL
    ]
    assert tab.locator("h1").inner_text() == "<script>evil()<"
    tab.close()


def test_the_page_of_400_classes_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With strips of noise, which compresses worse than any video."""
    noise = np.random.default_rng(0).integers(256, size=(6, 3, 84, 112), dtype=np.uint8)
    monkeypatch.setattr(strips, "strip", lambda *_: strips.encoded(noise))
    found = random_predictions(2000, 400, skill=5.0)
    run_dir = run_directory(tmp_path / "k400", {"num_videos": 2000}, "seed: 0", found, epochs=30)
    text = render([read(run_dir, whole=True)])
    assert text.count("<img") == 48
    assert len(text.encode()) < 2 * MEBIBYTE
    assert f"All {len(set(found.label.tolist()))} classes" in text
    assert '<table class="matrix">' not in text


def test_a_test_without_its_videos_says_so(tmp_path: Path) -> None:
    text = render([made(tmp_path, "run")])
    assert re.search(r"The frames of \d+ of \d+ videos are left out: .* under /nowhere\. .* data\.root=DIR", text)
    assert "<img" not in text


def test_two_runs_of_the_same_videos_are_tested_and_of_others_not(tmp_path: Path) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b", seed=3)]
    text = render(runs)
    assert "More than chance?" in text
    assert runs[1].found is not None
    other = replace(runs[1], found=replace(runs[1].found, about={"root": "/", "data_hash": "other"}))
    assert "More than chance?" not in render([runs[0], other])


@pytest.mark.parametrize("results", [{"num_videos": 0, "top1": 0.0}, None])
def test_a_test_in_which_no_video_could_be_read_has_a_page(tmp_path: Path, results: dict[str, Any] | None) -> None:
    whole = random_predictions(2, 3)
    columns = ("index", "label", "path", "span", "probability", "log_probability", "seconds")
    nothing = replace(whole, **{name: getattr(whole, name)[:0] for name in columns})
    text = render([read(run_directory(tmp_path / "run", results, "train: {epochs: 9}", nothing), whole=True)])
    assert not re.search(r"\bnan\b", text)
    assert "Confusions" not in text


def test_seeds_have_a_column_where_each_has_a_row(tmp_path: Path) -> None:
    runs = [read(run_directory(tmp_path / str(seed), {}, f"seed: {seed}"), whole=True) for seed in (0, 1)]
    assert re.search(r'<th scope="col">seed</th>\s+<th scope="col">views</th>', render(runs))


def test_a_run_before_its_first_line_has_a_page(tmp_path: Path) -> None:
    text = render([read(run_directory(tmp_path / "new", None, "train: {epochs: 3}", epochs=0), whole=True)])
    assert "No result yet" in text
    assert "No predictions in the folder yet" in text


def test_a_page_says_where_a_number_flatters(tmp_path: Path) -> None:
    found = predicted([0] * 7 + [1] * 3, [[0.9, 0.1]] * 10, ["walk", "fall"])
    about = {**found.results(), "num_videos": 10, "num_classes": 2, "chose": ["weights (test=best)"]}
    settings = """
adapter: {kind: lora, rank: 8}
clip: {num_frames: 8, stride_frames: 4, sampling: dense, size: 112}
train: {epochs: 5, batch_size: 16}
optim: {lr: 0.0003, schedule: step}
data: {root: /videos, lists: {kind: list_files, train: train.txt, val: val.txt}}
"""
    lists = {"lists": {"train": 40, "val": 10}, "identity": {"train_hash": "0123456789"}, "data_hash": "abcdefghij"}
    run = read(run_directory(tmp_path / "a", about | lists, settings, found), whole=True)
    text = render([run])
    for said in (
        "70.00<span> % top-1", "50.00<span> % mean per class", "largest class gives 70.00 % top-1, 50.00 % mean per",
        "chose weights (test=best)", "10 videos, (nearly) all, get one and the same answer: walk",
        "10 validation videos",
        "lora, rank 8", "8 frames every 4, 112 pixels", "5 epochs, 16 clips a step", "0.0003, step schedule",
        "/videos, 40 train.txt, 10 val.txt, 01234567, abcdefgh",
    ):  # fmt: skip
        assert said in text
    assert "top-5" not in text
    older = {key: value for key, value in about.items() if key not in ("baseline", "one_answer", "chose")}
    text = render([read(run_directory(tmp_path / "b", older, settings, found), whole=True)])
    assert "largest class gives 70.00 % top-1" in text
    assert "same answer: walk" in text
    assert "10 videos, 8x3x1 views" in text
