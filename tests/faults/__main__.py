"""`python -m tests.faults`: a bad week of a shared machine: kills, failing writes, four at once and broken files, counted.

`python -m tests.faults kill` does one of them: kill, writes, together or fuzz. It leaves with 1 when there was a finding.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.faults.kill import kill_anywhere
from tests.faults.server import Server
from tests.faults.together import four_at_once
from tests.faults.writes import fail_each_write

KILLS, ROUNDS, CASES = 200, 6, 20_000
LANES = (("writes",), ("kill", "together", "fuzz"))
"""What goes on at the same time, one lane for each of two cores."""


def main() -> int:
    """Do what is named, or everything; return 1 when there was a finding."""
    if len(sys.argv) == 1:
        return _everything()
    if sys.argv[1] == "fuzz":
        return subprocess.call([sys.executable, "-m", "tests.faults.fuzz", "--cases", str(CASES)])
    counts: Counter[str] = Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name, Server(Path(name)) as server:
        folder = Path(name)
        if sys.argv[1] == "kill":
            findings = _told(kill_anywhere(folder / "scene", server, KILLS, count=counts.update))
        elif sys.argv[1] == "writes":
            findings = _told(
                fail_each_write(folder / "scene", server, lambda *_: True, count=lambda *case: counts.update([": ".join(case)]))
            )
        else:
            counts["rounds"] = ROUNDS
            findings = _told(four_at_once(folder / "scene", server, ROUNDS))
    for what, count in counts.items():
        print(f"{sys.argv[1]:<10}{what:<52}{count:>6}")
    print(
        f"{sys.argv[1]:<10}{'in all':<52}{counts.total():>6} {findings:>5} findings {time.monotonic() - started:>7.0f} s",
        flush=True,
    )
    return 1 if findings else 0


def _told(lines: Iterable[str]) -> int:
    findings = 0
    for line in lines:
        findings += 1
        print(f"FINDING {line}", flush=True)
    return findings


def _everything() -> int:
    lanes = [
        subprocess.Popen(
            ["/bin/sh", "-c", "; ".join(f'"$0" -m tests.faults {name} || bad=1' for name in lane) + "; exit $bad", sys.executable]
        )
        for lane in LANES
    ]
    return max(lane.wait() for lane in lanes)


if __name__ == "__main__":
    sys.exit(main())
