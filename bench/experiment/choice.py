"""Can a validation split choose learning rates? Only if the metric can judge every scored class there; told before training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bench.data import splits
from bench.data.dataset import JUDGED, Dataset, read_header
from bench.data.masks import read_mask
from bench.data.splits import Splits
from bench.data.threads import in_order
from bench.errors import DataError, UsageError
from bench.text import Echo, some

FEW = 20
"""The fewest test images whose scores say something."""


def check(dataset: Dataset, whole: Splits, share: float, echo: Echo, what: str = "--tune") -> None:
    """Raise UsageError unless the validation split of a share of the labels can judge every scored class for `what`.

    With labels, a class needs an image with it and one without it; with masks, a mask with it; with boxes, a judged box. The
    sentence says which share would do. For synthetic data, whose scores say nothing, missing classes are a warning.
    """
    found = splits.open_share(dataset, whole, share)
    missing = _unjudged(dataset, found)
    if not missing:
        return
    count = len(found.members["val"])
    kinds = {"labels": "an image with and one without", "boxes": "a box of"}
    with_and_without = kinds.get(whole.subset, "a mask with")
    at = "" if share == 1 else f" at {100 * share:g} % of the labels"
    text = (
        f"{what} chooses on the validation split, which{at} has {count:,} image{'' if count == 1 else 's'} of {dataset.name} and "
        f"not {with_and_without} each scored class (lacking: {some(missing)})"
    )
    if dataset.synthetic and count:
        echo(f"warning: {text}")
        return
    raise UsageError(f"{text}. {_way_out(dataset, whole, share, what)}")


def check_scored(dataset: Dataset, whole: Splits, shares: Sequence[float], echo: Echo) -> None:
    """Warn of a small test split, and of scored classes that no training image, or none of a share of the labels, shows.

    DataError when the test images show none of the scored classes; masks are not looked at for that.
    """
    count = len(whole.members["test"])
    if count < FEW and not dataset.synthetic:
        echo(f"warning: the test split of {dataset.name} has {count} image{'s' * (count != 1)}, so its scores say little")
    if whole.subset not in ("labels", "boxes"):
        return
    if count and not _shown(dataset, whole, whole.members["test"]):
        raise DataError(
            f"the {count} test images of {dataset.name} show none of the scored classes ({some(dataset.scored)}), so nothing can "
            "be scored; add images, or score other classes."
        )
    unseen = _shown(dataset, whole, whole.members["test"]) - _shown(dataset, whole, whole.ids("train", "val"))
    if unseen:
        echo(f"warning: no training image of {dataset.name} shows {some(sorted(unseen))}, and test images do")
    for share in shares:
        members = splits.open_share(dataset, whole, share).members
        lost = _shown(dataset, whole, whole.ids("train")) - _shown(dataset, whole, members["train"]) if share < 1 else set()
        if lost:
            echo(
                f"warning: {100 * share:g} % of the labels of {dataset.name} are {len(members['train']):,} training images, and "
                f"none shows {some(sorted(lost))}"
            )


def _shown(dataset: Dataset, found: Splits, ids: Sequence[str]) -> set[str]:
    """Return the scored classes that some images show, by labels or boxes."""
    if found.subset == "boxes":
        return {dataset.classes[box[0]] for one in ids for box in dataset.boxes[one]} & {*dataset.scored}
    present = (dataset.labels(ids) != 0).any(axis=0)
    return {name for name, there in zip(dataset.classes, present, strict=True) if there} & {*dataset.scored}


def _unjudged(dataset: Dataset, found: Splits) -> list[str]:
    """Return the scored classes that a validation split cannot judge."""
    ids, scored = found.members["val"], [dataset.classes.index(name) for name in dataset.scored]
    if found.subset == "labels":
        labels = dataset.labels(ids).reshape(len(ids), len(dataset.classes))
        judged = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)
        return [dataset.classes[place] for place in scored if not judged[place]]
    if found.subset == "boxes":
        judged_boxes = {box[0] for one in ids for box in dataset.boxes[one] if box[5] == JUDGED}
        return [dataset.classes[place] for place in scored if place not in judged_boxes]
    wanted = {place + 1 for place in scored}
    for present in _classes_of_masks(dataset, found.subset, ids):
        wanted -= present
        if not wanted:
            break
    return [dataset.classes[identity - 1] for identity in sorted(wanted)]


def _classes_of_masks(dataset: Dataset, folder: str, ids: tuple[str, ...]) -> Iterator[set[int]]:
    images = {image.id: image for image in dataset.images}

    def classes(identity: str) -> set[int]:
        path = dataset.path(images[identity])
        return set(np.unique(read_mask(dataset, folder, identity, read_header(path).size, path).ids).tolist())

    return in_order(classes, ids)


def _way_out(dataset: Dataset, whole: Splits, share: float, what: str) -> str:
    for larger in sorted({*splits.SHARES, 1.0}):
        if larger > share and not _unjudged(dataset, splits.open_share(dataset, whole, larger)):
            return f"{100 * larger:g} % of the labels would do: --labels {larger:g}."
    missing, count = _unjudged(dataset, whole), len(whole.members["val"])
    images = "1 image" if count == 1 else f"{count:,} images"
    left = [name for name in dataset.scored if name not in missing]
    if not left:
        return f"With all labels it has {images} and judges no class; leave out {what}."
    return (
        f"With all labels it has {images} and lacks {some(missing)} all the same. Score the "
        f"other classes, {dataset.prepare_with('--score', ','.join(left))}; or leave out {what}."
    )
