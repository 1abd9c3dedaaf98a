"""How good each pretext task is at its own task, over test images and seeds: what the paper's Table 3 shows."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.job import PretrainJob
from bench.record import DataFacts, Record
from results.rows import groups, pretext_key, pretext_label

Summary = Mapping[str, float | None]
"""Average, least and greatest value of a score over images."""


@dataclass(frozen=True)
class PretextScore:
    """A score of a pretext task or of a baseline, over images and seeds; a value is None where none of them is finite."""

    label: str
    name: str
    average: float | None
    least: float | None
    most: float | None
    trunks: int | None
    """The number of pretrained trunks, a seed each; None for a baseline, which learns nothing."""


@dataclass(frozen=True)
class PretextScores:
    """The scores on the same images, with trunks of one kind at one size."""

    data: DataFacts
    job: PretrainJob
    """The pretraining of the first row."""
    images: tuple[int, ...]
    """The numbers of test images that scores are over: one, or several where rows differ."""
    scores: tuple[PretextScore, ...]


def pretext_scores(records: Sequence[Record]) -> list[PretextScores]:
    """Return the scores for each pretraining data, trunk and size, those of pretext tasks before those of baselines."""
    scored = [(record, record.pretrain.data) for record in records if record.pretrain.evaluation and record.pretrain.data]
    found = groups(scored, lambda one: (one[1].fingerprint, one[0].job.pretrain.trunk, one[0].pretrain.job.size))
    return [_scores([record for record, _ in members], members[0][1]) for members in found.values()]


def _scores(records: Sequence[Record], data: DataFacts) -> PretextScores:
    found = []
    for row in groups(records, pretext_key).values():
        trunks = list({record.pretrain.id: record.pretrain for record in row}.values())
        label = pretext_label(row[0], records)
        for name in trunks[0].evaluation:
            found.append(_score(label, name, [trunk.evaluation[name] for trunk in trunks], len(trunks)))
    found += [_score(label, name, [summary], None) for (label, name), summary in _baselines(records).items()]
    images = tuple(sorted({record.pretrain.evaluation_images for record in records}))
    return PretextScores(data, records[0].job.pretrain, images, tuple(found))


def _baselines(records: Sequence[Record]) -> dict[tuple[str, str], Summary]:
    """Return the baselines' scores by label and score; where tasks differ in one, as in chance, the label names the task."""
    by_name: dict[tuple[str, str], dict[str, Summary]] = {}
    for record in records:
        for label, summaries in record.pretrain.baselines.items():
            for name, summary in summaries.items():
                by_name.setdefault((label, name), {})[pretext_label(record, records)] = summary
    found: dict[tuple[str, str], Summary] = {}
    for (label, name), of_task in by_name.items():
        alike = all(summary == next(iter(of_task.values())) for summary in of_task.values())
        found |= {(label if alike else f"{label} ({task})", name): summary for task, summary in of_task.items()}
    return found


def _score(label: str, name: str, summaries: Sequence[Summary], trunks: int | None) -> PretextScore:
    average, least, most = (_known(summary[what] for summary in summaries) for what in ("average", "min", "max"))
    return PretextScore(
        label, name, statistics.fmean(average) if average else None, min(least, default=None), max(most, default=None), trunks
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
