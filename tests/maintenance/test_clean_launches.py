"""What launches leave is removed once they have ended, and nothing that one at work may need."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from bench.launch import launch as launches
from bench.launch.local import began
from bench.storage import locks
from tests.maintenance.test_clean import items

Bench = Callable[..., "object"]


def test_launches_that_have_ended_go_with_their_logs_and_those_at_work_stay(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    (out / "failures").mkdir(parents=True)
    (out / locks.IN_USE).touch()
    (out / "failures" / "a-b.json").write_text("{}")
    made = {}
    for name, facts in (("ended", {"pid": 1, "began": 5}), ("lives", {"pid": os.getpid(), "began": began(os.getpid())})):
        made[name] = launches.Launch(
            id=name,
            launcher="local",
            out=str(out),
            cwd="/",
            words=(),
            workers=1,
            created=launches.now(),
            facts={"processes": {"0": facts}},
        ).keep()
    watched = made["ended"].model_copy(update={"id": "watched"}).keep()
    (out / "launches" / "notes.txt").write_text("a file of somebody else's")
    (out / "launches" / "half").mkdir()
    told = items(bench("clean", "--out", out).out)
    assert (told["launches"], told["failures"]) == ("2", "1")
    # between two starts of its worker a launch holds no lock, and goes on from its checkpoints
    refused = bench("clean", "work", "--out", out)
    assert refused.code == 4 and "launch lives is at work in" in refused.err
    assert bench("clean", "failures", "--out", out).code == 4 and list((out / "failures").iterdir())
    with locks.lock(watched.folder / "head.lock", print):
        assert bench("clean", "launches", "--out", out).code == 0
    assert sorted(path.name for path in (out / "launches").iterdir()) == ["half", "lives", "notes.txt", "watched"]
    shutil.rmtree(out / "launches" / "lives")
    assert bench("clean", "failures", "--out", out).code == 0 and not list((out / "failures").iterdir())
