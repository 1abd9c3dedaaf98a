"""Kill anywhere: commands are killed with SIGKILL at random times and started again until they end as if nothing had been."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.stress.scenario import Scene, apart, sentence
from tests.stress.server import Server


def undisturbed(scene: Scene, server: Server) -> dict[str, float]:
    """Run every command of a scene in its order; return how long each took."""
    seconds = {}
    for name in scene.commands():
        ended = scene.run(server, name)
        assert ended.code == 0, f"{name}: {ended.err}"
        seconds[name] = ended.seconds
    assert not scene.leftovers()
    return seconds


def kill_anywhere(
    folder: Path, server: Server, kills: int, seed: int = 0, count: Callable[[str], object] = lambda name: None
) -> Iterator[str]:
    """Yield a line for everything that went wrong in at least `kills` kills, spread over the commands by how long they take.

    `count` is told the command of each kill.
    """
    scene, chance = Scene.draw(folder), random.Random(seed)
    seconds = undisturbed(scene, server)
    expected, done = scene.facts(), 0
    while done < kills:
        for place in scene.folders:
            shutil.rmtree(place)
        for name, usual in seconds.items():
            while True:
                after = chance.uniform(0, 1.2 * usual)
                ended = scene.run(server, name, meanwhile=lambda process, after=after: _kill_after(process, after))
                if ended.code == -signal.SIGKILL:
                    done += 1
                    count(name)
                    continue
                if ended.code != 0:
                    yield f"{name} after kill {done} (seed {seed}): {sentence(ended) or ended.err[-300:]}"
                    return
                break
        yield from (f"after kill {done} (seed {seed}): {line}" for line in apart(expected, scene.facts()))
        for left in scene.leftovers():
            yield f"{left} is left, after kill {done} (seed {seed})"


def _kill_after(process: int, seconds: float) -> None:
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
