"""The columns of a board: which runs share one, and what it is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench import metrics
from bench.probe import PROBES
from bench.record import Record
from results import rows

FINETUNE = "finetune"


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
    data: str = ""
    """The fingerprint of its labelled data."""
    task: str = ""
    """The task's title, and its data where there are several on the board."""
    evaluation: str = FINETUNE
    """What is evaluated (`bench.job.Job.evaluation`): finetune or a probe."""

    @property
    def head(self) -> str:
        """The column's name: task, metric id with its version, unit, trials, and a tag where other columns have the same."""
        return f"{self.title} ({'; '.join(part for part in (f'{self.metric}, %', self.rates, self.tag) if part)})"

    @property
    def rates(self) -> str:
        """How the learning rates were found, in short; "" where they are the protocol's."""
        return f"tuned, {self.trials} trials" if self.trials else self.tuning

    @property
    def runs(self) -> tuple[str, str, str, str]:
        """What tells its runs from those of other columns; columns that differ by the metric alone have the same runs."""
        return self.downstream, self.variant, self.tuning, self.data


def columns(records: Sequence[Record], chosen: Sequence[str] = ()) -> list[tuple[Column, list[Record]]]:
    """Return the columns of some runs, each with its runs: a column for each of `chosen`, or for the protocol's main metric."""
    found = []
    keyed = rows.groups(records, rows.column_key)
    several = len({record.data.fingerprint for record in records}) > 1
    for (downstream, tuning, variant, data), members in sorted(
        keyed.items(), key=lambda item: (*_order(item[1][0]), item[1][0].data.name, *item[0])
    ):
        first = members[0]
        trials = first.tuning.budget if first.tuning else 0
        for metric in [metrics.get(name).key for name in chosen if _fits(name, first)] if chosen else first.metric_ids[:1]:
            where = f" on {first.data.short}" if several else ""
            column = Column(downstream, title_of(first) + where, metric, tuning, variant, trials, data=data)
            column = replace(column, task=first.title + where)
            found.append((replace(column, searched=rows.searched_of(first), evaluation=first.job.evaluation), members))
    heads = [column.head for column, _ in found]
    return [
        (column if heads.count(column.head) == 1 else replace(column, tag=f"variant {column.variant}"), members)
        for column, members in found
    ]


def _fits(metric: str, record: Record) -> bool:
    """Whether a run has what a metric needs: the protocol has it too, or it needs the same as the main metric.

    What is of images with one class each fits no other images.
    """
    wanted = metrics.get(metric)
    same = wanted.needs == metrics.METRICS[record.metric_ids[0].partition("@")[0]].needs
    return wanted.key in record.metric_ids or (same and not wanted.single)


def title_of(record: Record) -> str:
    """Return a column's title: the task, and its probe, or that the encoder alone was inherited where there is a column for that.

    A probe's title says where its features are from when that is the decoder, and their level when it was given.
    """
    probe = record.job.probe
    if probe is None:
        return record.title if record.job.frozen == "trunk" else f"{record.title}, encoder alone"
    level = getattr(probe, "level", None)
    source = record.job.evaluation.removeprefix(probe.kind)
    return f"{record.title}, {PROBES[probe.kind].title}{source}" + (f", level {level}" if level is not None else "")


def _order(record: Record) -> tuple[str, int, str, int]:
    """Return a sort key of a run's column: by task, fine-tuning before the probes in the order of `PROBES`, then by level."""
    probe = record.job.probe
    if probe is None:
        return record.downstream, 0, "", 0
    return record.downstream, 1 + list(PROBES).index(probe.kind), record.job.evaluation, getattr(probe, "level", None) or 0
