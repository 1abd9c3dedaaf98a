"""`Dataset`: a list of images, whatever their layout on the disk, with a fingerprint; and the decoding of images and masks."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field

from bench.data.threads import in_order
from bench.errors import BenchError, DataError, MachineError
from bench.schema import Schema, digest_of
from bench.storage import files
from bench.text import quoted, shell

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""The formats that are read, whatever a file's name ends in. Pillow's others are left out: PostScript, for which Pillow runs a
program, and formats in which nobody keeps images."""
ORIENTATION = 0x0112
"""The tag of EXIF's orientation."""
MOST_PIXELS = 89_478_485
"""The most pixels of an image: above this, 256 MiB at 3 bytes per pixel, Pillow warns of a decompression bomb."""

warnings.filterwarnings("ignore", module=r"PIL\.")  # Pillow's warnings name no file, and a file that does not decode is an error

VOC_CLASSES = tuple(
    [
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ]
)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image: its id, its file relative to the root, and the data set's own split that it belongs to.

    `labels` has one number per class: 1 present, 0 absent, -1 present as difficult objects only; None for an unlabelled image.
    """

    id: str
    file: str
    split: str = ""
    labels: tuple[int, ...] | None = None


class Dataset(Schema):
    """A data set: its classes, its images with labels, its masks and its official splits.

    `scored` are the classes that are scored; the others stay out of every mean. `masks` maps a mask folder to the ids that have a
    mask in it; `lists` maps `Main` and `Segmentation` to the official splits. `exclude` are the patterns, and `broken` the files,
    of images that were left out, the latter because they or their masks do not decode. `unlisted` are images that an official
    list (`Main/p7` for that of the task Main) names and the data set has not, or has without annotation or mask; they were taken
    out of the list. `mask_values` says what the pixels of masks mean (`--map`), and `by_colour` how many masks were read by the
    colours of their palettes. `findings` counts, by reason, what the folder holds and a run does not use, and `mask_findings`
    what a reader of a score should know of the masks. `fingerprint` is the SHA-256 over every file's content and all fields but
    the name, the root and the findings.
    """

    name: str
    kind: Literal["voc", "coco", "folder"]
    root: Path
    synthetic: bool = False
    classes: tuple[str, ...] = ()
    scored: tuple[str, ...] = ()
    images: tuple[ImageFile, ...]
    masks: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    lists: dict[str, dict[str, tuple[str, ...]]] = Field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    score: tuple[str, ...] | None = None
    """The classes that `--score` named, () where the data set's own file says which are scored; None in earlier indexes."""
    mask_values: tuple[str, ...] = ()
    by_colour: int = 0
    surveyed: bool = False
    """Whether all masks were looked at for `by_colour` and `findings`."""
    findings: dict[str, int] = Field(default_factory=dict)
    mask_findings: dict[str, int] = Field(default_factory=dict)
    fingerprint: str = ""

    @property
    def title(self) -> str:
        """The name as a row shows it."""
        return f"{self.name} (synthetic)" if self.synthetic else self.name

    def path(self, image: ImageFile) -> Path:
        """Return the path of an image."""
        return self.root / image.file

    def mask_path(self, folder: str, identity: str) -> Path:
        """Return the path of an image's mask in a mask folder."""
        return self.root / folder / f"{identity}.png"

    def without(self, ids: Collection[str], **update: Any) -> Dataset:
        """Return the data set without some images, their masks and their places in the lists; DataError when none is left."""
        kept = [image for image in self.images if image.id not in ids]
        if not kept:
            raise DataError(f"nothing of {self.name} is left: all of its {len(self.images):,} images are left out.")
        masks = {folder: tuple(one for one in masked if one not in ids) for folder, masked in self.masks.items()}
        lists = {
            task: {split: tuple(one for one in listed if one not in ids) for split, listed in splits.items()}
            for task, splits in self.lists.items()
        }
        return self.model_copy(update={"images": tuple(kept), "masks": masks, "lists": lists, **update})

    @property
    def unsaid(self) -> set[str]:
        """The fields that a digest leaves out, some while they are empty: added later, they must not change old digests."""
        empty = {name for name in ("broken", "unlisted", "mask_values") if not getattr(self, name)}
        return {"findings", "mask_findings", "surveyed", "by_colour", "score", *empty}

    def prepare_with(self, *options: str) -> str:
        """Return the command that prepares this data set with some options beside those it has, as an error names it."""
        name = re.sub(r"[^\w.-]", "_", self.name, flags=re.ASCII).lstrip(".") or "mine"
        words = ["bench", "data", "prepare", name, "--root", str(self.root), *options]
        words += [word for pattern in self.exclude for word in ("--exclude", pattern)]
        words += [word for value in self.mask_values for word in ("--map", value)]
        if len(self.scored) < len(self.classes) and "--score" not in options:
            words += ["--score", ",".join(self.scored)]
        if (self.broken or self.unlisted) and "--skip-broken" not in options:
            words.append("--skip-broken")
        return f"`{shell(words)}`, and then `--data {name}`"

    def left_out(self, task: str) -> int:
        """Return how many images a task lacks since a file of theirs is broken, or missing for the task's official lists."""
        return len(self.broken) + sum(one.startswith(f"{task}/") for one in self.unlisted)

    def files(self) -> Iterator[str]:
        """Yield the file of every image and mask, relative to the root."""
        yield from (image.file for image in self.images)
        for folder, ids in self.masks.items():
            yield from (f"{folder}/{identity}.png" for identity in ids)

    def known_labels(self) -> dict[str, tuple[int, ...]]:
        """Return the labels of every labelled image, by its id."""
        return {image.id: image.labels for image in self.images if image.labels is not None}

    def labels(self, ids: Sequence[str]) -> NDArray[np.int8]:
        """Return the labels of some images, int8 (N, classes); DataError when one has none."""
        known = self.known_labels()
        missing = [identity for identity in ids if identity not in known]
        if missing:
            raise DataError(f"{self.name} has no labels for {missing[0]} and {len(missing) - 1} more images.")
        return np.array([known[identity] for identity in ids], dtype=np.int8)


def fingerprinted(dataset: Dataset, check: Callable[[Path], object] | None = None) -> Dataset:
    """Return the data set with its fingerprint; `check` is called with the path of every file, in threads."""

    def read(file: str) -> tuple[str, str]:
        path = dataset.root / file
        if check is not None:
            check(path)
        try:
            return file, files.sha256(path)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}.") from error

    # The keys keep their first names, "pictures" and "part": others would change every fingerprint.
    content = dataset.model_dump(mode="json", exclude={"root", "fingerprint", "name", "images", *dataset.unsaid})
    content["files"] = in_order(read, dataset.files())
    content["pictures"] = (
        {"id": image.id, "file": image.file, "part": image.split, "labels": image.labels} for image in dataset.images
    )
    return dataset.model_copy(update={"fingerprint": digest_of(content)})


@contextlib.contextmanager
def opened(path: Path, what: str = "an image") -> Iterator[Image.Image]:
    """Open an image file, whose pixels are decoded when the block reads them; errors inside the block name the file.

    DataError for a file that does not decode, that is none of `FORMATS`, or that has more than `MOST_PIXELS` pixels; MachineError
    when there is not enough memory.
    """
    try:
        content = io.BytesIO(path.read_bytes())  # in memory, a header cannot make Pillow read beyond the end
        with Image.open(content, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except BenchError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path} has more than {MOST_PIXELS:,} pixels, the most for {what}; shrink it, or leave it out."
        ) from error
    except MemoryError as error:
        raise MachineError(f"there is not enough memory to decode {path}; close other programs, or leave it out.") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} does not decode as {what}: it is none of {', '.join(FORMATS)}.") from error
    except Exception as error:  # Pillow's plug-ins have no common base for what a damaged file raises
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise DataError(f"{path} does not decode as {what}: {reason}.") from error


class Header(NamedTuple):
    """What an image's file says before its pixels: width and height as stored, and EXIF's orientation, 1 for an upright image."""

    size: tuple[int, int]
    orientation: int


def read_header(path: Path) -> Header:
    """Return the header of an image, whose pixels are not decoded; the errors are those of `opened`."""
    with opened(path) as image:
        try:
            return Header(image.size, int(image.getexif().get(ORIENTATION, 1)))
        except (ValueError, TypeError, SyntaxError, OSError):  # EXIF that cannot be read turns nothing
            return Header(image.size, 1)


def decode(path: Path, upright: bool = False) -> Image.Image:
    """Return the whole image, decoded, as 8-bit RGB (an alpha channel is dropped); DataError names the file.

    `upright` turns the image as its EXIF orientation says; images with masks are read as they are stored.
    """
    with opened(path) as image:
        if upright:
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "F":
            raise DataError(f"{path} has floating-point pixels, whose value for white is unknown; save it with 8 or 16 bits.")
        if image.mode.startswith("I"):  # Pillow would clip 16 bits to white
            deep = np.asarray(image)
            return Image.fromarray((deep // 257 if deep.max(initial=0) > 255 else deep).clip(0, 255).astype(np.uint8)).convert(
                "RGB"
            )
        return image.convert("RGB")


def choose_scored(dataset: Dataset, scored: Iterable[str]) -> Dataset:
    """Return the data set with these classes scored, all when none is named; DataError for a class that it does not have."""
    names = tuple(dict.fromkeys(scored))
    for name in names:
        if name not in dataset.classes:
            known = f"its classes: {', '.join(dataset.classes)}" if dataset.classes else "it has no classes"
            raise DataError(f"{dataset.name} has no class {quoted(name)} to score; {known}.")
    kept = tuple(name for name in dataset.classes if name in names)
    return dataset.model_copy(update={"scored": kept or dataset.classes})
