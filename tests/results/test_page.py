"""The page says what the boards hold, loads nothing, survives hostile names, and works in a browser."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.protocol import Phase
from bench.record import Cost, DataFacts, Record, Trial, Tuning
from bench.storage.files import sha256_bytes
from bench.storage.seal import sealed
from results import charts
from results.board import Board, Cell, Row
from results.grouping import Column
from results.overlays import ERRORS, PADDING, VOID, _errors, _palette
from results.page import page
from results.significance import Difference
from results.statistics import Estimate
from results.tables import Line, Table
from tests.results.made import make as make_plain

HOSTILE = (
    "<script>window.hurt=1</script>",
    "a_b%",
    "[red]",
    '"onmouseover=window.hurt=1 ',
    "\"'><img src=x onerror=window.hurt=1>",
    "</svg></style></title>{{ 7 * 7 }}",
)
PRESENT = ("Differences from the baseline", "Learning curves", "What the pretext tasks learned", "Segmentations",
           "Class by class", "How much depends on the learning rate", "Cost and difference")  # fmt: skip
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def make(pretext: str, seed: int = 0, name: str = "voc", full: bool = True, kind: str = "fixed 1") -> Record:
    """Make a run of segmentation, with everything that the page can show or with as little as a record may hold."""
    classes = ("cat", name)
    data = DataFacts(
        name=name, synthetic=True, fingerprint="f" * 64, splits_fingerprint="s" * 64, counts={}, classes=classes, scored=classes
    )
    cost = Cost(seconds=30.0 if full else 0.0, images=10, peak_memory=100, device=name if name != "voc" else "cpu")
    trials = (
        Trial(number=0, rates={"phase-1": 1e-3, "phase-2": 1e-4}, state="complete", value=0.2),
        Trial(number=1, rates={"phase-1": 1e-2, "phase-2": 3e-4}, state="pruned", value=None, epochs={1: 0.1}),
        Trial(number=2, rates={"phase-1": 1e-1, "phase-2": 1e-2}, state="diverged", value=None),
    )
    tuning = Tuning(
        study=f"{pretext}-{name}", budget=3, space=dict.fromkeys(trials[0].rates, (1e-4, 1.0)), sampler="tpe", pruner="median",
        metric="miou_voc@1", seed=0, trials=trials, best=trials[0].rates, best_value=0.2, cost=cost,
    )  # fmt: skip
    phases = tuple(Phase(train=train, epochs=2, lr=1e-3) for train in ("head", "all"))
    one = make_plain(pretext, seed, settings={"schedules": {"two-phase": phases}})
    changes: dict[str, Any] = {
        "title": name, "data": data, "cost": cost, "examples": sha256_bytes(images(kind)), "per_class": {}, "losses": [],
        "pretrain": one.pretrain.model_copy(update={"data": data, "cost": cost}),
        "provenance": {"commit": "c" * 40, "versions": {"torch": name}},
    }  # fmt: skip
    if full:
        judged = {"background": 0.9, "cat": 0.25 + seed / 10, name: None}
        changes |= {"per_class": {"miou_voc@1": judged}, "losses": [[2.0, 1.5 + seed], [1.0, 0.5]], "tuning": tuning}
    return one.model_copy(update=changes)


def board(
    values: tuple[float, ...] = (0.1, 0.095, 0.3), name: str = "voc", seeds: int = 2, full: bool = True, kind: str = "fixed 1"
) -> Board:
    """Make a board of one column; its first row is the baseline of the others."""
    rows = []
    for place, value in enumerate(values):
        label = f"{name} {place}"
        records = tuple(make(f"pretext{place}", seed, name, full, kind) for seed in range(seeds))
        p = 0.01 if seeds > 1 else None
        difference = Difference(f"{name} 0", Estimate(value - values[0], -0.01, 0.2, seeds, p=p), p) if place and full else None
        cell = Cell(records, Estimate(value, value - 0.01, value + 0.01, seeds), difference, leading=place == 2)
        rows.append(Row(label, f"pretext{place}", "two-phase", "all", "all", (cell,)))
    trivial = Row(f"nothing {name}", "nothing", "", "", "", (Cell((), Estimate(0.2, 0.19, 0.21, 1)),))
    column = Column("voc_seg", f"Segmentation {name}", "miou_voc@1", f"tuned {name}", "v", 3)
    facts = {"data": name, "protocol": "paper", "trunk": "unet", "size": 8, "split": "test", "labels": 1.0, "synthetic": True}
    return Board(facts, (column,), tuple(rows), (trivial,), (f"note {name}",))


def draw(out: Path, pretext: str = "pretext0", kind: str = "fixed 1") -> None:
    """Write a run's images, and its trunk's Figure 7, below a folder."""
    one = make(pretext)
    run, trunk = out / "runs" / one.id, out / "pretrained" / one.pretrain.id
    run.mkdir(parents=True)
    trunk.mkdir(parents=True)
    (run / "examples.npz").write_bytes(images(kind))
    Image.new("RGB", (600, 40), "red").save(trunk / "figure7.png")


def images(kind: str = "fixed 1") -> bytes:
    """Return the images of a run."""
    truth = np.array([[0, 1, 2, VOID, PADDING]] * 5, dtype=np.uint8)
    pixels = {
        "images": np.arange(150, dtype=np.uint8).reshape(2, 5, 5, 3),
        "truth": np.stack([truth, truth]),
        "found": np.ones((2, 5, 5), np.uint8),
    }
    kinds = [kind, kind.replace("fixed", "worst")]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, kinds=kinds, ids=["a", "b"], iou=[0.25, 0.1], **pixels)  # type: ignore[arg-type]
    return buffer.getvalue()


RUN, TRUNK = make("pretext0").id, make("pretext0").pretrain.id


def extra(name: str) -> Table:
    return Table(name, (name,), (name, "Value"), (Line((name, "1"), frozenset({1})), Line((name, ""), heading=True)))


class Reading(HTMLParser):
    """What a browser would find: every element with its attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_cell_has_value_interval_seeds_and_difference(tmp_path: Path) -> None:
    text = " ".join(" ".join(Reading(page([board()], [], tmp_path, "")).texts).split())
    assert "30.00 [29.0, 31.0] n = 2" in text
    assert "−0.50 [−1.0, +20.0], p 0.010, Holm 0.010 against voc 0" in text
    assert "Segmentation voc (miou_voc@1, %; tuned, 3 trials)" in text
    assert "one seed: interval over images only" not in text
    assert "Synthetic data" in text and "miou_voc@1: mIoU, void ignored." in text


def test_with_one_seed_the_page_says_so_and_gives_no_p(tmp_path: Path) -> None:
    written = page([board(seeds=1)], [], tmp_path, "")
    text = " ".join(" ".join(Reading(written).texts).split())
    assert "one seed: images only +20.00 [−1.0, +20.0], one seed against voc 0" in text
    assert '<span class="p">' not in written and '<span class="p">' in page([board()], [], tmp_path, "")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_everywhere(name: str, tmp_path: Path) -> None:
    draw(tmp_path, kind=f"fixed {name}")
    plain = Reading(page([board(kind=f"fixed {name}")], [extra("t")], tmp_path, "c"))
    draw(tmp_path / "hostile", kind=f"fixed {name}")
    found = Reading(page([board(name=name, kind=f"fixed {name}")], [extra(name)], tmp_path / "hostile", name))
    assert [tag for tag, _ in found.elements] == [tag for tag, _ in plain.elements]
    assert [sorted(attributes) for _, attributes in found.elements] == [sorted(attributes) for _, attributes in plain.elements]
    assert any(name in text for text in found.texts)


def test_every_section_is_there_when_there_is_something_to_show(tmp_path: Path) -> None:
    draw(tmp_path)
    text = page([board()], [extra("Table 3")], tmp_path, "bench report --html")
    assert all(f"<h3>{title}</h3>" in text for title in PRESENT)
    assert "bench report --html" in text and "f" * 64 in text and "s" * 64 in text and "c" * 12 in text


def test_sections_with_nothing_to_show_are_left_out(tmp_path: Path) -> None:
    text = page([board(full=False)], [], tmp_path, "")
    assert not any(f"<h3>{title}</h3>" in text for title in PRESENT)
    assert "How to reproduce" in text and "<svg" not in text and "<img" not in text
    assert "How to make this page again" in page([], [], tmp_path, "")


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    draw(tmp_path)
    assert page([board()], [extra("t")], tmp_path, "c") == page([board()], [extra("t")], tmp_path, "c")


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    draw(tmp_path)
    text = page([board(), board()], [extra("t")], tmp_path, "c")
    found = Reading(text)
    policy = next(a["content"] for tag, a in found.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    addresses = [a[name] or "" for _, a in found.elements for name in ("src", "href", "srcset", "xlink:href") if name in a]
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert "@import" not in text and "url(" not in text
    names = [a["id"] for _, a in found.elements if "id" in a]
    assert len(names) == len(set(names)) and {a[1:] for a in addresses if a.startswith("#")} <= set(names)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(40), "half", "shape"])
def test_damaged_images_are_left_out_and_named(content: bytes | str, tmp_path: Path) -> None:
    draw(tmp_path)
    draw(tmp_path, "pretext1")
    path = tmp_path / "runs" / RUN / "examples.npz"
    if content == "shape":
        buffer = io.BytesIO()
        np.savez(buffer, kinds=["fixed 1"], ids=["a"], iou=[0.5], images=np.zeros((1, 4, 4, 3), np.uint8),
                 truth=np.zeros((1, 4, 5), np.uint8), found=np.zeros((1, 4, 4), np.uint8))  # fmt: skip
        content = buffer.getvalue()
    path.write_bytes(path.read_bytes()[:-200] if isinstance(content, str) else content)
    (tmp_path / "pretrained" / TRUNK / "figure7.png").write_bytes(b"not an image")
    text = page([board()], [], tmp_path, "")
    assert f"runs/{RUN}/examples.npz are damaged or of another run, and left out" in text
    assert f"pretrained/{TRUNK}/figure7.png is damaged and left out" in text
    assert "voc 1, seed 0" in text and "voc 0, seed 0" not in text


def test_figures_of_another_training_of_the_same_trunk_are_left_out_and_named(tmp_path: Path) -> None:
    draw(tmp_path)
    folder = tmp_path / "pretrained" / TRUNK
    known, another = (sealed(f'{{"weights": "{weights}"}}') for weights in ("w", "another"))
    for content, shown in ((known, True), (another, False), (known.replace('"w"', '"v"'), False), ("[" * 9999, False)):
        (folder / "pretrain.json").write_text(content)
        text = page([board()], [], tmp_path, "")
        assert ("figure7.png is of another training, or its record is damaged" not in text) == shown


def test_an_error_map_tells_misses_from_inventions_and_leaves_void_and_padding() -> None:
    truth = np.array([[0, 1, 1, 0, 1, VOID, PADDING]], dtype=np.uint8)
    found = np.array([[0, 1, 0, 2, 2, 1, 1]], dtype=np.uint8)
    wrong = _errors(truth, found)
    assert wrong.tolist() == [[0, 1, 2, 3, 4, VOID, PADDING]] and wrong.dtype == np.uint8
    assert [name for name, _ in ERRORS.values()][2:] == ["missed object", "object where there is none", "wrong class"]


def test_classes_have_pascal_vocs_colours() -> None:
    assert _palette()[[0, 1, 2, 15, 20, VOID]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128], [255, 255, 255],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "low, high, log", [(0, 1, False), (-3, 7, False), (5, 5, False), (1e-5, 1e-1, True), (3, 40, True), (31, 32, True)]
)
def test_an_axis_has_a_few_round_ticks_within_it(low: float, high: float, log: bool) -> None:
    axis = charts._Axis.around([low, high], 0, 100, log)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 9 and all(axis.low <= tick <= axis.high for tick in ticks)
    assert axis.at(axis.low) == 0 and axis.at(axis.high) == pytest.approx(100)


def test_a_difference_without_an_interval_or_an_undefined_cell_is_no_error(tmp_path: Path) -> None:
    made = board()
    (cell,) = made.rows[1].cells
    assert cell.difference is not None
    nan = float("nan")
    odd = replace(
        cell, estimate=Estimate(0.2, nan, nan, 2), difference=replace(cell.difference, estimate=Estimate(0.1, nan, nan, 2))
    )
    cells = (odd, Cell(cell.records), Cell())
    rows = tuple(replace(row, cells=(one,)) for row, one in zip(made.rows, cells, strict=True))
    text = " ".join(Reading(page([replace(made, rows=rows)], [], tmp_path, "")).texts)
    assert "[no interval]" in text and "undefined" in text and "–" in text and " nan" not in text


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, list[str], list[str]]]:
    """Open a page of two boards, one with hostile names, and keep what the browser complains of and asks for."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    folder = tmp_path_factory.mktemp("page")
    draw(folder, kind=f"fixed {HOSTILE[4]}")
    name = " ".join(HOSTILE)
    written = folder / "page.html"
    first = board(kind=f"fixed {HOSTILE[4]}")
    first = replace(first, rows=(Row("unfinished", "unfinished", "two-phase", "all", "all", (Cell(),)), *first.rows))
    written.write_text(page([first, board(name=name, kind=f"fixed {HOSTILE[4]}")], [extra(name)], folder, name), encoding="utf-8")
    complaints: list[str] = []
    requests: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 400, "height": 800}, color_scheme="dark")
        tab.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(written.as_uri())
        yield tab, complaints, requests
        browser.close()


def _values(tab: Any) -> list[str]:
    return [text.split()[0] for text in tab.locator("#board-1 table.sortable tbody:first-of-type td").all_inner_texts()]


def test_a_click_sorts_by_number_and_turns_round_with_what_is_missing_last(
    opened: tuple[Any, list[str], list[str]],
) -> None:
    tab = opened[0]
    head = tab.locator("#board-1 table.sortable th").nth(1)
    head.locator("button").click()
    assert (_values(tab), head.get_attribute("aria-sort")) == (["30.00", "10.00", "9.50", "–"], "descending")
    head.locator("button").click()
    assert (_values(tab), head.get_attribute("aria-sort")) == (["9.50", "10.00", "30.00", "–"], "ascending")
    assert tab.locator("#board-1 table.sortable tbody:last-of-type th").all_inner_texts()[1] == "nothing voc"


def test_the_keyboard_sorts_too(opened: tuple[Any, list[str], list[str]]) -> None:
    tab = opened[0]
    heads = tab.locator("#board-1 table.sortable th")
    heads.nth(0).locator("button").focus()
    tab.keyboard.press("Enter")
    assert (_values(tab), heads.nth(0).get_attribute("aria-sort")) == (["–", "10.00", "9.50", "30.00"], "ascending")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Space")
    assert (_values(tab), heads.nth(0).get_attribute("aria-sort")) == (["30.00", "10.00", "9.50", "–"], "none")


def test_a_phone_in_the_dark_can_show_it(opened: tuple[Any, list[str], list[str]]) -> None:
    tab = opened[0]
    assert tab.evaluate("document.scrollingElement.scrollWidth") <= 400
    colour = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert all(int(part) < 64 for part in colour.removeprefix("rgb(").removesuffix(")").split(","))


def test_everything_drawn_has_a_name(opened: tuple[Any, list[str], list[str]]) -> None:
    tab = opened[0]
    drawn = tab.get_by_role("img")
    assert tab.locator("svg[role=img]").count() >= 10 and drawn.count() >= 10
    assert tab.evaluate("[...document.querySelectorAll('svg[role=img]')].every(e => e.ariaLabel && e.querySelector('title'))")
    assert tab.evaluate("[...document.images].length > 4 && [...document.images].every(e => e.alt && e.naturalWidth)")


def test_nothing_is_asked_for_and_nothing_hostile_runs(opened: tuple[Any, list[str], list[str]]) -> None:
    tab, complaints, requests = opened
    tab.locator("svg .mark").first.hover(force=True)
    assert tab.evaluate("window.hurt") is None
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [tab.url]
