"""Run the measurements, each in a process of its own; print them and write bench.csv."""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

NAMES = (
    "inputs",
    "step",
    "choices",
    "loaded",
    "authors",
    "frozen",
    "sharing",
    "memory",
    "leaks",
    "report",
    "resampling",
    "probes",
    "views",
    "tasks",
    "epochs",
    "gpu",
    "launches",
    "processes",
)
FIELDS = ("benchmark", "what", "value", "unit", "goal")


def main() -> None:
    """Measure what was asked for, or everything."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"{', '.join(NAMES)}; all when left out")
    parser.add_argument("--csv", type=Path, default=Path("bench.csv"), help="where the table goes")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in NAMES]
    if unknown:
        parser.error(f"there is no {unknown[0]}; there are {', '.join(NAMES)}")
    if asked.one:
        figures = importlib.import_module(f"tests.benchmarks.{asked.names[0]}").measure()
        print(json.dumps([vars(figure) for figure in figures]))
        return
    rows: list[dict[str, object]] = []
    for name in asked.names or NAMES:
        command = [sys.executable, "-m", "tests.benchmarks", "--one", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"{name} failed", file=sys.stderr)
            continue
        rows += [{"benchmark": name, **figure} for figure in json.loads(done.stdout.splitlines()[-1])]
        with asked.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        _print([row for row in rows if row["benchmark"] == name], name)
    if len({row["benchmark"] for row in rows}) < len(asked.names or NAMES):
        sys.exit(1)


def _print(rows: list[dict[str, object]], name: str) -> None:
    table = Table("Measured", "Value", "Unit", "Goal", title=name, title_justify="left", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for row in rows:
        table.add_row(
            str(row["what"]), f"{row['value']:,.3g}" if row["value"] < 1000 else f"{row['value']:,.0f}", row["unit"], row["goal"]
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
