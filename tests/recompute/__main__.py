"""Recompute the figures of a study from its saved predictions, and say where they are not what its files say.

    python -m tests.recompute FOLDER                           metrics, registration and the comparisons of preregistration.toml
    python -m tests.recompute FOLDER --tables main labels      metrics, and the differences in FOLDER/TABLE/leaderboard.csv

Resamples are drawn by a generator of its own, so intervals and p values differ from the study's by the noise of resampling. A
block jackknife estimates it, and a difference beyond 3.5 standard errors is a finding. With --same-draws the images are resampled
as `results.resampling` does it, and all digits have to agree. A line that begins with !! is a finding; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.recompute.compared import compare
from tests.recompute.measured import check_metrics
from tests.recompute.registered import registered_comparisons
from tests.recompute.registration import FILE, check_registration
from tests.recompute.report import Report
from tests.recompute.resamples import DRAWS, Resamples
from tests.recompute.runs import read_runs
from tests.recompute.tables import table_comparisons


def recompute(folder: Path, words: argparse.Namespace) -> Report:
    """Check what is asked for, print it, and return the report with its findings."""
    report = Report()
    runs = read_runs(folder, report)
    report.line(f"{folder}: {len(runs)} records, {sum(not run.probe for run in runs)} of them of fine-tuning")
    if not words.no_metrics:
        check_metrics(runs, report)
    resamples = Resamples(words.rng, words.same_draws)
    if runs and (folder / FILE).exists():
        check_registration(folder, runs, report)
        if not words.no_comparisons:
            compare("the registered comparisons", registered_comparisons(folder, runs, report), resamples, report)
    for table in words.tables:
        compare(f"table {table}", table_comparisons(folder, table, runs, report), resamples, report)
    report.line(f"\n{len(report.findings)} findings")
    for text in report.findings:
        report.line(f"  !! {text}")
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments ask for; return 1 when there is a finding."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.recompute", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder of a study, with records/runs")
    parser.add_argument("--tables", nargs="*", default=[], help="tables of the study whose differences are computed again")
    parser.add_argument(
        "--same-draws", action="store_true", help="resample the images as the program does: all digits must agree"
    )
    parser.add_argument("--rng", type=int, default=20240607, help=f"the seed of the {DRAWS:,} resamples otherwise")
    parser.add_argument("--no-metrics", action="store_true", help="leave out the metrics of the runs")
    parser.add_argument("--no-comparisons", action="store_true", help="leave out the registered comparisons")
    words = parser.parse_args(arguments)
    return 1 if recompute(words.folder, words).findings else 0


if __name__ == "__main__":
    sys.exit(main())
