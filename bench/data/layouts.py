"""A folder's layout: found out by what lies there, or said by the user; and the reader of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from bench.data import class_folders, coco, folder, label_table, mask_folders, tables, voc, voc0712
from bench.data.dataset import Dataset
from bench.errors import DataError, UsageError, unknown
from bench.text import quoted

LAYOUTS = ("voc", "coco", "classes", "csv", "masks", "images")
"""VOCdevkit, COCO, class folders, a table of labels, images beside masks, and images whose labels are not used."""


def of(dataset: Dataset) -> str:
    """Return the layout by which a data set was read."""
    if dataset.kind == "folder":
        return "classes" if dataset.single else "images"
    return dataset.kind


def table_of(dataset: Dataset) -> str:
    """Return the table of labels, splits or groups that a data set was read with, relative to its root; "" without one."""
    first = {"csv": 0, "folder": 0, "masks": 1}.get(dataset.kind, len(dataset.sources))
    return next(iter(dataset.sources[first:]), "")


def says_values(dataset: Dataset) -> bool:
    """Tell whether the data set's own classes.csv says what the pixels of its masks mean."""
    return dataset.kind == "masks" and dataset.sources[0].endswith("classes.csv")


class Asked(Protocol):
    """What a user says of a layout: its name, "" to find it out, a table of labels, and a column of groups in it."""

    @property
    def layout(self) -> str:
        """The layout's name."""

    @property
    def labels(self) -> str:
        """The file of the table."""

    @property
    def group(self) -> str:
        """The column."""

    @property
    def exclude(self) -> Sequence[str]:
        """Patterns of files that are left out."""


LeaveOut = Callable[[Dataset], Dataset]
"""Leaves the images out that the user excludes."""


def read(root: Path, name: str, asked: Asked, skip: voc.Skip, leave_out: LeaveOut) -> Dataset:
    """Return the data set at a folder, by its layout.

    Folders name classes by what is not left out; elsewhere the caller leaves out. UsageError for choices that do not fit the
    layout; DataError
    for a folder whose layout cannot be told, and those of the readers.
    """
    layout, labels, group = asked.layout, asked.labels, asked.group
    if layout and layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    found = layout or _find(root)
    table = label_table.find(root, labels) if found not in ("voc", "coco", "images") else ""
    if found in ("voc", "coco", "images") and (labels or group):
        raise UsageError(
            f"{'--labels' if labels else '--group'} is for class folders, images beside masks and tables of labels, and {root} "
            f"is read as {found}; --layout csv, classes or masks says otherwise."
        )
    if group and not table:
        raise UsageError(f"--group {group} names a column of a table; name its file with --labels.")
    if found == "voc":
        return voc0712.read(root, name, skip) if name == voc0712.NAME else voc.read(root, name, skip)
    if found == "coco":
        return coco.read(root, name)
    if found == "images":
        return folder.read(root, name)
    if found == "masks":
        return _with_table(mask_folders.read(root, name), table, group, skip)
    if found == "csv" and not table:
        raise UsageError(f"--layout csv needs a table: {root} has no {label_table.NAME}; name another with --labels.")
    plain = folder.read(root, name)
    if asked.exclude and not table:
        plain = leave_out(plain)
    return _labelled(plain, found if layout else "", table, group, skip)


def _find(root: Path) -> str:
    """Return the layout of a folder that its files tell, "" for class folders, a table, or a folder of images."""
    if voc.looks_like(root):
        annotated = any(path.suffix == ".xml" for path in (root / "Annotations").glob("*.xml"))
        marked = any((root / name).is_dir() for name in ("ImageSets", "VOCdevkit", *voc.MASK_FOLDERS))
        return "masks" if not annotated and not marked and mask_folders.looks_like(root) else "voc"
    if coco.looks_like(root):
        return "coco"
    return "masks" if mask_folders.looks_like(root) else ""


def _labelled(plain: Dataset, layout: str, table: str, group: str, skip: voc.Skip) -> Dataset:
    """Return a folder of images with the labels that its folders or a table give, as it is where there are none."""
    classes = class_folders.labelled(plain) if layout != "csv" else None
    if layout == "classes" and classes is None:
        raise DataError(
            f"{plain.root} has no class folders: {class_folders.problem(plain)}. They need two folders of images at least, or "
            "such folders below train, val and test, and nothing beside them; --exclude 'FOLDER/*' leaves a folder out."
        )
    if not table:
        return classes or class_folders.nearly(plain)
    if layout == "classes" and classes is not None:
        return _with_table(classes, table, group, skip)
    by_table = _by_table(plain, table, group, skip) if classes is None or _has_labels(plain.root / table) else None
    if classes is None or by_table is None:
        return by_table or _with_table(classes or plain, table, group, skip)
    apart = _apart(classes, by_table)
    if apart:
        raise DataError(
            f"{plain.root / table} and the folders say different classes, such as {apart}; --layout csv takes those of the "
            "table, --layout classes those of the folders."
        )
    return _with_table(classes, table, group, skip)


def _has_labels(path: Path) -> bool:
    return label_table.has_labels(tables.read(path))


def _by_table(plain: Dataset, table: str, group: str, skip: voc.Skip) -> Dataset:
    """Return a folder of images with the labels of a table; a row may name a file that was taken for a mask."""
    root = plain.root
    names = [image.file for image in plain.images]
    spare = sorted(set(folder.listed(root)[0]) - set(names)) if folder.BESIDE in plain.findings else []
    rows = label_table.rows_of(tables.read(root / table), names, spare, skip.known, skip.broken)
    more = [name for name in spare if name in rows.of]
    findings = {**plain.findings, folder.BESIDE: len(spare) - len(more), folder.TABLES: plain.findings[folder.TABLES] - 1}
    if (root / table).with_name("classes.txt").is_file():
        findings[folder.OTHERS] -= 1
    kept = {reason: number for reason, number in findings.items() if number}
    whole = folder.made(root, plain.name, sorted([*names, *more], key=lambda name: name.split("/")), kept)
    return label_table.arranged(label_table.read(whole, rows, group), rows, group, as_parts=True)


def _with_table(dataset: Dataset, table: str, group: str, skip: voc.Skip) -> Dataset:
    """Return class folders, or images beside masks, with the splits and groups of a table, whose labels are not used."""
    if not table:
        return dataset
    found = tables.read(dataset.root / table)
    rows = label_table.rows_of(found, [image.file for image in dataset.images], (), skip.known, skip.broken)
    unused = label_table.has_labels(found) and dataset.kind == "masks"
    more = {f"tables whose labels are not used beside masks ({table})": int(unused), **rows.findings}
    findings = {**dataset.findings, **more, folder.TABLES: dataset.findings.get(folder.TABLES, 1) - 1}
    kept = {reason: number for reason, number in findings.items() if number}
    update = {"sources": (*dataset.sources, table), "findings": kept}
    return label_table.arranged(dataset.model_copy(update=update), rows, group, as_parts=dataset.kind == "masks")


def _apart(classes: Dataset, by_table: Dataset) -> str:
    """Return an image whose folder and row say different classes, with both, "" where they agree."""
    folders = {image.file: classes.classes[image.label or 0] for image in classes.images}
    for image in by_table.images:
        shown = [image.label] if image.label is not None else [n for n, value in enumerate(image.labels or ()) if value]
        named = [by_table.classes[number] for number in shown]
        if (image.label is not None or image.labels is not None) and named != [folders.get(image.file, "")]:
            return f"{quoted(', '.join(named))} for {image.file}"
    return ""
