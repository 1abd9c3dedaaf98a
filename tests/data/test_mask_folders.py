"""Images beside masks, however they are named: the ids are those that were drawn, or the mistake is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import catalogue, lists, mask_folders, splits
from bench.data.dataset import Dataset
from bench.data.masks import read_mask
from bench.errors import DataError, UsageError
from bench.metrics import voc_palette
from tests.data.labelled import SIZE, draw, masks, read, register, said_again, write_masks
from tests.data.made import quiet, save_mask

COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (10, 20, 30)], dtype=np.uint8)
CSV = "id;name;colour\n0;background;\n1;cell;#FF0000\n2;leaf;0 255 0\n3;stone;(10, 20, 30)\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of its own: the home folder lies in tmp_path."""
    return tmp_path / "d"


def name_classes(root: Path, text: str = "background\ncell\nleaf\nstone\n", file: str = "classes.txt") -> Path:
    (root / file).write_text(text)
    return root


def ids_of(dataset: Dataset) -> list[np.ndarray]:
    """Return the masks of a data set as they are read, in the order of its images."""
    by_id = {image.id: image for image in dataset.images}
    sources = ((one, dataset.path(by_id[one])) for one in dataset.masks["masks"])
    return [read_mask(dataset, "masks", one, SIZE[::-1], source).ids for one, source in sources]


def check(dataset: Dataset, count: int = 12) -> None:
    """Check masks and labels against those that were drawn."""
    assert dataset.kind == "masks" and dataset.classes == ("cell", "leaf", "stone")
    drawn = masks(count)
    assert len(dataset.masks["masks"]) == count
    for ours, theirs in zip(ids_of(dataset), drawn, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    labelled = dataset.labelled()
    shown = [labelled[one].labels for one in dataset.masks["masks"]]
    assert shown == [tuple(int((mask == one).any()) for one in (1, 2, 3)) for mask in drawn]


PAIRS = [
    ("images/p{:02}.jpg", "masks/p{:02}.png"),
    ("images/p{:02}.jpg", "masks/p{:02}_mask.png"),
    ("img/a/p{:02}.png", "Labels/a/mask_p{:02}.tif"),
    ("JPEGImages/p{:02}.jpg", "Annotations/p{:02}.bmp"),
    ("p{:02}.jpg", "p{:02}_mask.png"),
    ("p{:02}.png", "p{:02}-segmentation.png"),
    ("train/images/p{:02}.jpg", "train/ground_truth/p{:02}.png"),
    ("photos/train/p{:02}.jpg", "gt/train/p{:02}.png"),
    ("train/p{:02}.jpg", "train_masks/p{:02}.png"),
    ("ISIC_Task1-2_Training_Input/p{:02}.jpg", "ISIC_Task1_Training_GroundTruth/p{:02}_segmentation.png"),
    ("labels/images/p{:02}.jpg", "labels/masks/p{:02}.png"),
]


@pytest.mark.parametrize(("image", "mask"), PAIRS)
def test_masks_are_found_by_folders_and_names(root: Path, image: str, mask: str) -> None:
    made = register(name_classes(write_masks(root, image, mask)))
    check(made)
    assert lists.tasks_for(made) == ["multilabel", "segmentation"]
    assert made.images[3].id == image.format(3).rpartition(".")[0] and made.mask_path("masks", made.images[3].id).is_file()
    assert made.findings == {"names in classes.txt that are no classes (background)": 1}
    assert catalogue.verify("mine").fingerprint == made.fingerprint and said_again(made) == read(root)
    assert catalogue.open_dataset(str(root), quiet).fingerprint == made.fingerprint


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({1: 1}, "id,name\n3,stone\n2,leaf\n1,cell\n"),
        ({1: 10, 2: 20, 3: 30}, "ID,Name\n0,background\n10,cell\n20,leaf\n30,stone\n"),
        ({1: 2, 2: 3, 3: 7}, "id,name\n1,fog\n2,cell\n3,leaf\n7,stone\n"),
        ({0: 11, 1: 0, 2: 1, 3: 2}, "id,name\n0,cell\n1,leaf\n2,stone\n11,void\n"),
        ({0: 9, 1: 0, 2: 1, 3: 255}, "id,name\n0,cell\n1,leaf\n255,stone\n9,background\n"),
    ],
)
def test_classes_csv_says_what_values_mean(root: Path, values: dict[int, int], text: str) -> None:
    name_classes(write_masks(root, *PAIRS[0], values), text, "classes.csv")
    made = register(root)
    void = 255 if "void" in text else 0
    drawn = [np.where(mask == 0, void, mask + ("fog" in text) * (mask > 0)) for mask in masks(12)]
    for ours, theirs in zip(ids_of(made), drawn, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert made.classes[-3:] == ("cell", "leaf", "stone") and made.fingerprint == catalogue.verify("mine").fingerprint
    assert said_again(made) == read(root) and "--map" not in made.prepare_with()


@pytest.mark.parametrize("mode", ["RGB", "P"])
@pytest.mark.parametrize("ids", ["123", "237"])
def test_classes_csv_says_what_colours_mean(root: Path, mode: str, ids: str) -> None:
    text = CSV.replace("1;cell", f"{ids[0]};cell").replace("2;leaf", f"{ids[1]};leaf").replace("3;stone", f"{ids[2]};stone")
    name_classes(write_masks(root, *PAIRS[0]), text, "classes.csv")
    for number, drawn in enumerate(masks(12)):
        path = root / PAIRS[0][1].format(number)
        if mode == "RGB":
            Image.fromarray(COLOURS[drawn]).save(path)
        else:  # another order of the palette in each mask
            order = np.random.default_rng(number).permutation(4)
            save_mask(np.argsort(order)[drawn], path, COLOURS[order])
    check(register(root))
    name_classes(root, text.replace("(10, 20, 30)", "#0a141f"), "classes.csv")
    with pytest.raises(DataError, match=r"p02\.png has the colour #0a141e in 42 pixels, which is named neither in classes\.csv"):
        register(root)


def test_colours_of_voc_are_not_guessed_beside_classes_csv(root: Path) -> None:
    name_classes(write_masks(root, *PAIRS[0]), CSV.replace("#FF0000", "#010203"), "classes.csv")
    for number, ids in enumerate(masks(12)):
        Image.fromarray(voc_palette()[ids].astype(np.uint8)).save(root / PAIRS[0][1].format(number))
    with pytest.raises(DataError, match=r"p00\.png has the colour #008000 in 12 pixels, which is named neither"):
        register(root)


def test_a_palette_with_voc_colours_elsewhere_is_not_guessed(root: Path) -> None:
    name_classes(write_masks(root, *PAIRS[0]))
    palette = voc_palette()[[0, 2, 1, 3]]
    for number, ids in enumerate(masks(12)):
        save_mask(ids, root / PAIRS[0][1].format(number), palette)
    with pytest.raises(DataError, match=r"colours of VOC's classes at other indices.*ids of classes\.txt, --map index says so"):
        register(root)
    check(register(root, mask_values=("index",)))


def spoil(root: Path, number: int, value: int) -> None:
    path = root / PAIRS[0][1].format(number)
    Image.fromarray(np.full(SIZE, value, dtype=np.uint8)).save(path)


@pytest.mark.parametrize(
    ("text", "file", "message"),
    [
        ("cell\nleaf\n", "classes.txt", r"p02\.png has class id 3 in 42 pixels; ids are 0 to 2, the classes of classes\.txt"),
        (
            "id,name\n1,cell\n2,leaf\n",
            "classes.csv",
            r"p02\.png has the value 3 in 42 pixels, which is named neither in classes\.csv",
        ),
        ("cell\ncell\n", "classes.txt", "names the class 'cell' twice"),
        ("1 cell\n2 leaf\n", "classes.txt", "has more in a line than the name of a class"),
        ("nr,title\n1,cell\n", "classes.csv", "needs the columns id and name, .* its columns are nr, title"),
        ("id,name\n1,cell\n1,leaf\n", "classes.csv", "has the id 1 twice"),
        ("id,name\n1,cell\n2,cell\n", "classes.csv", "has the name 'cell' twice"),
        ("id,name\n300,cell\n", "classes.csv", "line 2 has the id '300'; an id is a whole number from 0 to 255"),
        ("id,name,colour\n1,cell,red\n", "classes.csv", "line 2 has the colour 'red'; write it as"),
        ("id,name,colour\n1,cell,#ff0000\n2,leaf,\n", "classes.csv", "line 3 gives 'leaf' no colour, and other rows have one"),
        ("id,name,colour\n1,cell,#ff0000\n2,leaf,#FF0000\n", "classes.csv", "has the colour '#ff0000' twice"),
        ("id,name\n0,background\n", "classes.csv", "names no class but the background or void"),
    ],
)
def test_classes_that_do_not_fit_are_refused(root: Path, text: str, file: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        register(name_classes(write_masks(root, *PAIRS[0]), text, file))


def test_void_alone_and_a_mask_of_another_size_are_refused(root: Path) -> None:
    name_classes(write_masks(root, *PAIRS[0]))
    for number in range(12):
        spoil(root, number, 255)
    with pytest.raises(DataError, match=r"no mask with a class: class 1 \(cell\).*If 255 means a class.*--map 255=1"):
        register(root)
    check_one = register(root, mask_values=("255=1",))
    assert check_one.classes[0] == "cell" and check_one.labelled()["images/p03"].labels == (1, 0, 0)
    Image.new("L", (5, 5)).save(root / "masks" / "p03.png")
    with pytest.raises(DataError, match=r"p03\.png is 5x5, but its image .*p03\.jpg is 16x12"):
        register(root)


def test_images_without_a_mask_and_masks_without_an_image_are_counted(root: Path) -> None:
    name_classes(write_masks(root, *PAIRS[0]))
    (root / "masks" / "p03.png").rename(root / "masks" / "q.png")
    draw(root, ["masks/p04.jpg"])
    made = register(root)
    assert len(made.images) == 12 and len(made.labelled()) == len(made.masks["masks"]) == 11
    assert made.findings == {
        "images without a mask, kept without labels": 1,
        "masks without an image": 1,
        "files among the masks that are no PNG, TIFF or BMP, which are not read": 1,
        "names in classes.txt that are no classes (background)": 1,
    }


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("images/p03.png", r"has both images/p03\.jpg and images/p03\.png"),
        ("labels/p03.png", r"has two masks of images/p03\.jpg: labels/p03\.png and masks/p03\.png"),
        ("img/p03.jpg", r"masks/p03\.png may be the mask of images/p03\.jpg, img/p03\.jpg"),
    ],
)
def test_what_is_not_clear_is_refused(root: Path, more: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(draw(name_classes(write_masks(root, *PAIRS[0])), [more]))


def test_masks_that_pair_with_nothing_are_refused_with_both_names(root: Path) -> None:
    write_masks(root, "images/p{:02}.jpg", "masks/scan{:02}.png")
    with pytest.raises(DataError, match=r"none of 12 masks .* such as the mask masks/scan00\.png and the image images/p00\.jpg"):
        read(name_classes(root))


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ({1: 255, 2: 255, 3: 255}, r"They are 0 \(background\) and 255: .* one class .* add --map 255=1\."),
        ({2: 1, 3: 1}, r"They are 0 \(background\) and 1: write the name of the one class into .*classes\.txt\."),
        ({}, r"Write .*classes\.txt, one name a line .* or classes\.csv"),
    ],
)
def test_masks_without_names_say_what_to_write(root: Path, values: dict[int, int], advice: str) -> None:
    write_masks(root, *PAIRS[0], values)
    assert read(root).kind == "folder"  # a path to pretrain on
    with pytest.raises(DataError, match=f"has 12 masks, and nothing names their classes. {advice}"):
        read(root, layout="masks")
    said = mask_folders.unnamed(root)
    if "add" in advice:
        assert "--map 255=1" in said
        name_classes(root, "cell\n")
        made = register(root, mask_values=("255=1",))
        assert all((ours == (drawn > 0)).all() for ours, drawn in zip(ids_of(made), masks(12), strict=True))
        assert mask_folders.unnamed(root) == ""


def test_folders_of_splits_are_the_splits_that_are_scored(root: Path) -> None:
    for split in ("train", "valid", "test"):
        write_masks(root, f"{split}/images/p{{:02}}.jpg", f"{split}/masks/p{{:02}}.png")
    made = register(name_classes(root))
    found = splits.open_splits(made, "own", "masks")
    assert {split: ids[5] for split, ids in found.members.items()} == {
        "train": "train/images/p05",
        "val": "valid/images/p05",
        "test": "test/images/p05",
    }
    assert splits.open_splits(made, "pretraining", "images").ids("train") == found.ids("train")


def test_a_table_gives_groups_and_splits_and_its_labels_are_not_used(root: Path) -> None:
    name_classes(write_masks(root, *PAIRS[0]))
    rows = "".join(f"p{number:02},{number // 3},{'train' if number < 6 else 'test'},x\n" for number in range(12))
    (root / "scans.csv").write_text(f"file,patient,split,label\n{rows}")
    made = register(root, labels="scans.csv", group="patient")
    check(made)
    assert made.sources == ("classes.txt", "scans.csv") and made.images[7].group == "2" and len(made.given["test"]) == 6
    assert made.findings["tables whose labels are not used beside masks (scans.csv)"] == 1
    assert said_again(made) == read(root, labels="scans.csv", group="patient")
    assert catalogue.verify("mine").fingerprint == made.fingerprint


def test_a_broken_mask_is_left_out_with_its_image_when_asked(root: Path) -> None:
    name_classes(write_masks(root, *PAIRS[1]))
    (root / "masks" / "p05_mask.png").write_bytes(b"no mask")
    with pytest.raises(DataError, match=r"p05_mask\.png does not decode.*--skip-broken"):
        register(root)
    made = register(root, skip_broken=True)
    assert made.broken == ("images/p05.jpg",) and len(made.images) == 11
    assert catalogue.verify("mine").fingerprint == made.fingerprint


def test_map_beside_classes_csv_is_refused(root: Path) -> None:
    name_classes(write_masks(root, *PAIRS[0]), CSV, "classes.csv")
    with pytest.raises(UsageError, match=r"so does .*classes\.csv; change that"):
        read(root, mask_values=("1=2",))
    name_classes(root)
    with pytest.raises(DataError, match=r"has both classes\.txt and classes\.csv"):
        read(root)


def test_an_image_of_a_mask_is_read_as_it_is_stored(root: Path) -> None:
    name_classes(write_masks(root, *PAIRS[0]))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = root / "images" / "p00.jpg"
    Image.open(path).save(path, exif=exif)
    made = register(root)
    assert (
        not made.upright and "masked images with an EXIF orientation, read as they are stored, not upright" in made.mask_findings
    )
