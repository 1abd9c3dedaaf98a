"""Splits: the images for training, for choosing and for scoring (train, val, test). A scheme makes them once, into a file.

- `official`: the data set's own lists. VOC 2007: trainval -> test; VOC 2012: train -> val, since its test labels are not public.
  The validation split is the list val where that is not scored and not part of the training list, else a stratified tenth of
  the training list.
- `paper-70-20-10`: all annotated images, by iterative stratification (Sechidis et al. 2011), as the paper splits VOC 2012.
- `own`: the splits that the data set names itself (a column, folders train, val and test, official lists). Where there is no test
  split, val is scored; where there is no val split, it is a stratified tenth of train. A data set that names none is divided as
  by paper-70-20-10.
- `pretraining`: images without labels; the test split is COCO's test or val images, else a held-out twentieth; at most 4,000.

Where images belong to groups, such as patients, each group is on one side of every line that a scheme draws.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data import grouped, lists
from bench.data.dataset import APART, Dataset, ImageFile
from bench.errors import DataError, unknown
from bench.schema import Schema, canonical
from bench.seeding import key
from bench.storage import files, seal
from bench.text import Echo

FILE_VERSION = 3
"""2: the key `members`. 3: the scored list. Files of another version are ignored, and the splits are made again."""
SCHEMES = ("official", "own", "paper-70-20-10", "pretraining")
FEWEST = 10
"""The fewest images that a scheme divides."""


class Splits(Schema):
    """The ids of each split (train, val, test) of one data set under one scheme."""

    scheme: str
    dataset: str
    data_fingerprint: str
    subset: str
    members: dict[str, tuple[str, ...]]
    scored_list: str = ""
    """The official list that is the test split, such as ImageSets/Main/val.txt; "" where a scheme draws it."""
    grouped_by: str = ""
    """What groups the images, so that no group is in two splits; "" where nothing does."""
    annotations: str = ""
    """The digest of what the images show, where the data set's fingerprint has it not (`Dataset.annotations`)."""

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the splits' names and ids, and of `annotations` where there is one."""
        content: dict[str, Any] = {name: list(ids) for name, ids in self.members.items()}
        content |= {"annotations": self.annotations} if self.annotations else {}
        return hashlib.sha256(canonical(content).encode()).hexdigest()

    def ids(self, *names: str) -> list[str]:
        """Return the ids of the named splits, one split after the other."""
        return [identity for name in names for identity in self.members[name]]


def open_splits(dataset: Dataset, scheme: str, subset: str, echo: Echo | None = None) -> Splits:
    """Return the splits of a scheme, from their file, which is made when missing.

    `subset` says which images: `labels` or `boxes` for those with labels or boxes, `images` for all, or a mask folder. UsageError
    for an unknown scheme; DataError when the data set has no such images, too few, or no official lists.
    """
    if scheme not in SCHEMES:
        raise unknown("split scheme", scheme, SCHEMES)
    shown = annotations_of(dataset, subset)
    content = f"{dataset.fingerprint[:16]}{f'-{shown[:16]}' if shown else ''}"
    path = files.home() / "splits" / f"{dataset.name}-{scheme}-{subset}-{content}-{FILE_VERSION}.json"
    if not path.is_file():
        made = _make(dataset, scheme, subset)
        _check_disjoint(made)
        files.publish_json(path, made.model_dump(mode="json"))
        if echo is not None:
            counts = ", ".join(f"{name} {len(ids):,}" for name, ids in made.members.items())
            scored = f"; test is {made.scored_list}" if made.scored_list else ""
            echo(f"made the {scheme} splits of {dataset.title}, {subset} (once): {counts}{scored}")
    return _read(path)


def annotations_of(dataset: Dataset, subset: str) -> str:
    """Return the digest of what a subset's images show, "" where the data set's fingerprint has it."""
    covered = subset == "images" or (subset != "boxes" and dataset.kind not in APART)
    return "" if covered else dataset.annotations


def _read(path: Path) -> Splits:
    return seal.read_model(Splits, path, "a file of splits", "remove it to have it made again")


SHARES = (0.1, 0.01)
"""The usual shares of labels: a smaller one is drawn from the larger one, so that they are nested."""


def open_share(dataset: Dataset, whole: Splits, share: float) -> Splits:
    """Return splits with a stratified share of the images of train and val, from their file, which is made when missing.

    A tenth is drawn from the whole split, a hundredth from the tenth. The test split stays whole. The validation split is reduced
    as well, so that learning rates are not chosen with labels that a row claims not to use.
    """
    if share == 1:
        return whole
    name = f"{whole.dataset}-{whole.scheme}-{whole.subset}-{whole.fingerprint[:16]}-{share:g}-{FILE_VERSION}.json"
    path = files.home() / "splits" / name
    if not path.is_file():
        larger = open_share(dataset, whole, min((s for s in SHARES if s > share), default=1.0))
        drawn = {split: _drawn(dataset, larger.members[split], share * len(whole.members[split])) for split in ("train", "val")}
        made = whole.model_copy(update={"members": {**whole.members, **drawn}})
        files.publish_json(path, made.model_dump(mode="json"))
    return _read(path)


def _drawn(dataset: Dataset, ids: tuple[str, ...], count: float) -> tuple[str, ...]:
    """Return about `count` of the images, at least two, stratified by their labels."""
    wanted = max(2, round(count))
    if wanted >= len(ids):
        return ids
    kept, taken = _cut(np.arange(len(ids)), _presence(dataset, ids), wanted)
    chosen = np.concatenate([taken, kept])[:wanted]  # stratification may return some images more or fewer
    return tuple(np.array(ids)[np.sort(chosen)].tolist())


def _check_disjoint(splits: Splits) -> None:
    known: dict[str, str] = {}
    for name, ids in splits.members.items():
        for identity in ids:
            if identity in known:
                where = f"in the {known[identity]} and the {name}" if known[identity] != name else f"twice in the {name}"
                raise DataError(f"{splits.dataset}: {identity} is {where} split of the scheme {splits.scheme}.")
            known[identity] = name


def _make(dataset: Dataset, scheme: str, subset: str) -> Splits:
    scored_list = ""
    if scheme == "pretraining":
        members = _pretraining(dataset.images)
    elif scheme == "official" or (scheme == "own" and dataset.kind == "voc" and lists.choose(dataset, subset)):
        members, scored_list = _official(dataset, _eligible(dataset, subset), subset)
    elif scheme == "own" and dataset.given:
        members, scored_list = _given(dataset, _eligible(dataset, subset), subset)
    else:
        members = _shares(dataset, list(_eligible(dataset, subset)), (0.7, 0.2, 0.1), dataset.name)
    if scheme != "pretraining":
        grouped.check(dataset, members)
    return Splits(
        scheme=scheme,
        dataset=dataset.name,
        data_fingerprint=dataset.fingerprint,
        subset=subset,
        members=members,
        scored_list=scored_list,
        grouped_by=dataset.grouped_by if scheme != "pretraining" else "",
        annotations=annotations_of(dataset, subset),
    )


def _eligible(dataset: Dataset, subset: str) -> dict[str, ImageFile]:
    """Return the images that have what a subset needs, by id; DataError when there is none, with what the data set has."""
    found = lists.usable(dataset, subset)
    if found:
        return {image.id: image for image in dataset.images if image.id in found}
    if subset in ("labels", "boxes"):
        raise DataError(f"{dataset.name} has no {subset}; it has {lists.held(dataset)}.")
    if dataset.kind != "voc":
        raise DataError(f"{dataset.name} has no masks; it has {lists.held(dataset)}.")
    other = next((f" Its masks are in {folder}: --set protocol.masks={folder}." for folder in dataset.masks), "")
    raise DataError(f"{dataset.name} has no masks in {subset}; it has {lists.held(dataset)}.{other}")


def _given(dataset: Dataset, images: dict[str, ImageFile], subset: str) -> tuple[dict[str, tuple[str, ...]], str]:
    """Return the splits that a data set names itself, and the name of the one that is scored."""
    named = {name: tuple(one for one in ids if one in images) for name, ids in dataset.given.items()}
    train, val, test = (named.get(name, ()) for name in ("train", "val", "test"))
    scored = "test" if test else "val"
    if not test:
        val, test = (), val
    if not train or not test:
        lacking = "train" if not train else "val or test"
        raise DataError(
            f"{dataset.name} names splits of its own ({', '.join(f'{name} {len(ids):,}' for name, ids in named.items())}), and "
            f"none of its images with {'a mask' if subset in dataset.masks else subset} is in {lacking}; let the images be "
            "divided by --set protocol.split_scheme=paper-70-20-10."
        )
    members = {"train": train, "val": val}
    if not val:
        members = _shares(dataset, train, (0.9, 0.1, 0.0), f"{dataset.name}, its own split train,")
    return {"train": members["train"], "val": members["val"], "test": test}, f"{dataset.name}'s own split {scored}"


def _official(dataset: Dataset, images: dict[str, ImageFile], subset: str) -> tuple[dict[str, tuple[str, ...]], str]:
    """Return the splits by the data set's own lists, and the list that is scored."""
    chosen, task = lists.choose(dataset, subset), lists.task_of(subset)
    if chosen is None:
        what = {"labels": "annotations", "boxes": "annotated boxes"}.get(subset, f"masks in {subset}")
        if dataset.kind != "voc":
            raise DataError(
                f"{dataset.name} has no official lists, which VOC alone has: voc_cls, voc_seg and voc_det are the tasks on VOC. "
                f"Of other data name what is done; {dataset.name} has {lists.held(dataset)}."
            )
        raise DataError(
            f"{dataset.name} has no official splits: ImageSets/{task} needs train.txt and val.txt, or test.txt with train.txt or "
            f"trainval.txt, naming images that have {what}. Without such lists, let the images be divided by "
            "--set protocol.split_scheme=paper-70-20-10."
        )
    lists.check(dataset, subset)
    found = dataset.lists[task]
    val, test = found[chosen.val] if chosen.val else (), found[chosen.test]
    candidates = found[chosen.train]
    if subset == "SegmentationClassAug":  # SBD: every masked image that is not in another list used
        held = {*val, *test}
        candidates = tuple(identity for identity in images if identity not in held)
    members = {"train": candidates, "val": val}
    if not val:
        name = f"{dataset.name}, ImageSets/{task}/{chosen.train}.txt,"
        members = _shares(dataset, candidates, (0.9, 0.1, 0.0), name)
    return {"train": members["train"], "val": members["val"], "test": test}, f"ImageSets/{task}/{chosen.test}.txt"


def _shares(dataset: Dataset, chosen: Sequence[str], shares: tuple[float, float, float], name: str) -> dict[str, tuple[str, ...]]:
    """Return train, val and test by iterative stratification over the classes that are present; without labels, at random.

    Groups of images stay together (`bench.data.grouped`).
    """
    ids = np.array(chosen)
    count = len(ids)
    if count < FEWEST:
        raise DataError(f"{name} has {count} images to split; at least {FEWEST} are needed.")
    labels = _presence(dataset, chosen)
    if dataset.grouped_by:
        divided = grouped.divide(grouped.groups_of(dataset, chosen), labels, shares, name)
    else:
        test_count = round(shares[2] * count) if shares[2] else 0
        everything = np.arange(count)
        rest, test = _cut(everything, labels, test_count) if test_count else (everything, everything[:0])
        train, val = _cut(rest, labels, round(shares[1] * count))
        divided = train, val, test
    return {split: tuple(ids[np.sort(rows)].tolist()) for split, rows in zip(("train", "val", "test"), divided, strict=True)}


def _presence(dataset: Dataset, ids: Sequence[str]) -> NDArray[np.int64] | None:
    """Return which classes each image shows (N, C), two columns at least; None where an image has no labels."""
    known = dataset.labelled()
    if not all(identity in known for identity in ids):
        return None
    present: NDArray[np.int64] = (dataset.labels(ids) != 0).astype(np.int64)
    return present if present.shape[1] > 1 else np.hstack([present, 1 - present])


def _cut(rows: NDArray[np.int64], labels: NDArray[np.int64] | None, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if labels is None:
        order = np.random.default_rng(key("split", len(rows), count)).permutation(rows)
        return order[count:], order[:count]
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=count, random_state=0)
        kept, taken = next(splitter.split(rows, labels[rows]))
    if len(taken) == 0:  # stratification may return some images more or fewer
        return _cut(rows, None, count)
    return rows[kept], rows[taken]


def _pretraining(images: Sequence[ImageFile]) -> dict[str, tuple[str, ...]]:
    training = tuple(image.id for image in images if image.split in ("", "train"))
    for name in ("test", "val"):
        others = [image.id for image in images if image.split == name]
        if others and training:
            return {"train": training, "test": tuple(_some(others, 4000))}
    ids = [image.id for image in images]
    test = set(_some(ids, min(4000, max(1, len(ids) // 20))))
    return {"train": tuple(i for i in ids if i not in test), "test": tuple(i for i in ids if i in test)}


def _some(ids: Sequence[str], count: int) -> list[str]:
    rows = np.random.default_rng(key("held out", len(ids))).permutation(len(ids))[:count]
    return [ids[row] for row in sorted(rows.tolist())]
