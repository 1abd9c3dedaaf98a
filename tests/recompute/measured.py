"""The metrics of saved predictions under weights of the images, and whether records have them.

A weight is how often an image counts; weights have shape (B, N), and a metric of them shape (B,).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tests.recompute.report import Report
from tests.recompute.runs import Array, Run

Floats = NDArray[np.floating]
METRICS = ("map_voc", "acc_keras", "miou_voc", "miou_paper")
ALL_COLUMNS = "acc_keras_all"
"""acc_keras whose argmaxes are over all columns of the network's output, also those of classes that are not scored."""
CLOSE = 1e-9


def average_precision(scores: Array, labels: Array, weights: Array) -> Floats:
    """Return the area under the envelope of precision; label -1 (difficult) is not judged, and equal scores are one point."""
    judged = labels >= 0
    scores, labels, weights = scores[judged], labels[judged], weights[:, judged]
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    scores, labels = scores[order], labels[order]
    weights = weights[:, order].astype(np.float32)
    last = np.append(scores[1:] != scores[:-1], True)  # the last image of each group of equal scores
    hits = np.cumsum(weights * (labels == 1), axis=1, dtype=np.float64)[:, last]
    shown = np.cumsum(weights, axis=1, dtype=np.float64)[:, last]
    precision = np.divide(hits, shown, out=np.zeros_like(hits), where=shown > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    steps = np.diff(hits, axis=1, prepend=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((steps * envelope).sum(axis=1) / hits[:, -1])  # nan where the class does not occur


def map_voc(run: Run, weights: Array) -> Floats:
    """Return the mean average precision of the scored classes that occur."""
    scores, labels = run.arrays["scores"], run.arrays["labels"]
    each = np.stack([average_precision(scores[:, c], labels[:, c], weights) for c in np.flatnonzero(run.scored)])
    return np.asarray(np.nanmean(each, axis=0))


def acc_keras(run: Run, weights: Array, columns: NDArray[np.bool_]) -> Floats:
    """Return how often the argmax of the scores is that of the labels, among images that have a scored class."""
    present = run.arrays["labels"] != 0
    kept = present[:, run.scored].any(axis=1)
    right = run.arrays["scores"][:, columns].argmax(axis=1) == present[:, columns].argmax(axis=1)
    return np.asarray(weights[:, kept] @ right[kept].astype(np.float64) / weights[:, kept].sum(axis=1))


def mean_iou(run: Run, weights: Array, void_is_background: bool) -> Floats:
    """Return the mean IoU of background and the scored classes; a class in neither truth nor prediction is left out.

    Matrices of the images are (truth, prediction), with a last row of void pixels, which count as background or not at all.
    """
    each = run.arrays["confusion"]
    found = weights.astype(np.float64) @ each.reshape(len(each), -1).astype(np.float64)
    matrix = found.reshape(len(weights), *each.shape[1:])
    if void_is_background:
        matrix[:, 0] += matrix[:, -1]
    matrix = matrix[:, :-1]
    both = np.einsum("bii->bi", matrix)
    either = matrix.sum(axis=2) + matrix.sum(axis=1) - both
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = np.where(either > 0, both / either, np.nan)
    return np.asarray(np.nanmean(iou[:, np.append(True, run.scored)], axis=1))


def measure(metric: str, run: Run, weights: Array) -> Floats:
    """Return a metric (B,) of a run under weights of its images (B, N)."""
    if metric == "map_voc":
        return map_voc(run, weights)
    if metric in ("acc_keras", ALL_COLUMNS):
        return acc_keras(run, weights, np.ones_like(run.scored) if metric == ALL_COLUMNS else run.scored)
    if metric in ("miou_voc", "miou_paper"):
        return mean_iou(run, weights, void_is_background=metric == "miou_paper")
    raise ValueError(f"unknown metric {metric}")


def values_of(metric: str, runs: Sequence[Run]) -> Floats:
    """Return a metric of each run, every image counted once."""
    return np.array([measure(metric, run, np.ones((1, run.images)))[0] for run in runs])


def check_metrics(runs: Sequence[Run], report: Report) -> None:
    """Compare the metrics of every run's predictions with its record, and the predictions with the record's SHA-256."""
    report.line("\nmetrics of every run, from its predictions alone, against its record")
    differences: dict[str, list[float]] = {}
    unscored, columns = 0, 0.0
    for run in runs:
        sha = hashlib.sha256((run.folder / "predictions.npz").read_bytes()).hexdigest()
        if sha != run.record["predictions"]:
            report.finding(f"{run.id}: predictions.npz is not the file whose SHA-256 is in the record")
        for name in ("scores", "confusion"):
            if not np.isfinite(run.arrays.get(name, 0)).all():
                report.finding(f"{run.id}: {name} are not all finite")
        if not {"scores", "labels"} <= run.arrays.keys() and "confusion" not in run.arrays:
            unscored += 1
            continue
        for name, difference in check_run(run, report):
            differences.setdefault(f"{name} of probes" if run.probe else name, []).append(difference)
        if "scores" in run.arrays and not run.probe:
            scored, over_all = (values_of(metric, [run])[0] for metric in ("acc_keras", ALL_COLUMNS))
            columns = max(columns, float(abs(scored - over_all)))
    for name, found in sorted(differences.items()):
        report.line(f"  {name:22s} {len(found):4d} runs, largest difference {max(found):.2e}")
    if unscored:
        report.line(f"  {unscored} runs have predictions of a kind that is not computed here")
    report.line(f"  acc_keras over the scored columns against over all columns: at most {columns:.2e} apart")


def check_run(run: Run, report: Report) -> list[tuple[str, float]]:
    """Return by how much each metric of a run's record differs from the one computed here."""
    found = []
    stored = {key.partition("@")[0]: value for key, value in run.record["metrics"].items() if value is not None}
    for name in METRICS:
        if name.startswith("miou") != ("confusion" in run.arrays):
            continue
        if name not in stored:
            if not run.probe:
                report.finding(f"{run.id}: {name} is not in the record")
            continue
        value = float(values_of(name, [run])[0])
        found.append((name, abs(value - stored[name])))
        if not abs(value - stored[name]) <= CLOSE:
            report.finding(f"{run.id}: {name} is {stored[name]!r} in the record, and {value!r} of its predictions")
    return found
