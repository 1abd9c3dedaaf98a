"""The catalogue of data sets: a name leads to a prepared data set, a path to a folder that is indexed when it is first used.

An index is the list of images with its fingerprint, kept in the home folder. A prepared data set's index is trusted until the
data set is prepared again (`bench data verify` reads all files again). The index of a path is made anew when the size or the time
of a file has changed.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.data import grouped, hashes, inspection, layouts, lists, source_files, voc, voc0712
from bench.data.dataset import VOC_CLASSES, Dataset, choose_scored
from bench.data.download import ARCHIVES
from bench.data.fingerprint import annotated
from bench.data.masks import MaskValues
from bench.errors import DataError, MachineError, UsageError, unknown
from bench.storage import files, seal
from bench.text import Echo, is_text, printable, quoted

DEMO_LABELLED, DEMO_UNLABELLED = "demo", "demo_unlabelled"
INDEX_VERSION = 4
"""2: an index is sealed. 3: it names images and splits. 4: masks were looked at, and what is not used was counted. The index of a
path is made anew for each version."""
MOST_TOLD = 50
"""How many files that are left out are named."""
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


@dataclass(frozen=True)
class Choices:
    """What a user chose when a data set was prepared, and what was left out then.

    Images whose file names match a pattern in `exclude` are left out, and so are those whose files are in `broken`; `unlisted`
    (`Main/p7`) are taken out of the official lists. With `skip_broken`, images whose annotation is broken are left out. `score`
    names the classes that are scored, all when empty. `mask_values` says what the pixels of masks mean (`--map`). `labels` names
    a table, `group` a column of it that groups images, and `layout` one of `layouts.LAYOUTS`; "" finds it out.
    """

    exclude: Sequence[str] = ()
    score: Sequence[str] = ()
    mask_values: Sequence[str] = ()
    broken: Sequence[str] = ()
    unlisted: Sequence[str] = ()
    skip_broken: bool = False
    labels: str = ""
    group: str = ""
    layout: str = ""

    @classmethod
    def of(cls, dataset: Dataset) -> Choices:
        """Return the choices that a data set was prepared with."""
        score = dataset.scored if dataset.score is None else dataset.score
        layout = layouts.of(dataset)
        table = layouts.table_of(dataset)
        values = () if layouts.says_values(dataset) else dataset.mask_values
        return cls(dataset.exclude, score, values, dataset.broken, dataset.unlisted, False, table, dataset.grouped_by, layout)


NO_CHOICES = Choices()


def read(root: Path, name: str, choices: Choices = NO_CHOICES, echo: Echo = lambda text: None) -> Dataset:
    """Return the data set at `root`, read by its layout (`bench.data.layouts`).

    Images that are left out because their annotation is broken are told to `echo`.
    DataError says what is missing or wrong; UsageError for choices that fit nothing in the data set.
    """
    if not root.is_dir():
        raise DataError(f"there is no data set at {root}: {'it is a file' if root.exists() else 'no such folder'}.")
    root = root.resolve()
    if not is_text(str(root)):
        raise DataError(f"{str(root)!r} is not written in UTF-8, so no record could name it; rename the folder.")
    errors: dict[str, str] = {}
    skip = voc.Skip(choices.broken, errors if choices.skip_broken else None)
    dataset = layouts.read(root, name, choices, skip, lambda found: _without(found, choices.exclude))
    if choices.mask_values:
        if not dataset.masks:
            raise UsageError(f"--map says what the pixels of masks mean, and {root} has no masks.")
        if layouts.says_values(dataset):
            raise UsageError(f"--map says what the pixels of masks mean, and so does {root / dataset.sources[0]}; change that.")
        MaskValues.parse(choices.mask_values, len(dataset.classes))
        dataset = dataset.model_copy(update={"mask_values": tuple(sorted(choices.mask_values))})
    if choices.exclude and not dataset.exclude:
        dataset = _without(dataset, choices.exclude)
    for file, error in list(errors.items())[:MOST_TOLD]:
        echo(f"left out: {file}, since {error}")
    if len(errors) > MOST_TOLD:
        echo(f"left out as well: {len(errors) - MOST_TOLD:,} more")
    if choices.broken or errors:
        dataset = _without_broken(dataset, {*choices.broken, *errors})
    if choices.unlisted:
        dataset = lists.without(dataset, choices.unlisted)
    strange = next(
        (file for file in (image.file for image in dataset.images) if printable(file) != file or not is_text(file)), None
    )
    if strange is not None:
        raise DataError(f"{root} has an image with the file name {strange!r}, which cannot be printed; rename the file.")
    dataset = dataset.model_copy(update={"score": tuple(choices.score), "given": _there(dataset)})
    try:
        chosen = choose_scored(dataset, choices.score) if choices.score or not dataset.scored else dataset
    except DataError as error:
        raise UsageError(f"--score: {error}") from error
    if chosen.given:
        grouped.check(chosen, chosen.given)
    return _annotated(chosen)


def _there(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Return the data set's own splits without images that were left out."""
    known = {image.id for image in dataset.images}
    return {split: tuple(identity for identity in ids if identity in known) for split, ids in dataset.given.items()}


def _annotated(dataset: Dataset) -> Dataset:
    """Return a data set with the digest of what its images show; that of COCO has the content of its annotation files."""
    more = (
        [files.sha256(dataset.root / source) for source in dataset.sources] if dataset.kind == "coco" and dataset.classes else []
    )
    return annotated(dataset, *more)


def _without(dataset: Dataset, patterns: Sequence[str]) -> Dataset:
    def matches(file: str, pattern: str) -> bool:
        return fnmatch.fnmatch(Path(file).name, pattern) or fnmatch.fnmatch(file, pattern)

    by_pattern = {p: {i.id for i in dataset.images if matches(i.file, p)} for p in patterns}
    idle = next((pattern for pattern, ids in by_pattern.items() if not ids), None)
    if idle is not None:
        raise UsageError(
            f"--exclude {quoted(idle)} leaves nothing out: no image of {dataset.root} has such a file name, which includes the "
            f"suffix, as in {quoted(Path(dataset.images[0].file).name)}; 'FOLDER/*' names those of a folder."
        )
    matching = set().union(*by_pattern.values())
    findings = {**dataset.findings, f"images that match --exclude {' '.join(patterns)}": len(matching)}
    return dataset.without(matching, exclude=tuple(patterns), findings=findings)


def _without_broken(dataset: Dataset, files: Iterable[str]) -> Dataset:
    wanted = set(files)
    return dataset.without({p.id for p in dataset.images if p.file in wanted}, broken=tuple(sorted(wanted)))


def register(dataset: Dataset, skip_broken: bool = False, echo: Echo = lambda text: None) -> Dataset:
    """Verify a data set by decoding and hashing every image, and put its index under its name; return it with its fingerprint.

    The errors are those of `inspection.inspect`; DataError also for a name such as voc2012 with another layout than its own.
    """
    known = {**dict.fromkeys((*LABELLED_DEFAULTS, voc0712.NAME), "voc"), **dict.fromkeys(UNLABELLED_DEFAULTS, "coco")}
    wanted = known.get(dataset.name, dataset.kind)
    if dataset.kind != wanted:
        raise DataError(f"{dataset.root} has the layout {dataset.kind}, but {dataset.name} has {wanted}; choose another name.")
    if skip_broken:
        whole = inspection.sound(dataset, echo)
        dataset = dataset if whole is dataset else _annotated(whole.model_copy(update={"given": _there(whole)}))
    hashed: dict[Path, bytes] = {}
    made = inspection.inspect(dataset, look=lambda path: hashed.update({path: hashes.hash_file(path)}))
    hashes.keep(made, (hashed[made.path(image)] for image in made.images))
    return _save(files.home() / "data" / dataset.name, made.model_copy(update={"seen": source_files.seen(made)}))


def open_dataset(name_or_path: str, echo: Echo) -> Dataset:
    """Return a prepared data set by name, or the one in a folder; the demo data is made when it is first asked for."""
    index, is_demo = _index(name_or_path), name_or_path in (DEMO_LABELLED, DEMO_UNLABELLED)
    if "/" not in name_or_path and index.is_file():
        try:
            found = read_index(index)
            source_files.check(found)
            return _looked_at(found, echo)
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


def _looked_at(dataset: Dataset, echo: Echo) -> Dataset:
    """Return a prepared data set; one that an earlier version prepared is read again, and its masks are looked at, once.

    One whose boxes an earlier version did not read gets them once, where its annotations are as they were.

    DataError when this version reads its classes, annotations, masks or lists otherwise. A folder that is gone is not read.
    """
    if (dataset.surveyed and dataset.boxed) or dataset.kind != "voc" or not dataset.root.is_dir():
        return dataset
    place = files.home() / "data" / dataset.name
    if dataset.surveyed:
        boxes = voc.boxes_of(dataset)
        return dataset if boxes is None else _save(place, _annotated(dataset.model_copy(update={"boxes": boxes, "boxed": True})))
    echo(f"looking at {dataset.name} again, which an earlier version prepared (once)")
    fresh = _read_again(dataset)
    parts = {"classes.txt": "classes", "images or annotations": "images", "masks": "masks", "lists": "lists"}
    apart = [said for said, name in parts.items() if getattr(fresh, name) != getattr(dataset, name)]
    if apart:
        raise DataError(
            f"{dataset.name} was prepared by an earlier version, which read its {' and '.join(apart)} otherwise; prepare it "
            f"again: {dataset.prepare_with()}."
        )
    made = fresh.model_copy(update={"fingerprint": dataset.fingerprint})
    return _save(place, inspection.look_at_masks(made))


def _read_again(dataset: Dataset) -> Dataset:
    """Return a prepared data set as its folder is now; DataError also where what was chosen then does not fit any more."""
    try:
        return read(dataset.root, dataset.name, Choices.of(dataset))
    except UsageError as error:
        raise DataError(f"{dataset.name} at {dataset.root} has changed since it was prepared: {error}") from error


def _indexed(root: Path, echo: Echo) -> Dataset:
    dataset = read(root, root.name)
    signature = hashlib.sha256()
    for file in (*dataset.files(), *dataset.sources):
        signature.update(f"{_stamp(dataset.root / file)!r}\n".encode())
    signature.update(dataset.model_dump_json(exclude=dataset.unsaid).encode())
    place = files.home() / "paths" / f"{signature.hexdigest()[:24]}-{INDEX_VERSION}"
    if (place / "index.json").is_file():
        fresh = {name: getattr(dataset, name) for name in ("findings", "boxes", "boxed", "annotations")}
        return read_index(place / "index.json").model_copy(update=fresh)
    classes = "; the classes are VOC's twenty" if dataset.classes == VOC_CLASSES else ""
    echo(f"reading {dataset.name}: {len(dataset.images):,} images (once){classes}")
    return _save(place, inspection.inspect(dataset, images=False))


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
    root = Path(name_or_path)
    fresh = _read_again(known) if known else read(root, root.resolve().name)
    checked = inspection.inspect(fresh)
    told = known is not None and known.annotations and checked.annotations != known.annotations
    if known is not None and (told or checked.fingerprint != known.fingerprint):
        earlier = "" if known.surveyed else ", or an earlier version read it otherwise"
        raise DataError(f"{known.name} at {known.root} has changed since it was prepared{earlier}; prepare it again.")
    return checked
