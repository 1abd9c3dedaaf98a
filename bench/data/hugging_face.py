"""Data sets of Hugging Face on the disk: what `save_to_disk` wrote, and folders of Parquet files. Nothing is downloaded.

The image is the column of the feature Image, as its bytes are encoded. The label is the column `label`, `labels` or `category`,
or else the only one of the feature ClassLabel; it is a ClassLabel, a list of them, a text or a whole number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.data.sources import SPLIT_NAMES, Content, Item, Source, library
from bench.errors import DataError
from bench.text import quoted

LABELS = ("label", "labels", "category")
Rows = Callable[[], Iterator[tuple[Any, Any]]]
"""Gives the image, as bytes and path, and the label of each row, from the first on."""
WORDS = re.compile(r"[^a-z]+")


def find(root: Path) -> Iterator[Source]:
    """Yield the data set that a folder holds, if it holds one."""
    if (root / "dataset_dict.json").is_file() or ((root / "state.json").is_file() and (root / "dataset_info.json").is_file()):
        found = sorted(path for path in root.rglob("*") if path.suffix in (".arrow", ".json"))
        yield Source("a Hugging Face data set", found, lambda: _saved(root))
        return
    folders = [root, *(root / name for name in ("data", *SPLIT_NAMES))]
    parquet = sorted(path for folder in folders for path in folder.glob("*.parquet") if path.is_file())
    if parquet and _has_images(parquet[0]):
        yield Source("Parquet files", parquet, lambda: _parquet(root, parquet))


def _has_images(path: Path) -> bool:
    """Tell whether the description at a Parquet file's end has the feature Image, or a column of bytes and path."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            length = int.from_bytes(file.read(4), "little")
            if file.read(4) != b"PAR1" or length > size - 8:
                return False
            file.seek(size - 8 - length)
            end = file.read(length)
    except OSError:
        return False
    return b'"Image"' in end or (b"bytes" in end and b"path" in end)


def _saved(root: Path) -> Content:
    datasets = library("datasets", f"{root}")
    try:
        whole = datasets.load_from_disk(str(root))
    except Exception as error:  # the library, Arrow and JSON have no common base for what a damaged folder raises
        raise DataError(f"{root} is not a data set that save_to_disk wrote: {' '.join(str(error).split())[:200]}.") from error
    parts = dict(whole) if isinstance(whole, datasets.DatasetDict) else {"": whole}
    if not parts:
        raise DataError(f"{root} holds a data set without splits; save it again.")
    features = next(iter(parts.values())).features
    image, label = _columns(datasets, root, features)

    def rows(part: Any) -> Rows:
        plain = part.select_columns([image, label]).with_format(None).cast_column(image, datasets.Image(decode=False))
        return lambda: ((row[image], row[label]) for row in plain)

    return _content(datasets, root, features[label], {name: rows(part) for name, part in parts.items()})


def _parquet(root: Path, paths: list[Path]) -> Content:
    datasets = library("datasets", f"{root}")
    import pyarrow.parquet  # datasets reads Parquet with it

    try:
        schema = pyarrow.parquet.read_schema(paths[0])
        features = datasets.Features.from_arrow_schema(schema)
    except Exception as error:
        raise DataError(f"{paths[0]} cannot be read as Parquet: {' '.join(str(error).split())[:200]}.") from error
    image, label = _columns(datasets, root, features)

    def rows(some: list[Path]) -> Rows:
        def read() -> Iterator[tuple[Any, Any]]:
            for path in some:
                try:
                    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(64, columns=[image, label]):
                        yield from zip(batch.column(image).to_pylist(), batch.column(label).to_pylist(), strict=True)
                except (pyarrow.ArrowException, OSError, KeyError) as error:
                    raise DataError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())[:200]}.") from error

        return read

    by_split: dict[str, list[Path]] = {}
    for path in paths:
        by_split.setdefault(_split_of(path.relative_to(root)), []).append(path)
    if "" in by_split and len(by_split) > 1:
        raise DataError(
            f"{by_split[''][0]} names no split, and other files beside it do; put train, validation or test into its name."
        )
    return _content(datasets, root, features[label], {name: rows(some) for name, some in by_split.items()})


def _split_of(path: Path) -> str:
    """Return the split that a file's name or folders tell, as Hugging Face names them: data/train-00000-of-00002.parquet."""
    words = [word for part in reversed(path.parts) for word in WORDS.split(part.lower())]
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")


def _columns(datasets: Any, root: Path, features: Mapping[str, Any]) -> tuple[str, str]:
    """Return the columns of the image and of the label; DataError with all columns where one cannot be told."""
    every = ", ".join(f"{name} ({_called(feature)})" for name, feature in features.items())
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image) or _is_encoded(feature)]
    if len(images) != 1:
        raise DataError(
            f"{root} has {len(images) or 'no'} column{'s' * (len(images) != 1)} of the feature Image, and one is needed; its "
            f"columns are {every}."
        )
    labels = [name for name in LABELS if name in features]
    labels = labels or [name for name, feature in features.items() if isinstance(_inner(feature), datasets.ClassLabel)]
    if len(labels) != 1 or not _is_label(datasets, features[labels[0]]):
        raise DataError(
            f"{root} needs one column of labels, {', '.join(LABELS)} or one of the feature ClassLabel, which holds classes, "
            f"texts or whole numbers; its columns are {every}. Rename or remove columns."
        )
    return images[0], labels[0]


def _called(feature: Any) -> str:
    return str(getattr(feature, "dtype", "")) if type(feature).__name__ == "Value" else type(feature).__name__


def _is_encoded(feature: Any) -> bool:
    """Tell whether a Parquet file without Hugging Face's own description has an encoded image: a structure of bytes and path."""
    return isinstance(feature, dict) and {*feature} == {"bytes", "path"}


def _inner(feature: Any) -> Any:
    """Return the feature of a list's members, or the feature itself."""
    if isinstance(feature, list):
        return feature[0]
    return getattr(feature, "feature", feature)


def _is_label(datasets: Any, feature: Any) -> bool:
    inner = _inner(feature)
    kind = str(getattr(inner, "dtype", ""))
    return (
        isinstance(inner, datasets.ClassLabel)
        or kind in ("string", "large_string")
        or re.fullmatch(r"u?int\d+", kind) is not None
    )


def _content(datasets: Any, root: Path, feature: Any, parts: Mapping[str, Rows]) -> Content:
    several, inner = _inner(feature) is not feature, _inner(feature)
    if isinstance(inner, datasets.ClassLabel):
        classes = tuple(inner.names)
        numbers = {number: number for number in range(len(classes))}
    else:
        found = {one for rows in parts.values() for _, label in rows() for one in _as_list(label, several)}
        ordered = sorted(found)
        classes, numbers = tuple(str(one).strip() for one in ordered), {one: place for place, one in enumerate(ordered)}
    splits = _splits(root, parts)
    return Content(classes, {name: _items(root, rows, numbers, several) for name, rows in splits.items()}, several)


def _splits(root: Path, parts: Mapping[str, Rows]) -> dict[str, Rows]:
    if len(parts) == 1:
        return {"": next(iter(parts.values()))}
    strange = [name for name in parts if name not in SPLIT_NAMES]
    named = {SPLIT_NAMES[name]: rows for name, rows in parts.items() if name in SPLIT_NAMES}
    if strange or len(named) < len(parts):
        raise DataError(
            f"{root} has the splits {', '.join(parts)}, which are not one each of train, validation and test; save it with such."
        )
    return named


def _as_list(label: Any, several: bool) -> list[Any]:
    if several:
        return list(label or ())
    return [] if label is None or label == "" else [label]


def _items(root: Path, rows: Rows, numbers: Mapping[Any, int], several: bool) -> Iterable[Item]:
    """Yield the images; a label that is missing or -1, as in test sets without labels, is none."""
    for place, (image, label) in enumerate(rows()):
        found = _as_list(label, several)
        strange = next((one for one in found if one not in numbers and one != -1), None)
        if strange is not None:
            raise DataError(f"{root}, row {place}, has the label {quoted(strange)}, which is none of its {len(numbers)} classes.")
        known = label is not None and -1 not in found and (several or bool(found))
        yield Item(_bytes(root, place, image), tuple(numbers[one] for one in found) if known else None)


def _bytes(root: Path, place: int, image: Any) -> bytes:
    content, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (None, None)
    if isinstance(content, bytes):
        return content
    if isinstance(path, str) and Path(path).is_file():
        return Path(path).read_bytes()
    raise DataError(f"{root}, row {place}, has no image{f' but {quoted(path)}, which is not there' if path else ''}.")
