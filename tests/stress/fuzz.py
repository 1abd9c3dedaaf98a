"""Every file format that the program reads, broken in thousands of ways.

    python -m tests.stress.fuzz --cases 20000            a table: format, cases, works, refused, findings
    python -m tests.stress.fuzz --case png:chunk:17      one case again, with its traceback

A case is named `format:mutation:seed`, and its name alone decides what is broken. Cases run in forked processes with a limit on
their memory, many to a process; the parent notices one that hangs, that is killed, or that takes memory by a number in a file.
Allowed is what the valid file gives (or, for source data, what another valid file could give), or a refusal: one sentence with
the file's name and the exit code of bad data.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.stress.cases import Case, Outcome, ground, plan, run


@dataclass
class Tally:
    """What became of a format's cases."""

    cases: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    findings: dict[str, Outcome] = field(default_factory=dict)
    seconds: float = 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run cases and print what became of them; 1 when there are findings."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress.fuzz", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--cases", type=int, default=500, help="how many in all")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--formats", default="", help="only these, by comma")
    parser.add_argument("--case", action="append", default=[], help="only this case, by its name")
    parser.add_argument("--seeds", type=Path, help="a VOC folder whose images, masks and annotations are examples too")
    parser.add_argument("--keep", type=Path, help="folder for broken files with a finding")
    parser.add_argument("--json", type=Path, help="write what became of every format here")
    asked = parser.parse_args(arguments)
    with ground() as folder:
        from tests.stress.formats import formats_below

        formats = formats_below(folder, asked.seeds)
        chosen = {name: formats[name] for name in asked.formats.split(",")} if asked.formats else formats
        if asked.case:
            cases: dict[str, list[Case]] = {}
            for case in map(Case.parse, asked.case):
                cases.setdefault(case.format, []).append(case)
        else:
            cases = plan(chosen, asked.cases, asked.first)
        tallies = {}
        for name, some in cases.items():
            tally = tallies[name] = Tally()
            began = time.monotonic()
            for case, outcome in run(formats[name], some, keep=asked.keep):
                tally.cases += 1
                tally.kinds[outcome.kind] += 1
                if not outcome.allowed:
                    tally.findings[str(case)] = outcome
                if asked.case:
                    print(f"{case}: {outcome.kind} {outcome.text} {outcome.place}")
            tally.seconds = time.monotonic() - began
            if not asked.case:
                _line(name, tally)
        _line("all", _sum(tallies.values()))
        _findings(tallies)
        if asked.json:
            asked.json.write_text(json.dumps({name: _facts(tally) for name, tally in tallies.items()}, indent=1))
    return 1 if any(tally.findings for tally in tallies.values()) else 0


def _line(name: str, tally: Tally) -> None:
    counts = f"{tally.cases:>6} cases {tally.kinds['works']:>6} work {tally.kinds['refused']:>6} refused"
    print(f"{name:<24}{counts} {len(tally.findings):>5} findings {tally.seconds:>7.1f} s", flush=True)


def _sum(tallies: Iterable[Tally]) -> Tally:
    whole = Tally()
    for tally in tallies:
        whole.cases += tally.cases
        whole.kinds += tally.kinds
        whole.findings |= tally.findings
        whole.seconds += tally.seconds
    return whole


def _findings(tallies: Mapping[str, Tally]) -> None:
    """Print one case of each finding: those of one format, kind and place are one."""
    for name, tally in tallies.items():
        alike: dict[tuple[str, str, str], list[str]] = {}
        for case, outcome in tally.findings.items():
            sort = outcome.text.partition(":")[0] if outcome.kind == "traceback" else ""
            alike.setdefault((outcome.kind, outcome.place, sort), []).append(case)
        for (kind, place, _), some in alike.items():
            print(f"{name}: {kind} {place} in {len(some)} cases, {', '.join(some[:3])}: {tally.findings[some[0]].text!r}")


def _facts(tally: Tally) -> dict[str, object]:
    found = {case: [outcome.kind, outcome.text, outcome.place] for case, outcome in tally.findings.items()}
    return {"cases": tally.cases, "works": tally.kinds["works"], "refused": tally.kinds["refused"], "findings": found}


if __name__ == "__main__":
    sys.exit(main())
