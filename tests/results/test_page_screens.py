"""The page on a phone and on a desk, light and dark: what is hidden says so, and text can be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench.experiment import figure7
from results.page import page
from results.strips import strips
from tests.results.test_page import CHROMIUM, TRUNK, board, draw, extra

SEEDS, LEAST_CONTRAST = 9, 4.5
"""Contrast of text after WCAG 2, level AA."""
SCREENS = [(width, scheme) for width in (400, 1200) for scheme in ("light", "dark")]
CONTRAST = """
(cell) => {
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  const paint = (colour) => {
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = (pixel) => pixel.slice(0, 3).map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, place) => sum + v * [.2126, .7152, .0722][place], 0);
  paint(getComputedStyle(document.body).backgroundColor);
  const paper = light(paint(getComputedStyle(cell).backgroundColor)), ink = light(paint(getComputedStyle(cell).color));
  return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
}
"""


def figure(path: Path) -> None:
    """Draw the progress of a pretext task as a run does."""
    kept = path.parent / "kept"
    for epoch in (1, 2):
        rows = {"grey": np.full((8, 3, 64, 64), 90, np.uint8), "learned": np.full((8, 3, 64, 64), 60 * epoch, np.uint8)}
        figure7.keep(kept, epoch, rows)
    figure7.draw(kept, path)


def write(folder: Path) -> Path:
    draw(folder)
    figure(folder / "pretrained" / TRUNK / "figure7.png")
    written = folder / "page.html"
    name = "a data set with a long name"
    text = page([board((0.1, 0.2, 0.3, 0.4), name, SEEDS)], [extra("a table of long words " * 3)], folder, "bench report --html")
    written.write_text(text, encoding="utf-8")
    return written


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[int, str], Any]]:
    """Open one page on every screen."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    written = write(tmp_path_factory.mktemp("screens"))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tabs = {}
        for width, scheme in SCREENS:
            tabs[width, scheme] = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            tabs[width, scheme].goto(written.as_uri())
            tabs[width, scheme].wait_for_function("document.querySelectorAll('.scroll').length > 4")
            tabs[width, scheme].wait_for_timeout(200)  # observers of sizes report after a frame
        yield tabs
        browser.close()


@pytest.mark.parametrize("screen", SCREENS)
def test_a_table_that_is_wider_than_the_screen_scrolls_and_says_so(
    opened: dict[tuple[int, str], Any], screen: tuple[int, str]
) -> None:
    tab = opened[screen]
    assert tab.evaluate("[...document.querySelectorAll('table')].every((table) => table.closest('.scroll'))")
    found = tab.evaluate(
        """() => [...document.querySelectorAll('.scroll')].map((box) => ({
          wide: box.scrollWidth > box.clientWidth + 1,
          cue: getComputedStyle(box, '::before').content.includes('scroll sideways'),
          faded: getComputedStyle(box).maskImage !== 'none',
          scrolls: getComputedStyle(box).overflowX === 'auto' && box.tabIndex === 0,
        }))"""
    )
    assert all(one["cue"] == one["faded"] == one["wide"] and one["scrolls"] for one in found)
    assert sum(one["wide"] for one in found) >= (3 if screen[0] == 400 else 0)
    assert tab.evaluate("document.scrollingElement.scrollWidth") <= screen[0]


def test_the_cue_ends_where_the_table_does(opened: dict[tuple[int, str], Any]) -> None:
    tab = opened[400, "light"]
    box = tab.locator(".scroll[data-wide]").first
    box.evaluate("(box) => { box.scrollLeft = box.scrollWidth; }")
    tab.wait_for_timeout(200)
    assert box.evaluate("(box) => [box.hasAttribute('data-wide'), box.hasAttribute('data-more')]") == [True, False]


@pytest.mark.parametrize("screen", SCREENS)
def test_every_run_is_shown_and_counted(opened: dict[tuple[int, str], Any], screen: tuple[int, str]) -> None:
    tab = opened[screen]
    assert tab.locator(".runs tbody tr").count() == 4 * SEEDS
    assert f"The {4 * SEEDS} runs of this table" in tab.locator("#board-1-again").inner_text()
    assert tab.evaluate("[...document.querySelectorAll('.scroll')].every((box) => box.scrollHeight <= box.clientHeight + 1)")


@pytest.mark.parametrize("screen", SCREENS)
def test_the_text_of_the_heat_map_and_of_figure_7_can_be_read(
    opened: dict[tuple[int, str], Any], screen: tuple[int, str]
) -> None:
    tab = opened[screen]
    cells = [*tab.locator(".heat td").all(), *tab.locator(".strips th").all()]
    assert len(cells) > 10
    assert min(cell.evaluate(CONTRAST) for cell in cells) >= LEAST_CONTRAST
    tab.evaluate("document.documentElement.style.setProperty('--heat', getComputedStyle(document.body).color)")
    assert min(cell.evaluate(CONTRAST) for cell in tab.locator(".heat td").all()) < LEAST_CONTRAST, "the measure itself"
    tab.evaluate("document.documentElement.style.removeProperty('--heat')")
    assert tab.locator(".strips th").all_inner_texts() == ["grey", "epoch 1", "epoch 2"]
    assert tab.locator(".grid7 .card").count() == 0


def test_a_difference_is_bold_where_it_is_told_from_zero_alone(opened: dict[tuple[int, str], Any], tmp_path: Path) -> None:
    tab = opened[1200, "light"]
    weights = tab.evaluate("[...document.querySelectorAll('.told')].map((one) => getComputedStyle(one).fontWeight)")
    assert len(weights) == 3 and set(weights) == {"700"}
    one_seed = page([board(seeds=1)], [], tmp_path, "")
    assert 'class="delta"' in one_seed and 'class="told"' not in one_seed and "<b>+" not in one_seed


def test_the_image_of_the_progress_is_taken_apart_into_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "figure7.png"
    figure(path)
    found = strips(path.read_bytes())
    assert [(strip.name, strip.size) for strip in found] == [(name, (512, 64)) for name in ("grey", "epoch 1", "epoch 2")]


@pytest.mark.parametrize(
    "rows",
    [
        None, "", "[]", "{}", "[" * 9999, {"names": ["a"], "left": 700, "height": 8, "step": 8}, {"names": [], "left": 0},
        {"names": ["a"] * 9, "left": 0, "height": 8, "step": 8}, {"names": ["a"], "left": 0, "height": 0, "step": 8},
        {"names": ["a"], "left": 0, "height": 9, "step": 8}, {"names": 5, "left": 0, "height": 8, "step": 8},
        {"names": ["a"], "left": 1e999, "height": 8, "step": 8},
    ],
)  # fmt: skip
def test_an_image_whose_text_says_something_else_is_shown_whole(rows: Any, tmp_path: Path) -> None:
    info = PngInfo()
    if rows is not None:
        info.add_text("rows", rows if isinstance(rows, str) else json.dumps(rows))
    path = tmp_path / "figure7.png"
    Image.new("RGB", (600, 40), "red").save(path, pnginfo=info)
    (whole,) = strips(path.read_bytes())
    assert whole.name == "" and whole.size == (600, 40)
