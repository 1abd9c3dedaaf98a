"""Example images of a run: four that runs on the same scored images share, and the run's best, median and worst image."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.experiment.finetuning import FineTuning
from bench.painting import confusion
from bench.seeding import key
from bench.training.evaluation import evaluation_batch, predict_batch

FIXED = 4
PAINTED = 64
"""The side at which painted boxes are compared, in pixels."""


def choose(tuned: FineTuning, predictions: dict[str, NDArray[Any]]) -> bytes | None:
    """Return a compressed .npz, as bytes, with K example images and what was predicted for them.

    None without scored images, and for a task that has neither masks nor boxes, or visualizes nothing. Boxes are painted as
    masks, detections from a confidence of 0.3 on among them. The file holds `kinds` and `ids` (text),
    `iou` (each image's own mean IoU), uint8 `images` (K, S, S, 3), and uint8 `truth` and `found` (the predicted classes), both
    (K, S, S). The choice of the four fixed images depends on the number of scored images only.
    """
    ids, split, downstream = tuned.data.ids, tuned.data.scored, tuned.downstream
    if not predictions.keys() & {"confusion", "boxes"} or not ids:
        return None
    boxed = "boxes" in predictions
    quality = image_iou(confusion(predictions, downstream.classes, PAINTED) if boxed else predictions["confusion"])
    fixed = np.random.default_rng(key("examples", len(ids))).permutation(len(ids))[:FIXED]
    rank = np.argsort(quality, kind="stable")
    own = {"best": rank[-1], "median": rank[len(rank) // 2], "worst": rank[0]}
    chosen = [*((f"fixed {n}", int(place)) for n, place in enumerate(fixed, start=1)), *((k, int(p)) for k, p in own.items())]
    size = evaluation_batch(downstream)
    kept: dict[str, list[NDArray[np.uint8]]] = {"images": [], "truth": [], "found": []}
    for _, place in chosen:
        output, batch = predict_batch(tuned.model, downstream, split, place // size, tuned.session.machine)
        shown = downstream.visualize(output, batch)
        if not shown:
            return None
        within = place % size
        kept["images"].append(batch["images"][within].permute(1, 2, 0).cpu().numpy())
        for name in ("truth", "found"):
            kept[name].append(shown[name][within].cpu().numpy().astype(np.uint8))
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        kinds=np.array([kind for kind, _ in chosen]),
        ids=np.array([ids[place] for _, place in chosen]),
        iou=np.array([quality[place] for _, place in chosen]),
        **{name: np.stack(values) for name, values in kept.items()},  # type: ignore[arg-type]
    )
    return buffer.getvalue()


def image_iou(confusion: NDArray[Any]) -> NDArray[np.float64]:
    """Return each image's mean IoU (N,) over the classes in its truth or prediction, void ignored.

    `confusion` is (N, C + 2, C + 1): row truth, column prediction, last row void.
    """
    matrix = confusion[:, :-1].astype(np.float64)
    hits = np.diagonal(matrix, axis1=1, axis2=2)
    union = matrix.sum(axis=1) + matrix.sum(axis=2) - hits
    seen = union > 0
    found = np.where(seen, hits / np.maximum(union, 1), 0).sum(axis=1)
    return np.asarray(found / np.maximum(seen.sum(axis=1), 1))
