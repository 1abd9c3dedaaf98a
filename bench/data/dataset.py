"""`Dataset`: a list of images, whatever their layout on the disk, with a fingerprint; and the decoding of images and masks."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field

from bench.errors import BenchError, DataError, MachineError
from bench.schema import Schema
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
    Where each image has one class, `label` is its number instead. Images of one `group`, such as a patient or a video, are never
    on two sides of a split.
    """

    id: str
    file: str
    split: str = ""
    labels: tuple[int, ...] | None = None
    label: int | None = None
    group: str = ""


Box = tuple[int, float, float, float, float, int]
"""A box: the number of its class, left, top, right and bottom edge in pixels of the image as it is stored, and a flag.

Edges are continuous: a box that covers the first pixel alone is (0, 0, 1, 1). The flag is `JUDGED`, `DIFFICULT` or `CROWD`.
"""
JUDGED, DIFFICULT, CROWD = 0, 1, 2
"""What a box is in scoring: judged, left out (VOC's difficult), or a crowd, in which any number may be found (COCO)."""
Kind = Literal["voc", "coco", "folder", "csv", "masks"]
"""A data set's layout: VOCdevkit, COCO, a folder of images or of class folders, a CSV file of labels, images beside masks."""
APART = ("coco", "folder")
"""The layouts whose fingerprint is of the images alone, since they are also pretrained on: `annotations` has the rest."""


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
    kind: Kind
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
    single: bool = False
    """Whether each image has one class (`ImageFile.label`)."""
    boxes: dict[str, tuple[Box, ...]] = Field(default_factory=dict)
    """The boxes of an image's objects, by the ids of the images that were searched for objects."""
    mask_files: dict[str, str] = Field(default_factory=dict)
    """The file of an image's mask by its id, relative to the root, where it is not called ID.png in its mask folder."""
    grouped_by: str = ""
    """What groups images, such as the column `patient`; "" where nothing does."""
    annotations: str = ""
    """The SHA-256 of what images show where the fingerprint has it not: VOC's boxes, and all that layouts in `APART` say."""
    given: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """The ids of each split, train, val or test, that the data set names itself; empty where it names none, and for VOC."""
    boxed: bool = False
    """Whether the annotations were read for boxes."""
    sources: tuple[str, ...] = ()
    """Files that say what images show, relative to the root, such as a CSV file of labels."""
    seen: dict[str, tuple[int, int, str]] = Field(default_factory=dict)
    """What the files that say what images show were like when the data set was prepared (`bench.data.source_files`)."""
    fingerprint: str = ""

    @property
    def upright(self) -> bool:
        """Whether images are turned as their EXIF orientation says; those with masks or boxes are read as they are stored."""
        return self.kind not in ("voc", "masks") and not self.boxes and not self.masks

    @property
    def title(self) -> str:
        """The name as a row shows it."""
        return f"{self.name} (synthetic)" if self.synthetic else self.name

    def path(self, image: ImageFile) -> Path:
        """Return the path of an image."""
        return self.root / image.file

    def mask_path(self, folder: str, identity: str) -> Path:
        """Return the path of an image's mask in a mask folder."""
        return self.root / self.mask_file(folder, identity)

    def mask_file(self, folder: str, identity: str) -> str:
        """Return the file of an image's mask in a mask folder, relative to the root."""
        return self.mask_files.get(identity, f"{folder}/{identity}.png")

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
        boxes = {identity: found for identity, found in self.boxes.items() if identity not in ids}
        return self.model_copy(update={"images": tuple(kept), "masks": masks, "lists": lists, "boxes": boxes, **update})

    @property
    def unsaid(self) -> set[str]:
        """The fields that a digest leaves out, some while they are empty: added later, they must not change old digests."""
        later = ("broken", "unlisted", "mask_values", "single", "boxes", "mask_files", "grouped_by", "given")
        empty = {name for name in later if not getattr(self, name)}
        apart = {"boxes"} if self.kind in ("voc", "coco") else set()
        told = {"findings", "mask_findings", "surveyed", "by_colour", "score", "annotations", "boxed", "sources", "seen"}
        return {*told, *empty, *apart}

    def prepare_with(self, *options: str) -> str:
        """Return the command that prepares this data set with some options beside those it has, as an error names it."""
        name = re.sub(r"[^\w.-]", "_", self.name, flags=re.ASCII).lstrip(".") or "mine"
        words = ["bench", "data", "prepare", name, "--root", str(self.root), *options]
        if self.kind in ("folder", "csv", "masks"):
            words += ["--layout", {"folder": "classes" if self.single else "images"}.get(self.kind, self.kind)]
            table = self.sources[self.kind == "masks" :][:1]
            words += [*(("--labels", table[0]) if table else ()), *(("--group", self.grouped_by) if self.grouped_by else ())]
        words += [word for pattern in self.exclude for word in ("--exclude", pattern)]
        told = () if self.kind == "masks" and self.sources[0].endswith("classes.csv") else self.mask_values  # else it says them
        words += [word for value in told for word in ("--map", value)]
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
        for folder, ids in self.masks.items() if self.kind != "coco" else ():
            yield from (self.mask_file(folder, identity) for identity in ids)

    def labelled(self) -> dict[str, ImageFile]:
        """Return every labelled image by its id."""
        return {image.id: image for image in self.images if image.labels is not None or image.label is not None}

    def labels(self, ids: Sequence[str]) -> NDArray[np.int8]:
        """Return the labels of some images, int8 (N, classes); DataError when one has none."""
        known = self.labelled()
        missing = [identity for identity in ids if identity not in known]
        if missing:
            raise DataError(f"{self.name} has no labels for {missing[0]} and {len(missing) - 1} more images.")
        if not self.single:
            return np.array([known[identity].labels for identity in ids], dtype=np.int8).reshape(len(ids), len(self.classes))
        found = np.zeros((len(ids), len(self.classes)), dtype=np.int8)
        found[np.arange(len(ids)), [cast(int, known[identity].label) for identity in ids]] = 1
        return found

    def boxes_of(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the boxes of some images, float32 (N, M, 6) as `Box`; rows beyond an image's own have the class -1.

        M is that of the image with the most boxes in the data set, so that targets of all splits have one shape.
        """
        of_each = [self.boxes[identity] for identity in ids]
        found = np.zeros((len(ids), max((len(boxes) for boxes in self.boxes.values()), default=0) or 1, 6), dtype=np.float32)
        found[..., 0] = -1
        for place, boxes in enumerate(of_each):
            found[place, : len(boxes)] = np.array(boxes, dtype=np.float32).reshape(-1, 6)
        return found


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
