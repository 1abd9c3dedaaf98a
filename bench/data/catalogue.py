"""Prepared data sets: a name leads to an index in the home folder, a path to an index made on the way.

An index is the list of images with its fingerprint. A prepared set's index is trusted until it is prepared again (`bench
data verify` reads everything again); a path's index is made anew when a file's size or time has changed.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bench.data import coco, folder, voc
from bench.data.dataset import Dataset, choose_scored, decode, decode_mask, fingerprinted
from bench.data.download import ARCHIVES
from bench.data.threads import in_order
from bench.errors import DataError, MachineError, UsageError, unknown
from bench.storage import files, seal
from bench.text import Echo

DEMO_LABELLED, DEMO_UNLABELLED = "demo", "demo_unlabelled"
INDEX_VERSION = 3
"""2: an index is sealed. 3: it names images and splits. Those of paths are made anew for another version."""
LABELLED_DEFAULTS = ("voc2012", "voc2007")
UNLABELLED_DEFAULTS = ("coco2014", "coco2017")


def prepared() -> dict[str, Dataset]:
    """Return every prepared data set by name."""
    return {name: read_index(_index(name)) for name in _names()}


def _names() -> list[str]:
    return sorted(path.parent.name for path in (files.home() / "data").glob("*/index.json"))


def _index(name: str) -> Path:
    return files.home() / "data" / name / "index.json"


def check_prepared(*names: str | None) -> None:
    """Raise MachineError for a known data set that is neither prepared nor a folder here: nothing downloads on its own."""
    for name in names:
        if name in ARCHIVES and not _index(name).is_file() and not Path(name).is_dir():
            raise MachineError(
                f"{name} is not prepared; run `bench data prepare {name}` first, which downloads "
                f"{sum(archive.size for archive in ARCHIVES[name]) / 1e9:,.1f} GB, or takes what is there with --root DIR."
            )


def read(root: Path, name: str, exclude: Sequence[str] = (), score: Sequence[str] = (), broken: Sequence[str] = ()) -> Dataset:
    """Read a data set in whatever layout `root` has: VOCdevkit, COCO, or a folder of images.

    What matches a pattern in `exclude` is left out, and so are the images whose files are in `broken`.
    """
    if not root.is_dir():
        raise DataError(f"there is no data set at {root}: no such folder.")
    root = root.resolve()
    if voc.looks_like(root):
        dataset = voc.read(root, name)
    elif coco.looks_like(root):
        dataset = coco.read(root, name)
    else:
        dataset = folder.read(root, name)
    if exclude:
        dataset = _without(dataset, exclude)
    if broken:
        dataset = _without_broken(dataset, broken)
    strange = next((image.file for image in dataset.images if not image.file.isprintable() or _undecodable(image.file)), None)
    if strange is not None:
        raise DataError(f"{root} has an image with the file name {strange!r}, which is no readable text; rename it.")
    return choose_scored(dataset, score) if score else dataset


def _undecodable(name: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in name)


def _without(dataset: Dataset, patterns: Sequence[str]) -> Dataset:
    matching = {p.id for p in dataset.images if any(fnmatch.fnmatch(Path(p.file).name, pattern) for pattern in patterns)}
    return dataset.without(matching, exclude=tuple(patterns))


def _without_broken(dataset: Dataset, files: Iterable[str]) -> Dataset:
    wanted = set(files)
    return dataset.without({p.id for p in dataset.images if p.file in wanted}, broken=tuple(sorted(wanted)))


def register(dataset: Dataset, skip_broken: bool = False, echo: Echo = lambda text: None) -> Dataset:
    """Verify a data set by decoding every image and put its index under its name; a known name needs its own layout.

    DataError names the first file that does not decode. With `skip_broken` each is named to `echo`, and its image is left out.
    """
    wanted = {"voc2007": "voc", "voc2012": "voc", "coco2014": "coco", "coco2017": "coco"}.get(dataset.name, dataset.kind)
    if dataset.kind != wanted:
        raise DataError(f"{dataset.root} was read as {dataset.kind}, and {dataset.name} is {wanted}; choose another name for it.")
    if skip_broken:
        dataset = _sound(dataset, echo)
    check = _check_of(dataset, masks_only=skip_broken)

    def check_or_say_how(path: Path) -> None:
        try:
            check(path)
        except DataError as error:
            if _problem(path) is None:
                raise
            raise DataError(
                f"{str(error).removesuffix('.')}; mend or remove it, or leave out all that does not decode with --skip-broken."
            ) from error

    return _save(files.home() / "data" / dataset.name, fingerprinted(dataset, check_or_say_how))


def _sound(dataset: Dataset, echo: Echo) -> Dataset:
    """Return a data set without the images that do not decode or have a mask that does not."""
    broken: set[str] = set()
    of_mask = {f"{folder}/{identity}.png": identity for folder, ids in dataset.masks.items() for identity in ids}
    file_of = {image.id: image.file for image in dataset.images} if of_mask else {}
    for file, problem in in_order(lambda file: (file, _problem(dataset.root / file)), dataset.files()):
        if problem is not None:
            echo(f"left out: {problem}")
            broken.add(file_of[of_mask[file]] if file in of_mask else file)
    return _without_broken(dataset, broken) if broken else dataset


def _problem(path: Path) -> str | None:
    """Return why a file does not decode, None when it does."""
    try:
        decode(path)
    except DataError as error:
        return str(error)
    return None


def _check_of(dataset: Dataset, masks_only: bool = False) -> Callable[[Path], None]:
    """Return what decodes one file of a data set fully: an image, or a mask against its image."""
    by_id = {image.id: image for image in dataset.images} if dataset.masks else {}
    images = {dataset.mask_path(folder, name): by_id[name] for folder, ids in dataset.masks.items() for name in ids}

    def check(path: Path) -> None:
        image = images.get(path)
        if image is not None:
            source = dataset.path(image)
            decode_mask(path, len(dataset.classes), decode(source).size, source)
        elif not masks_only:
            decode(path)

    return check


def open_dataset(name_or_path: str, echo: Echo) -> Dataset:
    """Return a prepared data set by name, or the one at a path."""
    index, is_demo = _index(name_or_path), name_or_path in (DEMO_LABELLED, DEMO_UNLABELLED)
    if "/" not in name_or_path and index.is_file():
        try:
            return read_index(index)
        except DataError as error:
            if not is_demo:
                raise
            echo(f"{error} It is made anew.")
    if is_demo:
        from bench.data import demo

        echo("making the synthetic demo data (once)")
        for name, root in demo.make(files.home() / "demo").items():
            register(read(root, name))
        return read_index(index)
    path = Path(name_or_path)
    check_prepared(name_or_path)
    if not path.is_dir():
        if "/" in name_or_path or name_or_path.startswith("."):
            raise DataError(f"there is no data set at {name_or_path}: no such folder.")
        raise unknown("data set", name_or_path, {*_names(), DEMO_LABELLED})
    return _indexed(path.resolve(), echo)


def _indexed(root: Path, echo: Echo) -> Dataset:
    dataset = read(root, root.name)
    signature = hashlib.sha256()
    for number, file in enumerate(dataset.files()):  # the text of a list, for an index to be found that was made from one
        signature.update(f"{', ' if number else '['}{_stamp(dataset.root / file)!r}".encode())
    signature.update(b"]")
    signature.update(dataset.model_dump_json(exclude=dataset.unsaid).encode())
    place = files.home() / "paths" / f"{signature.hexdigest()[:24]}-{INDEX_VERSION}"
    if (place / "index.json").is_file():
        return read_index(place / "index.json")
    echo(f"reading {dataset.name}: {len(dataset.images):,} images (once)")
    return _save(place, fingerprinted(dataset))


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from error
    return str(path), status.st_size, status.st_mtime_ns


def _save(place: Path, dataset: Dataset) -> Dataset:
    files.publish_file(place / "index.json", seal.sealed(dataset.model_dump_json() + "\n"))
    return dataset


def is_of_this_version(place: Path) -> bool:
    """Tell whether an index's folder is one that this version reads: those of paths have the version in their name."""
    return place.parent.name != "paths" or place.name.endswith(f"-{INDEX_VERSION}")


def read_index(path: Path) -> Dataset:
    """Return a data set from its index; DataError when it is damaged or another version's."""
    way_out = "prepare the data set again" if path.is_relative_to(files.home() / "data") else "remove its folder"
    return seal.read_model(Dataset, path, "an index", way_out)


def defaults(pretrain_data: str | None) -> tuple[str, str, str]:
    """Return the data and pretraining data to use when no data is named, and what to tell the user about it.

    VOC and COCO when both are prepared (VOC alone when the pretraining data is named), else the demo data.
    """
    names = _names()
    labelled = next((name for name in LABELLED_DEFAULTS if name in names), None)
    unlabelled = pretrain_data or next((name for name in UNLABELLED_DEFAULTS if name in names), None)
    if labelled and unlabelled:
        return labelled, unlabelled, ""
    missing = " and ".join(what for what, there in (("VOC 2012", labelled), ("COCO", unlabelled)) if not there)
    note = (
        f"{missing} {'are' if ' and ' in missing else 'is'} not prepared, so this is scored on the embedded synthetic demo data "
        "(bench data prepare voc2012, bench data prepare coco2014; or --data and --pretrain-data)."
    )
    return DEMO_LABELLED, pretrain_data or DEMO_UNLABELLED, note


def pretraining_data_for(data: str) -> str:
    """Return the pretraining data that goes with `data` when only `data` is named; UsageError when nothing does."""
    if data == DEMO_LABELLED:
        return DEMO_UNLABELLED
    names = _names()
    for name in UNLABELLED_DEFAULTS:
        if name in names:
            return name
    raise UsageError(
        f"--data {data} needs images to pretrain on: prepare COCO (bench data prepare coco2014) or name any folder "
        "with --pretrain-data DIR."
    )


def verify(name_or_path: str) -> Dataset:
    """Decode everything of a prepared set or a folder; DataError names what is broken or has changed since it was prepared."""
    known = read_index(_index(name_or_path)) if name_or_path in _names() else None
    if known is None and "/" not in name_or_path and not Path(name_or_path).is_dir():
        check_prepared(name_or_path)
        raise unknown("data set", name_or_path, _names())
    root = known.root if known else Path(name_or_path)
    fresh = read(root, known.name, known.exclude, known.scored, known.broken) if known else read(root, root.resolve().name)
    checked = fingerprinted(fresh, _check_of(fresh))
    if known is not None and checked.fingerprint != known.fingerprint:
        raise DataError(f"{known.name} at {known.root} is not what was prepared: a file has changed; prepare it again.")
    return checked
