"""The columns of a board: which runs share one, and what it is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench import metrics
from bench.record import Record
from results import rows


@dataclass(frozen=True)
class Column:
    """A downstream task, a metric, how the rates were found, and a digest of everything else that its runs share."""

    downstream: str
    title: str
    metric: str
    tuning: str
    variant: str
    trials: int = 0
    tag: str = ""
    searched: str = ""
    """The trials and ranges of its searches, "" where there are none; `tuning` says how they were searched too."""

    @property
    def head(self) -> str:
        """The column's name: task, metric id with its version, unit, trials, and a tag where other columns have the same."""
        return f"{self.title} ({'; '.join(part for part in (f'{self.metric}, %', self.rates, self.tag) if part)})"

    @property
    def rates(self) -> str:
        """How the learning rates were found, in short; "" where they are the protocol's."""
        return f"tuned, {self.trials} trials" if self.trials else self.tuning

    @property
    def runs(self) -> tuple[str, str, str]:
        """What tells its runs from those of other columns; columns that differ by the metric alone have the same runs."""
        return self.downstream, self.variant, self.tuning


def columns(records: Sequence[Record], chosen: Sequence[str] = ()) -> list[tuple[Column, list[Record]]]:
    """Return the columns of some runs, each with its runs: a column for each of `chosen`, or for the protocol's main metric."""
    found = []
    keyed = rows.groups(records, rows.column_key)
    for (downstream, tuning, variant), members in sorted(keyed.items(), key=lambda item: item[0]):
        first = members[0]
        trials = first.tuning.budget if first.tuning else 0
        for metric in [metrics.get(name).key for name in chosen if _fits(name, first)] if chosen else first.metric_ids[:1]:
            column = Column(downstream, rows.title_of(first), metric, tuning, variant, trials, searched=rows.searched_of(first))
            found.append((column, members))
    heads = [column.head for column, _ in found]
    return [
        (column if heads.count(column.head) == 1 else replace(column, tag=f"variant {column.variant}"), members)
        for column, members in found
    ]


def _fits(metric: str, record: Record) -> bool:
    return metrics.get(metric).needs == metrics.METRICS[record.metric_ids[0].partition("@")[0]].needs
