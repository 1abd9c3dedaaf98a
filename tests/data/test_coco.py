"""COCO's annotations as labels, boxes and masks, held against pycocotools; images alone make the fingerprint."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from bench.data import coco, coco_annotations, coco_masks, packs
from bench.data.dataset import CROWD, JUDGED, Dataset, ImageFile
from bench.data.fingerprint import annotated, fingerprinted
from bench.errors import DataError, UsageError
from bench.metrics import VOID
from tests.data.annotated import CATEGORIES, HEIGHT, SQUARE, WIDTH, mask_of, packed, runs, thing, write
from tests.data.made import quiet

Change = Callable[[dict[str, Any]], object]


def test_classes_are_the_categories_in_the_order_of_their_ids_and_labels_tell_crowds_apart(tmp_path: Path) -> None:
    path = write(tmp_path)
    dataset, theirs = coco.read(tmp_path, "c"), COCO(str(path))
    assert dataset.classes == dataset.scored == tuple(theirs.cats[one]["name"] for one in sorted(theirs.cats))
    assert dataset.classes == ("dog", "cat", "tree")
    assert dataset.sources == ("annotations/instances_train2017.json",) and dataset.given == {}
    for number in range(1, 5):
        labels = dataset.labels([f"train2017_{number}"])[0].tolist()
        for place, category in enumerate(sorted(theirs.cats)):
            shown, alone = (theirs.getAnnIds([number], [category], iscrowd=crowd) for crowd in (None, False))
            assert labels[place] == (1 if alone else -1 if shown else 0)
    assert dataset.labels(["train2017_2"])[0].tolist() == [0, 1, -1] and not dataset.labels(["train2017_4"]).any()


def test_boxes_have_continuous_edges_inside_their_image_and_those_of_no_area_are_counted(tmp_path: Path) -> None:
    write(tmp_path)
    dataset = coco.read(tmp_path, "c")
    assert dataset.boxed and set(dataset.boxes) == {f"train2017_{number}" for number in range(1, 5)}
    assert dataset.boxes["train2017_1"] == (
        (1, 4, 5, 20, 18, JUDGED), (0, 10.5, 8.25, 30.5, 23.75, JUDGED), (1, 1, 1, 13, 13, JUDGED),
    )  # fmt: skip
    assert dataset.boxes["train2017_2"] == ((2, 30, 20, 40, 30, CROWD), (1, 0, 0, 7.5, 6, JUDGED))
    assert dataset.boxes["train2017_3"] == ((2, 2, 3, 11, 12, JUDGED),) and dataset.boxes["train2017_4"] == ()
    assert dataset.findings == {"boxes that have no area inside their image": 2, coco.CUT: 2}
    assert dataset.labels(["train2017_3"])[0].tolist() == [1, 0, 1]


def test_boxes_are_clipped_to_the_stored_image_where_the_file_gives_no_size(tmp_path: Path) -> None:
    path = write(tmp_path)
    whole = coco.read(tmp_path, "c").boxes
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "images": [{"id": i["id"], "file_name": i["file_name"]} for i in content["images"]]}))
    assert coco.read(tmp_path, "c").boxes == whole


def test_masks_are_what_pycocotools_draws_and_void_where_classes_overlap(tmp_path: Path) -> None:
    path = write(tmp_path)
    dataset, theirs = coco.read(tmp_path, "c"), COCO(str(path))
    assert dataset.masks == {"instances": tuple(f"train2017_{number}" for number in range(1, 5))}
    seen: set[int] = set()
    for number in range(1, 5):
        layers = {}
        for one in theirs.loadAnns(theirs.getAnnIds([number])):
            inside = theirs.annToMask(one) > 0
            layers[one["category_id"]] = layers.get(one["category_id"], np.zeros((HEIGHT, WIDTH), dtype=bool)) | inside
        wanted = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        for place, category in enumerate(sorted(theirs.cats), 1):
            wanted[layers.get(category, np.zeros((HEIGHT, WIDTH), dtype=bool))] = place
        wanted[sum((layer.astype(int) for layer in layers.values()), np.zeros((HEIGHT, WIDTH), dtype=int)) > 1] = VOID
        found = mask_of(dataset, f"train2017_{number}")
        assert np.array_equal(found, wanted)
        seen |= set(np.unique(found).tolist())
    assert seen == {0, 1, 2, 3, VOID}


def test_a_polygon_of_two_corners_has_no_area_and_is_no_box(tmp_path: Path) -> None:
    write(
        tmp_path,
        annotations=[thing(1, 1, 7, [4, 5, 16, 13], [[2, 2, 20, 20], *SQUARE]), thing(2, 2, 7, [1, 1, 3, 3], [[1, 1, 9, 9]])],
    )
    dataset = coco.read(tmp_path, "c")
    square = coco_mask.decode(coco_mask.frPyObjects(SQUARE, HEIGHT, WIDTH))[..., 0]
    assert np.array_equal(mask_of(dataset, "train2017_1"), square * 2)
    assert not mask_of(dataset, "train2017_2").any()


def test_compressed_run_lengths_are_unpacked_as_pycocotools_packed_them() -> None:
    rng = np.random.default_rng(0)
    for share in (0.0, 0.01, 0.5, 0.9, 1.0):
        for _ in range(20):
            inside = np.asfortranarray(rng.random((HEIGHT, WIDTH)) < share, dtype=np.uint8)
            assert coco_masks._unpacked(packed(inside)["counts"]) == runs(inside)["counts"]
    long = np.zeros((900, 1100), dtype=np.uint8, order="F")
    long[-1, -1] = 1
    assert coco_masks._unpacked(coco_mask.encode(long)["counts"].decode()) == [900 * 1100 - 1, 1]
    for wrong in ("~", "\u00e9", "o", "o" * 100):
        assert min(coco_masks._unpacked(wrong)) < 0


EARLIER = "653e6883e6547e26b8b3ee46b75e1ace5143b3038738d238d76895697bb55ab3"
"""The fingerprint of `plain` by the version that read no annotations."""


def plain(root: Path, change: dict[str, Any]) -> Path:
    for part, count in (("train2017", 3), ("val2017", 2)):
        (root / part).mkdir(parents=True)
        (root / "annotations").mkdir(exist_ok=True)
        images = [{"id": n + 1, "file_name": f"{part}_{n}.jpg", "width": WIDTH, "height": HEIGHT} for n in range(count)]
        for one in images:
            (root / part / str(one["file_name"])).write_bytes(str(one["file_name"]).encode())
        content = {"images": images, "annotations": [], "categories": [], **change}
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"categories": CATEGORIES},
        {"categories": CATEGORIES, "annotations": [thing(1, 1, 7, [4, 5, 16, 13])]},
        {"categories": CATEGORIES, "annotations": [thing(1, 2, 2, [0, 0, 6, 3], [], crowd=1)]},
    ],
)
def test_a_fingerprint_is_what_it_was_whatever_the_annotations_say(tmp_path: Path, change: dict[str, Any]) -> None:
    assert fingerprinted(coco.read(plain(tmp_path, change), "c")).fingerprint == EARLIER


def test_what_the_annotations_say_has_a_digest_of_its_own(tmp_path: Path) -> None:
    found = set()
    for number, (category, box) in enumerate(((7, [4, 5, 16, 13]), (2, [4, 5, 16, 13]), (7, [4, 5, 16, 14]))):
        change = {"categories": CATEGORIES, "annotations": [thing(1, 1, category, box)]}
        found.add(annotated(coco.read(plain(tmp_path / str(number), change), "c")).annotations)
    assert len(found) == 3 and "" not in found
    assert annotated(coco.read(plain(tmp_path / "none", {}), "c")).annotations == ""


def test_without_annotations_nothing_is_read_but_images(tmp_path: Path) -> None:
    root = plain(tmp_path, {"categories": CATEGORIES})
    images = tuple(
        ImageFile(f"{p}_{n}", f"{p}/{p}_{n}.jpg", p[:-4]) for p, count in (("train2017", 3), ("val2017", 2)) for n in range(count)
    )
    assert coco.read(root, "c") == Dataset(name="c", kind="coco", root=root, images=images)


def test_files_of_two_splits_give_the_splits_and_one_of_them_may_show_nothing(tmp_path: Path) -> None:
    write(tmp_path, "train2017")
    write(tmp_path, "val2017", annotations=[])
    (tmp_path / "val2017" / "val2017_3.png").unlink()
    dataset = coco.read(tmp_path, "c")
    assert dataset.given == {
        "train": tuple(f"train2017_{n}" for n in range(1, 5)),
        "val": ("val2017_1", "val2017_2", "val2017_4"),
    }
    assert dataset.boxes["val2017_1"] == () and not dataset.labels(["val2017_1"]).any()
    assert dataset.findings["images that instances_val2017.json lists and that are not there"] == 1
    assert {image.split for image in dataset.images} == {"train", "val"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(category_id=3), r"annotation 1, has category_id 3, .*\(ids 2 to 90\)"),
        (lambda c: c["annotations"][0].pop("category_id"), "annotation 1, has category_id None"),
        (lambda c: c["annotations"][1].update(image_id=99), "annotation 2, has image_id 99, which is not among the images"),
        (lambda c: c["annotations"][1].update(image_id=[1]), r"annotation 2, has image_id \[1\]"),
        (lambda c: c["annotations"][2].update(bbox=[1, 2, 3]), r"annotation 3, has bbox \[1, 2, 3\]; a box is \[x, y, width"),
        (lambda c: c["annotations"][2].update(bbox=[1, 2, -3, 4]), r"annotation 3, has bbox \[1, 2, -3, 4\]"),
        (lambda c: c["annotations"][2].update(bbox=[1, 2, float("nan"), 4]), r"annotation 3, has bbox \[1, 2, nan, 4\]"),
        (lambda c: c["annotations"][2].update(bbox=[1, 2, 10**400, 4]), "annotation 3, has bbox "),
        (lambda c: c["annotations"][2].update(bbox=["1", 2, 3, 4]), "annotation 3, has bbox "),
        (lambda c: c["annotations"][2].pop("bbox"), "annotation 3, has bbox None"),
        (lambda c: c["annotations"][3].update(iscrowd=2), "annotation 4, has iscrowd 2; it is 0 or 1"),
        (lambda c: c["annotations"].append(5), "has the annotation 5, which is no table"),
        (lambda c: c["categories"][1].update(name="cat"), "two categories with the name 'cat'"),
        (lambda c: c["categories"][1].update(id=7), "two categories with the id 7"),
        (lambda c: c["categories"][1].update(id="7"), "has the category "),
        (lambda c: c["categories"][1].update(name=""), "has the category "),
        (lambda c: c.update(categories={"7": "cat"}), "has the category "),
        (lambda c: c["images"][1].update(id=1), "lists two images with the id 1"),
    ],
)  # fmt: skip
def test_a_wrong_annotation_is_refused_with_its_file_its_id_and_what_is_wrong(
    tmp_path: Path, change: Change, message: str
) -> None:
    path = write(tmp_path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"instances_train2017\.json.*{message}") as refused:
        coco.read(tmp_path, "c")
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        ([[1, 2, 3, 4, 5]], "has the polygon"),
        ([[1, 2, 3, 4, 5, 1e9]], "has the polygon"),
        ([[1, 2, 3, 4, 5, float("inf")]], "has the polygon"),
        ([7], "has the polygon 7"),
        ({"size": [HEIGHT, WIDTH], "counts": [10, 5]}, r"run lengths \[10, 5\] that do not add up to the 1,200 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [1300, -100]}, "run lengths"),
        ({"size": [HEIGHT, WIDTH], "counts": "P1"}, "run lengths 'P1' that do not add up"),
        ({"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}, r"the size \[30, 40\], its image's height and width"),
        ("polygon", "has the segmentation 'polygon'"),
    ],
)
def test_an_outline_that_cannot_be_drawn_is_refused_with_its_annotation(tmp_path: Path, outline: Any, message: str) -> None:
    write(tmp_path, annotations=[thing(31, 1, 7, [4, 5, 16, 13], outline)])
    dataset = coco.read(tmp_path, "c")
    with pytest.raises(DataError, match=rf"instances_train2017\.json, annotation 31, has .*{message.removeprefix('has ')}"):
        mask_of(dataset, "train2017_1")


def test_an_image_of_another_size_than_its_annotations_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    dataset = coco.read(tmp_path, "c")
    image = dataset.images[0]
    coco_masks.check_size(dataset, image.id, (WIDTH, HEIGHT), dataset.path(image))
    told = r"instances_train2017\.json says that train2017_1\.png is 40x30, and .*train2017_1\.png is 30x40 as it is stored"
    with pytest.raises(DataError, match=told):
        coco_masks.check_size(dataset, image.id, (HEIGHT, WIDTH), dataset.path(image))
    with pytest.raises(DataError, match=told):
        mask_of(dataset, image.id, size=(HEIGHT, WIDTH))


def test_an_object_without_segmentation_leaves_its_image_without_a_mask_not_without_a_box(tmp_path: Path) -> None:
    write(tmp_path, annotations=[thing(1, 1, 7, [4, 5, 16, 13]), thing(2, 1, 2, [1, 1, 5, 5], []), thing(3, 2, 2, [1, 1, 5, 5])])
    dataset = coco.read(tmp_path, "c")
    assert dataset.masks == {"instances": ("train2017_2", "train2017_3", "train2017_4")}
    assert len(dataset.boxes["train2017_1"]) == 2
    assert dataset.findings == {"images with an object that has no segmentation, which have no mask": 1}
    write(tmp_path, annotations=[thing(1, 1, 7, [4, 5, 16, 13], [])])
    assert coco.read(tmp_path, "c").masks == {}


def test_more_classes_than_masks_have_ids_for_leave_labels_and_boxes(tmp_path: Path) -> None:
    for count, masked in ((253, 4), (254, 0)):
        categories = [{"id": n, "name": f"class {n}"} for n in range(1, count + 1)]
        write(tmp_path, annotations=[thing(1, 1, count, [4, 5, 16, 13])], categories=categories)
        dataset = coco.read(tmp_path, "c")
        assert len(dataset.masks.get("instances", ())) == masked and len(dataset.boxes["train2017_1"]) == 1
        assert dataset.findings == ({} if masked else {"masks of more than 253 classes, for which masks have no ids": 4})
    write(tmp_path, annotations=[thing(1, 1, 253, [4, 5, 16, 13])], categories=categories[:253])
    assert set(np.unique(mask_of(coco.read(tmp_path, "c"), "train2017_1")).tolist()) == {0, 253}


def test_an_annotation_file_is_read_once_a_process_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    dataset = coco.read(tmp_path, "c")
    read: list[Path] = []
    content_of = coco_annotations.content_of
    monkeypatch.setattr(coco_annotations, "content_of", lambda one: (read.append(one), content_of(one))[1])
    first = [mask_of(dataset, image.id) for image in dataset.images]
    assert read == [path] and first[0].any()
    write(tmp_path, annotations=[])
    assert not mask_of(dataset, "train2017_1").any()
    write(tmp_path, annotations=[thing(1, 1, 90, [4, 5, 16, 13])])
    assert set(np.unique(mask_of(dataset, "train2017_1")).tolist()) == {0, 3}


def test_values_of_masks_cannot_be_mapped_since_there_are_none(tmp_path: Path) -> None:
    write(tmp_path)
    dataset = coco.read(tmp_path, "c").model_copy(update={"mask_values": ("1=2",)})
    with pytest.raises(UsageError, match=r"--map .* COCO's masks are drawn of annotations"):
        mask_of(dataset, "train2017_1")


def test_a_pack_has_images_as_they_are_stored_where_there_are_boxes_and_its_masks_beside_them(tmp_path: Path) -> None:
    write(tmp_path)
    turned = Image.fromarray(np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "train2017" / "train2017_1.png", exif=exif)
    dataset = annotated(fingerprinted(coco.read(tmp_path, "c")), "the digest of the sources")
    rule = packs.PackRule(size=64, resize="letterbox")
    made = packs.open_pack(packs.Order(dataset, "instances", rule), quiet, quiet)
    assert made.manifest.original[0] == (HEIGHT, WIDTH) and made.masks is not None
    assert np.array_equal(made.images.read([0])[0, :HEIGHT, :WIDTH], np.asarray(turned))
    assert np.array_equal(made.masks.read([0])[0, :HEIGHT, :WIDTH], mask_of(dataset, "train2017_1"))
    bare = dataset.model_copy(update={"boxes": {}, "masks": {}})
    upright = packs.open_pack(packs.Order(bare, "images", rule), quiet, quiet)
    assert upright.manifest.original[0] == (WIDTH, HEIGHT)


KEPT = "x-images-squash32-673f16c5c945c83a"
"""The folder of a pack of images of the fingerprint ff..., by the version that read no annotations."""


def test_a_packs_folder_is_what_it_was_and_depends_on_annotations_where_masks_are_drawn_of_them(tmp_path: Path) -> None:
    rule = packs.PackRule(size=32)

    def name(subset: str, **change: Any) -> str:
        whole = {"name": "x", "root": tmp_path, "images": (ImageFile(id="a", file="a.jpg"),), "fingerprint": "f" * 64, **change}
        return packs.Order(Dataset.model_validate(whole), subset, rule).folder.name

    assert {name("images", kind=kind) for kind in ("voc", "coco", "folder")} == {KEPT}
    shown = {"kind": "coco", "boxes": {"a": ()}, "masks": {"instances": ("a",)}}
    one, other = ({**shown, "annotations": digest} for digest in ("1", "2"))
    assert name("images", **one) == name("images", **other) != KEPT
    assert name("instances", **one) != name("instances", **other)


def test_corners_in_the_place_of_sizes_are_noticed(tmp_path: Path) -> None:
    """Boxes as x1, y1, x2, y2 reach beyond their images; a few are cut and counted."""
    (tmp_path / "annotations").mkdir()
    Image.new("RGB", (100, 80)).save(tmp_path / "p.png")
    corners = [[40.0 + place, 30.0, 95.0, 70.0] for place in range(30)]

    def write(boxes: list[list[float]]) -> None:
        annotations = [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": 0, "area": 1.0} for n, box in enumerate(boxes)
        ]
        content = {
            "images": [{"id": 1, "file_name": "p.png", "width": 100, "height": 80}],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "cat"}],
        }
        (tmp_path / "annotations" / "instances_mine.json").write_text(json.dumps(content))

    write(corners)
    with pytest.raises(DataError, match=r"30 of 30 boxes reach beyond their images.*are these corners"):
        coco.read(tmp_path, "mine")
    write([*corners[:1], *([[10.0, 10.0, 20.0, 20.0]] * 30)])
    assert coco.read(tmp_path, "mine").findings[coco.CUT] == 1
