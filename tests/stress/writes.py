"""The Nth write fails: for N = 1, 2, 3 ... one operation on a file fails, all do from there on, or the process dies in it."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.stress.scenario import Scene, apart, sentence
from tests.stress.server import CLOCK, COUNT, FAIL_FROM, FAIL_ONCE, KILL, Fault, Server

MODES = {
    "fails once": (FAIL_ONCE, 1),
    "fails from there on": (FAIL_FROM, 4),
    "kills": (KILL, 2),
    "moves the clock a day back": (CLOCK, 8),
}
"""What happens to the Nth operation, and which are tried: every one, every fourth ..."""
DAY = 24 * 3600


def fail_each_write(
    folder: Path,
    server: Server,
    chosen: Callable[[str, str, int], bool],
    count: Callable[[str, str], object] = lambda name, mode: None,
) -> Iterator[str]:
    """Yield a line for everything that went wrong when the Nth operation of each command of a scene failed.

    `chosen` takes command, mode and N and tells whether to try it; `count` is told of each case.
    """
    scene, before = Scene.draw(folder, trials=3, checkpoint_seconds=0.1), folder / "before"
    for name in scene.commands():
        shutil.rmtree(before, ignore_errors=True)
        scene.save(before)
        whole = scene.run(server, name, fault=Fault(COUNT, 0, scene.folders))
        assert whole.code == 0, whole.err
        expected = scene.facts()
        cases = ((mode, number) for mode, (_, step) in MODES.items() for number in range(1, whole.operations + 1, step))
        for mode, number in cases:
            if chosen(name, mode, number):
                count(name, mode)
                scene.restore(before)
                for problem in _one(scene, server, name, Fault(MODES[mode][0], number, scene.folders, -DAY)):
                    yield f"{name}, operation {number} of {whole.operations} {mode}: {problem}"
                yield from (f"{name}, operation {number} {mode}: {line}" for line in apart(expected, scene.facts()))
        scene.restore(before)
        assert scene.run(server, name).code == 0


def _one(scene: Scene, server: Server, name: str, fault: Fault) -> Iterator[str]:
    ended = scene.run(server, name, fault=fault)
    if ended.code != -signal.SIGKILL or fault.mode != KILL:
        yield from filter(None, [sentence(ended)])
    again = scene.run(server, name)
    if again.code:
        yield f"then it does not end: {sentence(again) or again.err[-300:]}"
    for left in scene.leftovers():
        yield f"{left} is left"
