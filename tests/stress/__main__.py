"""`python -m tests.stress`: a bad week of a shared machine: kills, failing writes, four at once and broken files, counted.

`python -m tests.stress kill` does one of them: kill, together, fuzz, writes-of-run or writes-of-the-rest. It leaves with 1 when
there was a finding.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.stress.kill import kill_anywhere
from tests.stress.server import Server
from tests.stress.together import four_at_once
from tests.stress.writes import fail_each_write

KILLS, ROUNDS, CASES = 200, 6, 20_000
LANES = (("writes-of-run",), ("kill", "together", "fuzz", "writes-of-the-rest"))
"""What goes on at the same time, one lane for each of two cores."""


def main() -> int:
    """Do what is named, or everything; return 1 when there was a finding."""
    if len(sys.argv) == 1:
        return _everything()
    if sys.argv[1] == "fuzz":
        return subprocess.call([sys.executable, "-m", "tests.stress.fuzz", "--cases", str(CASES)])
    counts: Counter[str] = Counter()
    started, findings = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as name, Server(Path(name)) as server:
        for line in _lines(sys.argv[1], Path(name) / "scene", server, counts):
            findings += 1
            print(f"FINDING {line}", flush=True)
    for what, count in sorted(counts.items()):
        print(f"{sys.argv[1]:<20}{what:<46}{count:>6}")
    seconds = time.monotonic() - started
    print(f"{sys.argv[1]:<20}{'in all':<46}{counts.total():>6} {findings:>5} findings {seconds:>7.0f} s", flush=True)
    return 1 if findings else 0


def _lines(asked: str, folder: Path, server: Server, counts: Counter[str]) -> Iterator[str]:
    if asked == "kill":
        return kill_anywhere(folder, server, KILLS, count=lambda name: counts.update([name]))
    if asked == "together":
        counts["rounds of five processes and four reports"] = ROUNDS
        return four_at_once(folder, server, ROUNDS)
    is_run = asked == "writes-of-run"
    return fail_each_write(
        folder,
        server,
        lambda name, mode, number: (name == "run") == is_run,
        count=lambda name, mode: counts.update([f"{name}: {mode}"]),
    )


def _everything() -> int:
    def lane(names: tuple[str, ...]) -> subprocess.Popen[bytes]:
        steps = "; ".join(f'"$0" -m tests.stress {name} || bad=1' for name in names)
        return subprocess.Popen(["/bin/sh", "-c", f"{steps}; exit $bad", sys.executable])

    return max(one.wait() for one in [lane(names) for names in LANES])


if __name__ == "__main__":
    sys.exit(main())
