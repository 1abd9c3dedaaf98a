"""Data sets that torchvision, medmnist and Hugging Face read, written once as images with a table of labels, as the bench reads.

The folder has `images/SPLIT/000000.png` (pixels as they are; the encoded file where the source has it), `labels.csv` with the
columns file, label and split, and `classes.txt`. Its name has a digest of the source's files, so that a changed source is written
anew.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from bench.data import class_lists, hugging_face, vision_sources
from bench.data.dataset import FORMATS
from bench.data.sources import Content, Item, Source
from bench.errors import BenchError, DataError, UsageError
from bench.storage import files
from bench.text import Echo, quoted

VERSION = 1
"""Raised when equal sources would be written otherwise."""
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}
"""The suffixes of encoded images that are kept as they are; others become PNG."""
SEPARATORS = ",;|"


def looks_like(root: Path) -> bool:
    """Tell whether a folder holds a data set that another library reads; nothing of it is read."""
    return bool(_find(root))


def export(root: Path, name: str, echo: Echo) -> Path | None:
    """Return the folder that a data set of another library is written to, made when missing; None where `root` holds none.

    UsageError where the library is not installed, or `root` holds several; DataError for what the library refuses.
    """
    found = _find(root)
    if not found:
        return None
    if len(found) > 1:
        raise UsageError(
            f"{root} holds {', '.join(one.title for one in found)}; name the folder of one of them, or put it into one alone."
        )
    source = found[0]
    sizes, digest = 0, hashlib.sha256(f"{VERSION} {source.title}\n".encode())
    for path in source.files:
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}.") from error
        sizes += status.st_size
        digest.update(f"{path.relative_to(root.parent)!s} {status.st_size} {status.st_mtime_ns}\n".encode())
    plain = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII).lstrip(".") or "mine"
    folder = files.home() / "exported" / f"{plain}-{digest.hexdigest()[:16]}"
    if not folder.is_dir():
        echo(f"writing {source.title} in {root} as images and labels.csv (once)")
        content = source.open()
        files.publish_folder(folder, lambda place: _write(place, content, root), needs=sizes)
    return folder


def _find(root: Path) -> list[Source]:
    return [*vision_sources.find(root), *hugging_face.find(root)]


def _write(folder: Path, content: Content, root: Path) -> None:
    names = content.classes
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    _check_names(folder / "classes.txt", names, root)
    parted = len(content.splits) > 1
    one_hot = content.several and any(separator in name for name in names for separator in SEPARATORS)
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", *(names if one_hot else ["label"]), *(["split"] if parted else [])])
        for number, (split, item) in enumerate(_items(content, root)):
            shown = _shown(item, names, f"{root}, image {number}")
            place = _place(folder / "images" / split, number, item, f"{root}, image {number}")
            if shown is not None:
                cells = [str(int(name in shown)) for name in names] if one_hot else [";".join(shown)]
                table.writerow([place.relative_to(folder).as_posix(), *cells, *([split] if parted else [])])


def _items(content: Content, root: Path) -> Iterator[tuple[str, Item]]:
    try:
        for split, items in content.splits.items():
            for item in items:
                yield split, item
    except BenchError:
        raise
    except (ValueError, RuntimeError, LookupError, TypeError, OSError) as error:  # what the libraries raise for damaged files
        raise DataError(f"{root} cannot be read to its end: {' '.join(str(error).split())[:200]}; get it again.") from error


def _check_names(path: Path, names: tuple[str, ...], root: Path) -> None:
    """Raise DataError for names of classes that cannot stand in a classes.txt, one a line."""
    try:
        read = class_lists.names(path)
    except DataError as error:
        reason = str(error).replace(f"{path} ", "").rstrip(".")
        raise DataError(f"{root}: its classes cannot be written as classes.txt, which {reason}. Rename them there.") from error
    if read != names:
        strange = next((name for name in names if name not in read), names[:1])
        raise DataError(f"{root} has the class {quoted(strange)}, which cannot be a line of classes.txt; rename it there.")


def _shown(item: Item, names: tuple[str, ...], where: str) -> list[str] | None:
    if item.classes is None:
        return None
    strange = next((number for number in item.classes if not 0 <= number < len(names)), None)
    if strange is not None:
        raise DataError(f"{where}, has the class {strange}, and there are {len(names)}, from 0 on; the source is damaged.")
    return [names[number] for number in item.classes]


def _place(folder: Path, number: int, item: Item, where: str) -> Path:
    """Write an image and return its file; numbers run on over all splits, so that no two files have one name."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{number:06d}"
    if not isinstance(item.image, bytes):
        path = stem.with_suffix(".png")
        Image.fromarray(item.image).save(path)
        return path
    encoded = item.image
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            suffix = SUFFIXES.get(image.format or "")
            if suffix is None:
                image.save(again := io.BytesIO(), "PNG")
                encoded = again.getvalue()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}, does not decode as an image: {' '.join(str(error).split())[:200]}.") from error
    path = stem.with_suffix(suffix or ".png")
    path.write_bytes(encoded)
    return path
