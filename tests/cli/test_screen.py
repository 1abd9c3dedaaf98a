"""The screen says what is being done, also when nothing else does, and how long the command still takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from bench.cli import screen
from bench.cli.screen import Screen


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Let a screen talk after 0.2 seconds; return what gives the lines that it said."""
    monkeypatch.setattr(screen, "QUIET", 0.2)
    return lambda: capsys.readouterr().out.splitlines()


def wait() -> None:
    time.sleep(0.6)


def test_a_silent_stretch_is_filled_with_what_is_being_done(said: Callable[[], list[str]]) -> None:
    with Screen() as one:
        wait()
        assert said()[0] == "  still at work: starting"
        one.echo("packing 9 images")
        wait()
        assert said()[:2] == ["packing 9 images", "  still at work: packing 9 images"]
        one.packing(3, 9)
        wait()
        assert said()[0] == "  still at work: packing: 3 of 9 images"
        one.doing("scoring")
        wait()
        assert said()[0] == "  still at work: scoring"
        one.stage("pretrain", 4, 25, 50)
        one.step(2, None, 8)
        wait()
        assert said()[1].startswith("  still at work: pretrain: epoch 3/4, step 51 of 100, about ")
    wait()
    assert said() == []  # a command that ended is silent


def test_a_screen_that_speaks_says_nothing_more(said: Callable[[], list[str]]) -> None:
    with Screen() as one:
        for _ in range(8):
            one.echo("a line")
            time.sleep(0.1)
    assert set(said()) == {"a line"}


def test_a_bar_that_moves_is_no_silence(said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    with Screen() as one:
        one.progress = screen.Progress(console=one.console, disable=True)
        one.stage("pretrain", 1, 10, 0)
        wait()
        assert not [line for line in said() if "still" in line]
        assert one.task is not None
        one.progress.update(one.task, completed=10)
        one.doing("scoring")
        wait()
        assert "  still at work: scoring" in said()


def test_the_time_left_is_that_of_the_whole_command(said: Callable[[], list[str]]) -> None:
    with Screen() as one:
        asked: list[float] = []
        one.left = lambda stage: asked.append(stage) or 7200.0  # type: ignore[func-returns-value]
        one.stage("voc_seg", 2, 10, 0)
        one.began -= 5
        for _ in range(10):
            one.step(0, {"loss": 1.0}, 4)
        one.epoch(0, {"loss": 1.0}, 5.0, 40)
        assert said() == ["voc_seg: epoch 1/2  loss 1.0000  8 images/s  about 2 h 0 min left"]
        assert asked[-1] == pytest.approx(5, rel=0.05)  # of this stage: ten steps of half a second
