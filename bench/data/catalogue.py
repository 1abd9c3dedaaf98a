"""The catalogue of data sets: a name leads to a prepared data set, a path to a folder that is indexed when it is first used.

An index is the list of images with its fingerprint, kept in the home folder. A prepared data set's index is trusted until the
data set is prepared again (`bench data verify` reads all files again). The index of a path is made anew when the size or the time
of a file has changed.
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
"""2: an index is sealed. 3: it names images and splits. The index of a path is made anew for each version."""
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
    """Raise MachineError for a downloadable data set that is neither prepared nor a folder; a run downloads nothing."""
    for name in names:
        if name in ARCHIVES and not _index(name).is_file() and not Path(name).is_dir():
            raise MachineError(
                f"{name} is not prepared; run `bench data prepare {name}` first, which downloads "
                f"{sum(archive.size for archive in ARCHIVES[name]) / 1e9:,.1f} GB, or takes a folder with --root DIR."
            )


def read(root: Path, name: str, exclude: Sequence[str] = (), score: Sequence[str] = (), broken: Sequence[str] = ()) -> Dataset:
    """Return the data set at `root`, read by its layout: VOCdevkit, COCO, or a folder of images.

    Images whose file names match a pattern in `exclude` are left out, and so are those whose files are in `broken`. `score` names
    the classes that are scored, all when empty. DataError says what is missing or wrong.
    """
    if not root.is_dir():
        raise DataError(f"there is no data set at {root}: {'it is a file' if root.exists() else 'no such folder'}.")
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
        raise DataError(f"{root} has an image with the file name {strange!r}, which cannot be printed; rename the file.")
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
    """Verify a data set by decoding every image, and put its index under its name; return it with its fingerprint.

    DataError names the first file that does not decode; with `skip_broken` each such file is told to `echo` and its image left
    out. DataError also for a name such as voc2012 with another layout than its own.
    """
    layouts = {**dict.fromkeys(LABELLED_DEFAULTS, "voc"), **dict.fromkeys(UNLABELLED_DEFAULTS, "coco")}
    wanted = layouts.get(dataset.name, dataset.kind)
    if dataset.kind != wanted:
        raise DataError(f"{dataset.root} has the layout {dataset.kind}, but {dataset.name} has {wanted}; choose another name.")
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
                f"{str(error).removesuffix('.')}; mend or remove it, or leave out all such images with --skip-broken."
            ) from error

    return _save(files.home() / "data" / dataset.name, fingerprinted(dataset, check_or_say_how))


def _sound(dataset: Dataset, echo: Echo) -> Dataset:
    """Return a data set without the images that do not decode, or whose mask does not decode."""
    broken: set[str] = set()
    of_mask = {f"{folder}/{identity}.png": identity for folder, ids in dataset.masks.items() for identity in ids}
    file_of = {image.id: image.file for image in dataset.images} if of_mask else {}
    for file, problem in in_order(lambda file: (file, _problem(dataset.root / file)), dataset.files()):
        if problem is not None:
            echo(f"left out: {problem}")
            broken.add(file_of[of_mask[file]] if file in of_mask else file)
    return _without_broken(dataset, broken) if broken else dataset


def _problem(path: Path) -> str | None:
    """Return why a file does not decode, None when it decodes."""
    try:
        decode(path)
    except DataError as error:
        return str(error)
    return None


def _check_of(dataset: Dataset, masks_only: bool = False) -> Callable[[Path], None]:
    """Return a function that decodes one file, an image or a mask, whole, and compares a mask's size with its image's."""
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
    """Return a prepared data set by name, or the one in a folder; the demo data is made when it is first asked for."""
    index, is_demo = _index(name_or_path), name_or_path in (DEMO_LABELLED, DEMO_UNLABELLED)
    if "/" not in name_or_path and index.is_file():
        try:
            return read_index(index)
        except DataError as error:
            if not is_demo:
                raise
            echo(f"{error} The demo data is made anew.")
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
    # The text of a list, as in earlier versions, whose indices are found by it.
    for number, file in enumerate(dataset.files()):
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
    """Tell whether this version reads an index's folder; the folder of a path's index has the version in its name."""
    return place.parent.name != "paths" or place.name.endswith(f"-{INDEX_VERSION}")


def read_index(path: Path) -> Dataset:
    """Return a data set from its index file; DataError when the index is damaged or of another version."""
    way_out = "prepare the data set again" if path.is_relative_to(files.home() / "data") else "remove its folder"
    return seal.read_model(Dataset, path, "an index", way_out)


def defaults(pretrain_data: str | None) -> tuple[str, str, str]:
    """Return the labelled data and the pretraining data to use when no data is named, and a note for the user.

    These are VOC and COCO when both are prepared (only VOC needs to be when `pretrain_data` is given), else the demo data.
    """
    names = _names()
    labelled = next((name for name in LABELLED_DEFAULTS if name in names), None)
    unlabelled = pretrain_data or next((name for name in UNLABELLED_DEFAULTS if name in names), None)
    if labelled and unlabelled:
        return labelled, unlabelled, ""
    missing = " and ".join(what for what, there in (("VOC 2012", labelled), ("COCO", unlabelled)) if not there)
    note = (
        f"{missing} {'are' if ' and ' in missing else 'is'} not prepared, so the embedded synthetic demo data is used "
        "(bench data prepare voc2012, bench data prepare coco2014; or --data and --pretrain-data)."
    )
    return DEMO_LABELLED, pretrain_data or DEMO_UNLABELLED, note


def pretraining_data_for(data: str) -> str:
    """Return the pretraining data to use when only the labelled `data` is named; UsageError when COCO is not prepared."""
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
    """Decode every file of a prepared data set or a folder, and return it with its fingerprint.

    DataError names a file that is broken, or the data set when it has changed since it was prepared.
    """
    known = read_index(_index(name_or_path)) if name_or_path in _names() else None
    if known is None and "/" not in name_or_path and not Path(name_or_path).is_dir():
        check_prepared(name_or_path)
        raise unknown("data set", name_or_path, _names())
    root = known.root if known else Path(name_or_path)
    fresh = read(root, known.name, known.exclude, known.scored, known.broken) if known else read(root, root.resolve().name)
    checked = fingerprinted(fresh, _check_of(fresh))
    if known is not None and checked.fingerprint != known.fingerprint:
        raise DataError(f"{known.name} at {known.root} has changed since it was prepared; prepare it again.")
    return checked
