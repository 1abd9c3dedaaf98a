"""The cost of a row, and the points that it gained for an hour of pretraining."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench.record import Cost
from results.board import Cell


@dataclass(frozen=True)
class RowCost:
    """The cost of one seed of a row in one column: seconds on one device, images seen, most bytes held, joules.

    Pretraining and fine-tuning are means over seeds; the search is done once for all seeds, or is a mean too. `joules` is None
    where a device does not tell. `points_per_hour` is the difference from the baseline, in points of the metric, for each hour of
    pretraining; None without a difference, without pretraining, and where the baseline is pretrained too, since its hours bought
    points as well.
    """

    device: str
    pretrain_seconds: float
    tune_seconds: float
    finetune_seconds: float
    images: int
    peak_memory: int
    joules: float | None
    points_per_hour: float | None

    @property
    def unit(self) -> str:
        """The unit of an hour: GPU-hour or CPU-hour."""
        return "GPU-hour" if self.device == "cuda" else "CPU-hour"

    @property
    def seconds(self) -> float:
        """Seconds of all that one seed needs: pretraining, search and fine-tuning."""
        return self.pretrain_seconds + self.tune_seconds + self.finetune_seconds


def row_cost(cell: Cell) -> RowCost:
    """Return the cost of a cell that has records."""
    records = cell.records
    trunks = list({record.pretrain.id: record.pretrain.cost for record in records}.values())
    tunings = list({record.tuning.study: record.tuning.cost for record in records if record.tuning}.values())
    parts: list[list[Cost]] = [trunks, tunings, [record.cost for record in records]]
    pretrain, tune, finetune = (_mean([cost.seconds for cost in part]) for part in parts)
    joules = [cost.joules for part in parts for cost in part if cost.images]
    found = cell.difference
    difference = None if found is None or found.from_pretrained else found.estimate.value
    return RowCost(
        device=records[0].cost.device,
        pretrain_seconds=pretrain,
        tune_seconds=tune,
        finetune_seconds=finetune,
        images=round(sum(_mean([cost.images for cost in part]) for part in parts)),
        peak_memory=max(cost.peak_memory for part in parts for cost in part),
        joules=None if None in joules or not joules else sum(_mean([cost.joules or 0.0 for cost in part]) for part in parts),
        points_per_hour=100 * difference / (pretrain / 3600) if difference is not None and pretrain else None,
    )


def _mean(values: list[float] | list[int]) -> float:
    return statistics.fmean(values) if values else 0.0
