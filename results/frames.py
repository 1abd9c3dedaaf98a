"""The tables of a report as data frames, for Python."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import MachineError
from bench.record import Record
from bench.storage import locks
from bench.text import Echo
from results import folder
from results.report import Wanted

if TYPE_CHECKING:
    import pandas as pd


def tables(
    records: Sequence[Record], out: Path, wanted: Wanted | None = None, echo: Echo = warnings.warn
) -> dict[str, pd.DataFrame]:
    """Return the tables of a report as data frames, by name; their predictions lie below the output folder `out`.

    - table4: every cell of the boards, trivial predictors too, by the metrics that `wanted` names, with the row's label and all
      columns of the leaderboard
    - searches, table3: what each search tried and chose; each pretext task's scores at its own task
    - leaderboard, per_run, per_class, agreement: what `pandas.read_csv` reads from the CSV files that `bench report` writes. Of
      runs that `wanted` chooses, the leaderboard has the metrics that `wanted` names
    - lowshot, diagnostics: where probes have them, low-shot scores by the number of shots, and what features look like by level
    - selection, sensitivity: where `wanted` asks for them, what choosing on the test split would have reported, and how alike
      columns order the same rows
    - beside_paper, published: where `wanted` asks for the paper's numbers, or for published ones

    Metric values, intervals and differences are shares of 1; lists are JSON texts; `TABLES` in `results.table_sheets`,
    `PROBE_TABLES` in `results.probe_sheets` and `SCHEMAS` in `results.csv_files` say what each column means. No table is written,
    but this is a look at the results as `bench report` is one: it is added to the list of looks in `out` unless `wanted` chooses
    runs. What is computed is kept there for the next report. `echo` is told of what was left out because it is damaged, and where
    the look could not be kept.

    Raises UsageError for a metric, a run or a baseline that does not exist, and DataError for runs that cannot share a column and
    for damaged predictions.
    """
    asked = Wanted() if wanted is None else wanted
    with locks.using(out, echo):
        made, before = folder.report_of(records, out, asked, "")
        for problem in made.problems:
            echo(problem)
        if not asked.runs:
            try:
                folder.keep_look(made, out, before, echo)
            except MachineError as error:
                echo(str(error))
    return {name: sheet.frame() for name, sheet in made.sheets.items()}


def leaderboard(out: Path) -> pd.DataFrame:
    """Return the leaderboard of an output folder, as `tables` has it: a line for each row and column of each board.

    Raises UsageError where the folder holds no finished runs.
    """
    return tables(folder.records_in(out), out)["leaderboard"]
