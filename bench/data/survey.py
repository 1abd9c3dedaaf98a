"""A survey of all masks of a data set, gathered while they are decoded: which classes occur, and whether they can be believed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from bench.data.dataset import VOC_CLASSES, Dataset
from bench.data.masks import Mask, MaskValues, say_how
from bench.errors import DataError, UsageError
from bench.metrics import VOID
from bench.text import some


class Survey:
    """What all masks of a data set hold; `add` may be called from several threads."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.labels = {identity: image.labels for identity, image in dataset.labelled().items() if image.labels is not None}
        self.shown: dict[str, tuple[int, ...]] = {}
        """The classes in each mask, by the image's id."""
        self.said = Path(dataset.sources[0]).name if dataset.kind == "masks" else "classes.txt"
        """The file that names the classes."""
        self.present: dict[str, Counter[int]] = {
            folder: Counter() for folder, ids in dataset.masks.items() if ids and dataset.kind != "coco"
        }
        self.void_only: Counter[str] = Counter()
        self.binary: Counter[str] = Counter()
        self.coloured: list[str] = []
        self.own: dict[str, dict[int, int]] = {}
        self.colourless: list[str] = []
        self.mapped: set[str] = set()
        self.compared = self.turned = 0
        self.apart: list[tuple[str, str, int]] = []

    def add(self, folder: str, identity: str, mask: Mask, orientation: int = 1) -> None:
        """Take one mask in; `orientation` is the EXIF orientation of its image, 1 for an upright one."""
        found = set(np.flatnonzero(np.bincount(mask.ids.ravel(), minlength=VOID + 1)).tolist())
        name = self.dataset.mask_file(folder, identity)
        self.present[folder].update(found)
        self.coloured += [name] * (mask.palette == "colour")
        self.own |= {name: mask.colours} if mask.palette == "own" else {}
        self.colourless += [name] * (mask.palette == "none" and bool(found - {0, VOID}))
        self.mapped |= mask.mapped
        self.void_only[folder] += found - {0} == {VOID}
        self.binary[folder] += found == {0, VOID}
        self.turned += orientation != 1
        labels, shown = self.labels.get(identity), sorted(found - {0, VOID})
        self.shown[identity] = tuple(shown)
        if labels is not None and shown:
            self.compared += 1
            self.apart += [(folder, identity, one) for one in shown if not labels[one - 1]][:1]

    @property
    def by_colour(self) -> int:
        """The number of masks that were read by the colours of their palettes."""
        return len(self.coloured)

    def check(self) -> None:
        """Raise DataError when no mask of a folder has a class, and when palettes, or most annotations, contradict the masks.

        UsageError when a value that `--map` names occurs in no mask.
        """
        classes = len(self.dataset.classes)
        told = self.dataset.mask_values if self.said != "classes.csv" else ()  # which may name what no mask shows
        idle = [text for text in told if not MaskValues.parse([text], classes).said <= self.mapped]
        if idle and self.present:
            raise UsageError(f"--map {idle[0]} changes nothing: no mask of {self.dataset.root} has {idle[0].partition('=')[0]}.")
        for folder, present in self.present.items():
            if not present.keys() - {0, VOID} or 2 * self.binary[folder] > len(self.dataset.masks[folder]):
                self._refuse_without_class(folder)
        self._check_palettes()
        if 2 * len(self.apart) > self.compared:
            folder, identity, one = min(self.apart)
            order = "VOC's classes" if self.dataset.classes == VOC_CLASSES else self.said
            values = " ".join(f"--map {value}" for value in self.dataset.mask_values)
            changed = f" (here the masks are read with {values})" if values else ""
            known = [name for name, label in zip(self.dataset.classes, self.labels[identity], strict=True) if label]
            raise DataError(
                f"{self.dataset.root}: {len(self.apart):,} of {self.compared:,} masks have a class that the image's annotation "
                f"lacks, such as {self.dataset.mask_file(folder, identity)} with {self.dataset.classes[one - 1]} (id {one}), "
                f"while its annotation has {', '.join(known) or 'no object'}. "
                f"The ids 1, 2, ... follow the order of {order}. Mend the annotations, "
                f"write another {self.said}, or give the values their ids with --map of `bench data prepare`{changed}."
            )

    def _refuse_without_class(self, folder: str) -> None:
        present, count, binary = self.present[folder], len(self.dataset.masks[folder]), self.binary[folder]
        way = f" If 255 means a class, say so: {self.dataset.prepare_with('--map', '255=1')}." if VOID in present else ""
        if present.keys() - {0, VOID}:
            way += " It then means that in every mask, in void borders as well."
            what = f"{binary:,} of {count:,} masks whose pixels are 0 (background) and 255 (void), and show no class"
        else:
            names = {0: "0 (background)", VOID: "255 (void)"}
            what = (
                f"no mask with a class: class 1 ({self.dataset.classes[0]}) and all others occur in none of the {count:,} masks, "
                f"whose pixels are {' and '.join(names[one] for one in sorted(present))}"
            )
        if self.said == "classes.csv":
            way = " Name the values of their pixels in classes.csv."
        where = self.dataset.root / (folder if self.dataset.kind != "masks" else "")
        raise DataError(f"{where} has {what}.{way}")

    def _check_palettes(self) -> None:
        """Raise DataError when other masks stand beside renumbered palettes, or when an index has several colours.

        Beside images, where nothing says that colours are VOC's, a palette that seems renumbered is one of the user's own.
        """
        if self.coloured and self.dataset.kind == "masks":
            raise DataError(
                f"{self.dataset.root}: the palette of {min(self.coloured)} has colours of VOC's classes at other indices, so "
                f"that its indices and its colours say different classes. Where the indices are the ids of {self.said}, "
                "--map index says so; where the colours are the classes, "
                "name them in classes.csv, in the columns id, name and colour."
            )
        if self.coloured and self.colourless:
            raise DataError(
                f"{self.dataset.root}: the palette of {min(self.coloured)} has colours of VOC's classes at other indices, and "
                f"{min(self.colourless)} has no colours for its classes; so nothing tells whether the values of both mean "
                "the same. Give all masks one palette; where the indices are the class ids, --map index says so."
            )
        if self.coloured and self.own:
            name, colours = min(self.own.items())
            index, colour = next(iter(colours.items()))
            raise DataError(
                f"{self.dataset.root}: the palette of {min(self.coloured)} has colours of VOC's classes at other indices, and "
                f"that of {name} has a colour of no class, #{colour:06x} at the index {index}; so neither tells the classes. "
                f"{say_how(repr(f'#{colour:06x}=ID'))} Where the indices are the class ids, --map index says so."
            )
        seen: dict[int, tuple[int, str]] = {}
        for name, colours in sorted(self.own.items()):
            for index, colour in colours.items():
                before, where = seen.setdefault(index, (colour, name))
                if before != colour:
                    raise DataError(
                        f"{self.dataset.root}: the index {index} has the colour #{before:06x} in the palette of {where} and "
                        f"#{colour:06x} in that of {name}; so the indices do not tell the classes. "
                        f"{say_how(*(repr(f'#{one:06x}=ID') for one in (before, colour)))} Where they do, --map index says so."
                    )

    def labels_of(self, identity: str) -> tuple[int, ...] | None:
        """Return the labels of an image by what its mask shows, one per class: 1 present, 0 absent; None without a mask."""
        shown = self.shown.get(identity)
        return None if shown is None else tuple(int(one in shown) for one in range(1, len(self.dataset.classes) + 1))

    def findings(self) -> dict[str, int]:
        """Return what a reader of a score should know, as counts."""
        names = enumerate(self.dataset.classes, 1)
        absent = [name for number, name in names if self.present and not any(p[number] for p in self.present.values())]
        found = {
            "masks read by the colours of their palettes": self.by_colour,
            "masks with a class that the annotation has not": len(self.apart),
            "masks that show void and no class": self.void_only.total(),
            "masked images with an EXIF orientation, read as they are stored, not upright": self.turned,
            f"classes in no mask ({some(absent)})": len(absent),
        }
        return {reason: number for reason, number in found.items() if number}
