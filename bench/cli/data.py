"""`bench data`: prepare, verify and list data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import completion
from bench.cli.common import hold, use
from bench.cli.document import AsJson, alone
from bench.config import names
from bench.errors import DataError, UsageError
from bench.text import Echo, some

if TYPE_CHECKING:
    from bench.data.catalogue import Choices
    from bench.data.dataset import Dataset

PREPARE_EXAMPLE = "bench data prepare voc2012 --root ~/data/VOCdevkit"
VERIFY_EXAMPLE = "bench data verify ~/data/VOCdevkit"
LIST_EXAMPLE = "bench data list"
LAYOUTS = ("voc", "coco", "classes", "csv", "masks", "images")
"""Those of `bench.data.layouts`, which the shell need not import."""


Name = Annotated[
    str,
    typer.Argument(
        help="voc2012, voc2007, voc0712, coco2014, coco2017, demo, or a name of your own with --root.",
        autocompletion=completion.completer(completion.archives),
    ),
]
Root = Annotated[Path | None, typer.Option(help="Take this folder of labelled or unlabelled images and download nothing.")]
Exclude = Annotated[list[str] | None, typer.Option(help="Leave out files whose names match, for example 'animalweb_*'.")]
Score = Annotated[str | None, typer.Option(help="The classes that are scored, separated by commas; all when left out.")]
Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        help="What a value of masks means, VALUE=ID or '#RRGGBB=ID' (255=1); index: a palette's indices are the ids; only: no "
        "other value may occur.",
    ),
]
SkipBroken = Annotated[
    bool,
    typer.Option("--skip-broken", help="Leave out images with a file that is broken, or missing for a list; each is named."),
]
Labels = Annotated[
    str | None,
    typer.Option(help="The CSV file below --root with labels, splits or groups of images; labels.csv when left out."),
]
Group = Annotated[str | None, typer.Option(help="The column of that file whose images stay in one split, for example patient.")]
Layout = Annotated[
    str | None,
    typer.Option(
        help="voc, coco, classes (class folders), csv, masks (images beside masks) or images (no labels); found out when left "
        "out.",
        autocompletion=completion.completer(lambda _: LAYOUTS),
    ),
]


def prepare(
    name: Name,
    root: Root = None,
    exclude: Exclude = None,
    score: Score = None,
    map_: Map = None,
    skip_broken: SkipBroken = False,
    labels: Labels = None,
    group: Group = None,
    layout: Layout = None,
) -> None:
    """Download a data set or take a folder, decode every image to verify it, and register it under its name."""
    from bench.cli.screen import Screen
    from bench.data import catalogue, download
    from bench.storage import files

    use()
    if score is not None and not names(score):
        raise UsageError("--score takes the names of classes, separated by commas, and got none.")
    given = (exclude, score, map_, skip_broken, labels, group, layout)
    with Screen() as screen:
        if name == catalogue.DEMO_LABELLED and root is None:
            if any(given):
                raise UsageError(
                    "--exclude, --score, --map, --skip-broken, --labels, --group and --layout are for data sets of files; the "
                    "demo data is drawn whole."
                )
            made = [catalogue.open_dataset(demo, screen.echo) for demo in (catalogue.DEMO_LABELLED, catalogue.DEMO_UNLABELLED)]
        else:
            folder = root if root is not None else download.fetch(name, files.home() / "downloads", screen)
            choices = catalogue.Choices(
                exclude or (),
                names(score or ""),
                map_ or (),
                skip_broken=skip_broken,
                labels=labels or "",
                group=group or "",
                layout=layout or "",
            )
            found = _read(folder, _set_name(name), choices, screen.echo, exported=root is not None and not layout)
            screen.echo(f"reading and decoding every image of {name}")
            made = [catalogue.register(found, skip_broken, screen.echo)]
        for dataset in made:
            left_out = f" ({len(dataset.broken):,} left out)" if dataset.broken else ""
            screen.echo(
                f"{dataset.name} is ready: {len(dataset.images):,} images{left_out}, fingerprint {dataset.fingerprint[:12]}"
            )
            _tell(dataset, screen.echo)


def _read(folder: Path, name: str, choices: Choices, echo: Echo, exported: bool) -> Dataset:
    """Return the data set in a folder; with `exported`, of what another library keeps there, its images and labels are exported.

    DataError for masks whose classes nothing names, where the layout was not said: a path to pretrain on may have such masks.
    """
    from bench.data import catalogue, mask_folders

    made = None
    if exported:
        from bench.data.exports import export

        made = export(folder, name, echo)
    found = catalogue.read(made or folder, name, choices, echo)
    unnamed = mask_folders.unnamed(found.root) if found.kind == "folder" and not found.single and not choices.layout else ""
    if unnamed:
        raise DataError(f"{unnamed} --layout images takes the images without their masks.")
    return found


def verify(
    path: Annotated[
        str,
        typer.Argument(help="A prepared set's name or a folder.", autocompletion=completion.completer(completion.data_sets)),
    ],
) -> None:
    """Decode every image and mask, and tell whether a prepared data set has changed since it was prepared."""
    from bench.cli.screen import Screen
    from bench.data import catalogue
    from bench.storage import files

    hold(files.home())
    screen = Screen()
    checked = catalogue.verify(path)
    screen.echo(f"{checked.name}: {len(checked.images):,} images decode, fingerprint {checked.fingerprint[:12]}")
    _tell(checked, screen.echo)


def _tell(dataset: Dataset, echo: Echo) -> None:
    """Tell what a data set holds beside its images: what the tasks may use of it, and what is not used, by reason."""
    from bench.data import layouts, lists
    from bench.data.dataset import VOC_CLASSES

    findings = {**dataset.findings, **dataset.mask_findings}
    tasks = [f"{task}@{dataset.name}" for task in lists.tasks_for(dataset)]
    echo(f"  tasks: {', '.join(tasks)}" if tasks else "  images to pretrain on, without labels")
    for subset in lists.subsets(dataset):
        held, chosen = len(lists.usable(dataset, subset)), lists.choose(dataset, subset)
        what = "with annotations" if subset == "labels" else f"with a mask in {subset}"
        scored = f"; the split scheme official scores ImageSets/{lists.task_of(subset)}/{chosen.test}.txt" if chosen else ""
        echo(f"  {held:,} images {what}{scored}")
        findings |= lists.passed_over(dataset, subset)
    if dataset.unlisted:
        echo(f"  taken out of the official lists: {some(dataset.unlisted)}")
    for folder in list(dataset.masks)[1:]:
        echo(f"  {len(dataset.masks[folder]):,} images with a mask in {folder}, for --set protocol.masks={folder}")
    if dataset.boxes:
        count = sum(map(len, dataset.boxes.values()))
        echo(f"  {count:,} boxes in {len(dataset.boxes):,} images that were searched for objects")
    if dataset.given:
        echo(f"  splits of its own: {', '.join(f'{split} {len(ids):,}' for split, ids in dataset.given.items())}")
    if dataset.grouped_by:
        groups = {image.group for image in dataset.images} - {""}
        echo(f"  groups by {dataset.grouped_by}: {len(groups):,}; no group is ever in two splits")
    if dataset.classes == VOC_CLASSES:
        echo("  classes: VOC's twenty")
    elif dataset.classes:
        many = "classes" if len(dataset.classes) > 1 else "class"
        echo(f"  {len(dataset.classes)} {many}: {', '.join(dataset.classes)}")
    if len(dataset.scored) < len(dataset.classes):
        echo(f"  scored: {', '.join(dataset.scored)}")
    if layouts.says_values(dataset):
        echo(f"  values of masks: as {dataset.sources[0]} says")
    elif dataset.mask_values:
        echo(f"  values of masks changed by --map: {', '.join(dataset.mask_values)}")
    for reason, number in findings.items():
        echo(f"  {reason}: {number:,}")


def list_data(as_json: AsJson = False) -> None:
    """List the prepared data sets: layout, number of images, fingerprint, classes and folder."""
    from bench.cli.listing import DATA
    from bench.cli.screen import print_rows
    from bench.storage import files

    with alone(as_json) as publish:
        found = DATA.items(files.home())
        if as_json:
            publish({"data": found})
        else:
            print_rows(*DATA.rows(found))


def _set_name(name: str) -> str:
    if not name or not all(character.isalnum() or character in "_-." for character in name) or name.startswith("."):
        raise UsageError(f"a data set's name has letters, digits, '_', '-' and '.' only, but got {name!r}.")
    return name
