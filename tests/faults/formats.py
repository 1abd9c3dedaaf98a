"""Every format that the program reads: a valid example made by the program's own writers, and how the program reads it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from bench import checkpoint, journal, options, pretraining, registry, resolve, store, tune
from bench.data import catalogue, coco, demo, packs, splits, voc
from bench.data.dataset import VOC_CLASSES, decode, decode_mask, voc_palette
from bench.errors import DataError
from results import board, overlays, record, report
from results.cache import Cache
from results.values import reader
from tests.faults import mutations
from tests.faults.fuzz import Format, Refused, Subject
from tests.faults.mutations import BMP, BYTES, JPEG, JSON, NPY, NPZ, PNG, PYTHON, TENSORS, TEXT, TIFF, WEBP, XML
from tests.results.made import make, publish

PICTURE_MEMORY = 1200 << 20
"""A picture of the most pixels that are let in, as it is decoded and as it is given back."""
TRUNK = "unet:depth=5,width=8"


def quiet(*_: object) -> None:
    """Say nothing."""


def command(*words: object) -> str:
    """Run the command line in this process as the script does; return what it printed, or raise `Refused`."""
    from bench.__main__ import main

    registry._given.clear()
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["bench", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as leaving:
        if leaving.code not in (0, None):
            said = [line for line in err.getvalue().splitlines() if line.startswith("bench: ")]
            if len(said) != 1 or not isinstance(leaving.code, int):
                raise AssertionError(f"left with {leaving.code!r} and said {err.getvalue()[-300:]!r}") from leaving
            raise Refused(leaving.code, said[0]) from leaving
    finally:
        sys.argv = before
    if "Traceback" in err.getvalue():
        raise AssertionError(err.getvalue()[-300:])
    return out.getvalue() + err.getvalue()


def unsealed(content: bytes) -> bytes:
    """Return a JSON file without its seal."""
    seal = re.match(rb'\{"sha256": "[0-9a-f]{64}",', content)
    return b"{" + content[seal.end() :] if seal else content


def sealed(content: bytes) -> bytes:
    """Return a JSON file with the seal that it would have."""
    return b'{"sha256": "' + hashlib.sha256(content[1:]).hexdigest().encode() + b'",' + content[1:]


class Ground:
    """What the examples share: drawn data, prepared, a job on them, and finished runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        torch.set_num_threads(1)

    @cached_property
    def drawn(self) -> dict[str, Path]:
        """Folders of drawn pictures, registered as demo and demo_unlabelled."""
        roots = demo.make(self.folder / "drawn", 24, 20, 12)
        for name, root in roots.items():
            catalogue.register(catalogue.read(root, name))
        return roots

    @cached_property
    def devkit(self) -> Path:
        """A VOC folder of its own, to be broken."""
        root = Path(shutil.copytree(self.drawn["demo"], self.folder / "voc"))
        return root / "VOCdevkit" / "VOC2012"

    @cached_property
    def coco(self) -> Path:
        """A COCO folder with instances, and a test part with image_info."""
        root = self.folder / "coco"
        (root / "annotations").mkdir(parents=True)
        for kind, part, count in (("instances", "train2014", 4), ("instances", "val2014", 3), ("image_info", "test2014", 3)):
            (root / part).mkdir()
            names = [f"COCO_{part}_{place:012}.jpg" for place in range(count)]
            for name in names:
                Image.new("RGB", (8, 8), (200, 30, 30)).save(root / part / name)
            images = [{"id": place, "file_name": name, "height": 8, "width": 8} for place, name in enumerate(names)]
            boxes = [{"id": 7, "image_id": 0, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16.0, "iscrowd": 0, "segmentation": []}]
            text = {"info": {"year": 2014}, "images": images, "categories": [{"id": 1, "name": "cat"}]}
            text |= {"annotations": boxes} if kind == "instances" else {}
            (root / "annotations" / f"{kind}_{part}.json").write_text(json.dumps(text))
        return root

    @cached_property
    def grid(self) -> resolve.Grid:
        """One job on the drawn data, as the command line makes it."""
        assert self.drawn
        return resolve.resolve(self.request(), quiet)

    def request(self, **changes: Any) -> resolve.Request:
        """Return what a user would have asked for."""
        asked = {"data": "demo", "pretrain_data": "demo_unlabelled", "trunk": TRUNK, "size": 32, "protocol": "demo"}
        return resolve.Request(("l1_color",), ("voc_seg",), **{**asked, **changes})

    @cached_property
    def runs(self) -> list[record.Record]:
        """Finished runs of two pretext tasks and two seeds, with all that a record holds."""
        job = self.grid.jobs[0]
        made = []
        for pretext, value in (("random_init", 0.2), ("cgan_color", 0.5)):
            for seed in range(2):
                one = make(pretext, seed, value, "voc_seg", **self.facts(job))
                made.append(publish(self.out, one))
        return made

    def facts(self, job: Any) -> dict[str, Any]:
        """Return what a run's record says beside its scores."""
        machine = {"type": "cpu", "threads": 1, "precision": "fp32", "compiled": False}
        origin = {"command": ["run"], "started": "2026-01-01T00:00:00+00:00", "python": "3.11", "versions": {"torch": "2"}}
        origin |= {"machine": machine, "data": "demo", "pretrain_data": "demo_unlabelled", "commit": None, "dirty": None}
        settings = job.settings.model_copy(update={"metrics": ("miou_voc",)})
        return {"job": job.model_copy(update={"settings": settings}).model_dump(mode="json"), "provenance": origin}

    @cached_property
    def order(self) -> packs.Order:
        """A pack with all three arrays, made."""
        order = packs.Order(
            catalogue.open_dataset(str(self.drawn["demo"]), quiet), "SegmentationClass", packs.PackRule(size=32, resize="letterbox")
        )
        packs.open_pack(order, quiet, quiet)
        return order

    def clear(self, *names: str) -> None:
        """Remove what reading left in the home folder."""
        for name in names:
            shutil.rmtree(store.home() / name, ignore_errors=True)


def formats_below(folder: Path, seeds: Path | None = None) -> dict[str, Format]:
    """Return every format by name; its example lies below `folder`, and `seeds` is a VOC folder with more examples."""
    ground = Ground(folder)
    found: list[Format] = [
        *_pictures(folder, seeds),
        *_masks(folder, seeds),
        *_sources(ground, seeds),
        *_ours(ground),
        *_networks(ground),
        *_results(ground),
        *_texts(ground),
        *_commands(ground),
    ]
    return {form.name: form for form in found}


# Source data


def _drawing(mode: str = "RGB") -> Image.Image:
    rows, columns = np.mgrid[:48, :64]
    pixels = np.stack([rows * 5, columns * 4, (rows * columns) % 256], axis=2).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        return Image.fromarray((pixels[..., 0].astype(np.uint16) * 257))
    return image.convert(mode)


def _saved(image: Image.Image, kind: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def _some(seeds: Path | None, pattern: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(seeds.glob(pattern))[:200:10]] if seeds else []


def _pictures(folder: Path, seeds: Path | None) -> list[Format]:
    oriented = Image.Exif()
    oriented[0x0112] = 6
    kinds: dict[str, tuple[str, Callable[[], list[bytes]], dict[str, Any], int]] = {
        "jpeg": (
            ".jpg",
            lambda: [
                _saved(_drawing(), "JPEG"),
                _saved(_drawing(), "JPEG", progressive=True, exif=oriented),
                _saved(_drawing("L"), "JPEG"),
                _saved(_drawing("CMYK"), "JPEG"),
                *_some(seeds, "JPEGImages/*.jpg"),
            ],
            {**BYTES, **JPEG},
            12,
        ),
        "png": (
            ".png",
            lambda: [
                _saved(_drawing(), "PNG", exif=oriented),
                _saved(_drawing("RGBA"), "PNG"),
                _saved(_drawing("P"), "PNG", transparency=3),
                _saved(_drawing("I;16"), "PNG"),
                _saved(_drawing("LA"), "PNG"),
            ],
            {**BYTES, **PNG},
            10,
        ),
        "webp": (
            ".webp",
            lambda: [_saved(_drawing(), "WEBP"), _saved(_drawing("RGBA"), "WEBP", lossless=True, exif=oriented)],
            {**BYTES, **WEBP},
            5,
        ),
        "bmp": (
            ".bmp",
            lambda: [_saved(_drawing(), "BMP"), _saved(_drawing("P"), "BMP")],
            {**BYTES, **BMP},
            5,
        ),
        "tiff": (
            ".tiff",
            lambda: [
                _saved(_drawing(), "TIFF"),
                _saved(_drawing(), "TIFF", compression="tiff_lzw"),
                _saved(_drawing(), "TIFF", compression="jpeg"),
                _saved(_drawing("1"), "TIFF", compression="group4"),
                _saved(_drawing("I;16"), "TIFF", compression="tiff_adobe_deflate"),
            ],
            {**BYTES, **TIFF},
            8,
        ),
    }

    def subject(name: str) -> Callable[[], Subject]:
        suffix, examples, _, _ = kinds[name]

        def make_it() -> Subject:
            path = folder / f"picture{suffix}"
            every = examples()
            path.write_bytes(every[0])
            return Subject(path, lambda: decode(path, upright=True).tobytes(), every, memory=PICTURE_MEMORY)

        return make_it

    return [Format(name, subject(name), changes, share) for name, (_, _, changes, share) in kinds.items()]


def _masks(folder: Path, seeds: Path | None) -> list[Format]:
    ids = np.zeros((48, 64), dtype=np.uint8)
    ids[4:20, 8:40], ids[20:40, 30:60], ids[0] = 3, 20, 255
    palette = Image.fromarray(ids, mode="P")
    palette.putpalette(voc_palette().tobytes())
    forms = {
        "mask-palette": [_saved(palette, "PNG"), *_some(seeds, "SegmentationClass/*.png")],
        "mask-grey": [_saved(Image.fromarray(ids), "PNG")],
        "mask-rgb": [_saved(Image.fromarray(voc_palette()[ids]), "PNG")],
    }

    def subject(name: str) -> Callable[[], Subject]:
        def make_it() -> Subject:
            path = folder / f"{name}.png"
            path.write_bytes(forms[name][0])

            def read() -> bytes:
                return decode_mask(path, 20, (64, 48), folder / "picture.jpg").tobytes()

            return Subject(path, read, forms[name], memory=PICTURE_MEMORY)

        return make_it

    return [Format(name, subject(name), {**BYTES, **PNG}, 5) for name in forms]


def _sources(ground: Ground, seeds: Path | None) -> list[Format]:
    def xml() -> Subject:
        path = ground.devkit / "Annotations" / "demo_000003.xml"
        classes = tuple((ground.devkit / "classes.txt").read_text().split())
        examples = [path.read_bytes(), *_some(seeds, "Annotations/*.xml")]
        return Subject(path, lambda: voc.read_labels(path, (*classes, *VOC_CLASSES)), examples)

    def coco_json(name: str) -> Callable[[], Subject]:
        def make_it() -> Subject:
            path = ground.coco / "annotations" / name
            return Subject(path, lambda: coco.read(ground.coco, "mine").model_dump_json())

        return make_it

    def beside(name: str) -> Callable[[], Subject]:
        def make_it() -> Subject:
            path = ground.devkit / name
            if not path.is_file():
                path.write_text("ring\ndisc\nstar\n")

            def read() -> str:
                dataset = catalogue.open_dataset(str(ground.devkit), quiet)
                subset = "labels" if "Main" in name else "SegmentationClass"
                return splits.open_split(dataset, "official", subset).model_dump_json()

            def tidy() -> None:
                ground.clear("paths", "splits")

            # A class that is not in the list any more is found where it is used.
            names = (str(path), "Annotations/") if name == "classes.txt" else (str(path), f"{Path(name).parent}/{path.name}".removeprefix("./"))
            return Subject(path, read, names=(*names, *_needs(name)), tidy=tidy)

        return make_it

    text = {**BYTES, **TEXT}
    return [
        Format("voc-xml", xml, {**BYTES, **XML}, 8),
        Format("coco-instances", coco_json("instances_train2014.json"), {**BYTES, **JSON, **TEXT}, 6),
        Format("coco-info", coco_json("image_info_test2014.json"), {**BYTES, **JSON, **TEXT}, 4),
        Format("list-main", beside("ImageSets/Main/train.txt"), text, 3),
        Format("list-masks", beside("ImageSets/Segmentation/val.txt"), text, 3),
        Format("classes", beside("classes.txt"), text, 3),
        Format("scored", beside("scored_classes.txt"), text, 3),
    ]


def _needs(name: str) -> tuple[str, ...]:
    """Return how an empty list is named: by what the split needs."""
    folder = Path(name).parent
    return (f"{folder} needs train.txt and val.txt",) if folder.parent.name == "ImageSets" else ()


# What the program wrote itself


def _ours(ground: Ground) -> list[Format]:
    def index() -> Subject:
        assert ground.drawn
        path = store.home() / "data" / "demo" / "index.json"
        return Subject(path, lambda: catalogue.open_dataset("demo", quiet).model_dump_json(), exact=True)

    def split() -> Subject:
        dataset = catalogue.open_dataset("demo", quiet) if ground.drawn else None
        assert dataset is not None
        splits.open_split(dataset, "official", "labels")
        path = next((store.home() / "splits").glob("demo-official-labels-*.json"))
        return Subject(path, lambda: splits.open_split(dataset, "official", "labels").model_dump_json(), exact=True)

    def in_pack(name: str) -> Callable[[], Subject]:
        def make_it() -> Subject:
            order = ground.order

            def read() -> list[object]:
                pack = packs.open_pack(order, quiet, quiet)
                rows = list(range(len(pack.manifest.ids)))
                arrays = [array.read(rows).tobytes() if array else None for array in (pack.images, pack.masks, pack.truth)]
                return [pack.manifest.model_dump_json(), *arrays]

            path = order.folder / name
            return Subject(path, read, exact=True, names=(str(path), f"{path.parent} "))

        return make_it

    def kept() -> Subject:
        path = ground.folder / "kept.json"
        store.publish_json(path, {"values": {"1": 0.25, "2": 0.5}, "seconds": 12.5, "images": 80})
        return Subject(path, lambda: vars(tune._Kept.read(path)), exact=True)

    def study() -> Subject:
        path = ground.folder / "study" / "journal.log"
        path.parent.mkdir()
        _search(path)
        lock = path.with_suffix(".lock")
        return Subject(path, lambda: _trials(path), exact=True, tidy=lambda: lock.unlink(missing_ok=True))

    def tuning() -> Subject:
        search = tune.Search(trials=3)
        wanted = tune.study_of(ground.grid.jobs[0], search, ground.grid.jobs)
        path = ground.out / "studies" / wanted.id / "tuning-3.json"
        from tests.results.made import tuning as made_tuning

        _publish(path, made_tuning(study=wanted.id, budget=3).model_dump(mode="json"))
        return Subject(path, lambda: _dumped(tune.find_tuning(wanted, search, ground.out)), exact=True)

    def pretrained() -> Subject:
        job = ground.grid.jobs[0].pretrain
        path = ground.out / "pretrained" / job.id / "pretrain.json"
        one = make().pretrain.model_copy(update={"id": job.id, "job": job.model_dump(mode="json")})
        _publish(path, one.model_dump(mode="json"))
        return Subject(path, lambda: _dumped(pretraining.find_pretrained(job, ground.out)), exact=True)

    def run_record() -> Subject:
        path = ground.out / "runs" / ground.runs[0].id / "record.json"
        return Subject(path, lambda: [one.model_dump_json() for one in record.read(ground.out)], exact=True)

    forms = [
        Format("index", index, {**BYTES, **JSON}, 4),
        Format("split", split, {**BYTES, **JSON}, 4),
        Format("pack-manifest", in_pack("manifest.json"), {**BYTES, **JSON}, 4),
        Format("pack-images", in_pack("images.npy"), {**BYTES, **NPY}, 4),
        Format("pack-masks", in_pack("masks.npy"), {**BYTES, **NPY}, 3),
        Format("pack-truth", in_pack("truth.npy"), {**BYTES, **NPY}, 3),
        Format("kept", kept, {**BYTES, **JSON}, 3),
        Format("journal", study, {**BYTES, **TEXT, "entry": mutations.some_line(JSON)}, 5),
        Format("tuning", tuning, {**BYTES, **JSON}, 4),
        Format("pretrain-record", pretrained, {**BYTES, **JSON}, 4),
        Format("record", run_record, {**BYTES, **JSON}, 5),
    ]
    # The same with a seal that fits: what another version, or a stranger, may have written.
    makers = {"index": index, "split": split, "pack-manifest": in_pack("manifest.json"), "kept": kept, "tuning": tuning}
    makers |= {"pretrain-record": pretrained, "record": run_record}
    return [*forms, *(Format(f"{name}-sealed", _with_seal(maker), {**TEXT, **JSON}, 3) for name, maker in makers.items())]


def _with_seal(maker: Callable[[], Subject]) -> Callable[[], Subject]:
    def make_it() -> Subject:
        subject = maker()
        whole = subject.path.read_bytes()
        if unsealed(whole) != whole:
            subject.put = lambda content: subject.path.write_bytes(sealed(content))
        subject.examples, subject.exact = [unsealed(whole)], False
        return subject

    return make_it


def _publish(path: Path, value: object) -> None:
    store.publish_json(path, value)


def _dumped(found: Any) -> str:
    return "" if found is None else str(found.model_dump_json())


def _search(path: Path) -> None:
    """Make a study of three trials, as `bench tune` does, with neither times nor names of this machine in it."""
    import optuna
    from optuna.distributions import FloatDistribution

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=journal.journal(path, quiet), study_name="study", direction="maximize")
    for number in range(3):
        study.enqueue_trial({"phase-1": 10.0 ** -(number + 2)})
        trial = study.ask({"phase-1": FloatDistribution(1e-5, 1e-1, log=True)})
        trial.set_user_attr("cost", {"seconds": 1.5, "images": 24, "joules": None})
        for epoch in range(2):
            trial.report(0.1 * number + 0.01 * epoch, epoch)
        study.tell(trial, 0.1 * number)


def _trials(path: Path) -> list[str]:
    import optuna

    study = optuna.create_study(
        storage=journal.journal(path, quiet), study_name="study", direction="maximize", load_if_exists=True
    )
    return [
        repr((t.number, t.state, t.values, t.params, t.user_attrs, t.intermediate_values)) for t in study.get_trials(deepcopy=False)
    ]


def _networks(ground: Ground) -> list[Format]:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))

    def weights() -> Subject:
        path = ground.folder / "pretext.safetensors"
        checkpoint.save_weights(path, network(), {"id": "x"})
        known = [store.sha256(path)]

        def read() -> str:
            fresh = network()
            checkpoint.load_weights(path, known[0], fresh)
            return checkpoint.digest(fresh)

        subject = Subject(path, read, exact=True)
        subject.known = known  # type: ignore[attr-defined]
        return subject

    def weights_sealed() -> Subject:
        subject = weights()

        def put(content: bytes) -> None:
            subject.path.write_bytes(content)
            subject.known[0] = hashlib.sha256(content).hexdigest()  # type: ignore[attr-defined]

        subject.put, subject.exact = put, False
        return subject

    def trained() -> tuple[nn.Module, dict[str, torch.optim.Optimizer]]:
        module = network()
        return module, {"loss": torch.optim.Adam(module.parameters(), lr=1e-3)}

    def saved() -> Subject:
        folder = ground.folder / "checkpoints"
        shutil.rmtree(folder, ignore_errors=True)
        module, optimisers = trained()
        module(torch.ones(2, 1, 8, 8)).sum().backward()
        optimisers["loss"].step()
        place = checkpoint.save(folder, module, optimisers, {"step": 3, "id": "x"})

        def read() -> str:
            fresh, players = trained()
            facts = checkpoint.load(folder, fresh, players)
            state = players["loss"].state_dict()["state"]
            return repr((checkpoint.digest(fresh), facts, {n: {k: v.tolist() for k, v in s.items()} for n, s in state.items()}))

        return Subject(place, read, exact=True)

    def saved_sealed() -> Subject:
        subject = saved()
        folder = subject.path.parent

        def put(content: bytes) -> None:
            for old in folder.glob("*.safetensors"):
                old.unlink()
            (folder / f"000000003-{hashlib.sha256(content).hexdigest()}.safetensors").write_bytes(content)

        subject.put, subject.exact, subject.names = put, False, (f"{folder}/000000003-",)
        return subject

    changes = {**BYTES, **TENSORS}
    return [
        Format("weights", weights, changes, 3),
        Format("weights-sealed", weights_sealed, changes, 4),
        Format("checkpoint", saved, changes, 3),
        Format("checkpoint-sealed", saved_sealed, changes, 4),
    ]


def _results(ground: Ground) -> list[Format]:
    def predictions() -> Subject:
        one = ground.runs[0]
        path = record.predictions_path(ground.out, one)
        return Subject(path, lambda: _shown(record.read_answers(ground.out, one)), exact=True)

    def predictions_sealed() -> Subject:
        subject, one = predictions(), ground.runs[0]
        made = [one]

        def put(content: bytes) -> None:
            subject.path.write_bytes(content)
            made[0] = one.model_copy(update={"predictions": hashlib.sha256(content).hexdigest()})

        subject.put, subject.exact = put, False
        subject.read = lambda: _shown(record.read_answers(ground.out, made[0]))
        return subject

    def examples() -> Subject:
        boards = board.boards(ground.runs, reader(ground.out))
        path = ground.out / "runs" / ground.runs[0].id / "examples.npz"
        rng = np.random.default_rng(0)
        truth = rng.integers(0, 3, (3, 16, 16), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            kinds=np.array(["fixed 1", "best", "worst"]),
            ids=np.array(["a", "b", "c"]),
            iou=np.array([0.5, 0.75, 0.25]),
            images=rng.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8),
            truth=truth,
            found=truth[::-1],
        )
        path.write_bytes(buffer.getvalue())

        def read() -> str:
            problems: list[str] = []
            found = overlays.overlays(boards[0], [(0, "Segmentation")], ground.out, problems)
            if problems:
                raise DataError(problems[0])
            return repr(found)

        return Subject(path, read, exact=True, names=(f"runs/{path.parent.name}/examples.npz",))

    def cache() -> Subject:
        path = ground.out / "cache" / "report.json"
        known = Cache()
        _report(ground, known)
        store.publish_file(path, known.text())

        def read() -> dict[str, str]:
            return _report(ground, Cache.read(path)).files

        return Subject(path, read, exact=True)

    return [
        Format("predictions", predictions, {**BYTES, **NPZ}, 4),
        Format("predictions-sealed", predictions_sealed, {**BYTES, **NPZ}, 4),
        Format("examples", examples, {**BYTES, **NPZ}, 5),
        Format("report-cache", cache, {**BYTES, **JSON, **TEXT}, 2),
    ]


def _report(ground: Ground, known: Cache) -> report.Report:
    return report.make(ground.runs, ground.out, report.Wanted(), "bench report", known)


def _shown(answers: tuple[tuple[str, ...], dict[str, Any]]) -> list[object]:
    ids, arrays = answers
    return [ids, *((name, array.dtype.str, array.shape, array.tobytes()) for name, array in sorted(arrays.items()))]


# Texts of the command line, and plug-ins


def _texts(ground: Ground) -> list[Format]:
    """The texts of options, each read as `bench run` reads it."""
    path = ground.folder / "text"

    def option(valid: Sequence[str], use: Callable[[str], object], *names: str) -> Callable[[], Subject]:
        def make_it() -> Subject:
            assert ground.grid
            path.write_text(valid[0])
            return Subject(
                path,
                lambda: use(os.fsdecode(path.read_bytes()).replace("\0", "")),  # as an argument of a process arrives
                [text.encode() for text in valid],
                names=names,
                codes=(2,),
            )

        return make_it

    def resolved(**changes: Any) -> str:
        grid = resolve.resolve(ground.request(**changes), quiet)
        return grid.jobs[0].id

    settings = ("recipe.lr=1e-4", "protocol.batch_size=8", 'l1_color.pictures=[1,5]', "protocol.head_width=0", "recipe.epochs=5")
    changes = {**BYTES, **TEXT, **{name: JSON[name] for name in ("deep", "mark")}}
    forms: dict[str, Callable[[], Subject]] = {
        "option-set": option(settings, lambda text: resolved(settings=(text,)), "--set", "setting", "recipe", "protocol"),
        "option-rates": option(["1e-3,1e-4"], lambda text: resolved(rates=options.numbers("--rates", text)), "--rates"),
        "option-labels": option(["0.01,0.1,1"], lambda text: resolved(labels=options.numbers("--labels", text)), "--labels"),
        "option-seeds": option(["5", "0,3,7"], lambda text: resolved(seeds=options.seeds_of(None, text)), "--seeds"),
        "option-space": option(["head=1e-4:1e-2,all=1e-5:1e-3", "all=1e-4"], lambda text: tune.Search.parse(8, text), "--space"),
        "option-trunk": option([TRUNK, "unet:depth=4,eye=rgb"], lambda text: resolved(trunk=text), "trunk", "U-Net"),
    }

    def plugin() -> Subject:
        place = ground.folder / "rotation.py"
        place.write_text(ROTATION)

        def read() -> object:
            registry._given.clear()
            registry.add_plugin(place)
            named = registry.summaries("pretexts")["rotation"]
            loaded = registry.load("pretexts", "rotation")
            registry.source_digest("pretexts", "rotation")
            return named, loaded.__name__

        def tidy() -> None:
            for name in [name for name in sys.modules if name.startswith("bench_plugin_")]:
                del sys.modules[name]

        return Subject(place, read, tidy=tidy, names=(str(place), "unknown pretext 'rotation'"), codes=(3, 2))

    return [*(Format(name, make_it, changes, 2) for name, make_it in forms.items()), Format("plugin", plugin, {**BYTES, **TEXT, **PYTHON}, 6)]


ROTATION = '''"""Rotation prediction: by how many quarter turns was the picture turned?"""

import torch
from torch import nn

from bench.contract import Pretext


class Rotation(Pretext):
    """Four-way classification of the rotation, from the bottleneck."""

    def __init__(self, recipe, trunk):
        super().__init__(recipe, trunk)
        self.classifier = nn.Linear(trunk.bottleneck_channels, 4)

    def players(self):
        return {"classifier": torch.optim.Adam(self.parameters(), lr=self.recipe.lr)}

    def view(self, images, generator):
        return {"seen": self.trunk.eye(images)}

    def turns(self, batch):
        yield "classifier", self.classifier(self.trunk.encode(batch["seen"])[-1].mean(dim=(2, 3))).mean()
'''


# From end to end


def _commands(ground: Ground) -> list[Format]:
    """The same files under whole commands."""
    by_name: dict[str, Format] = {}
    for form in (*_sources(ground, None), *_ours(ground), *_results(ground), *_texts(ground)):
        by_name[form.name] = form

    def under(name: str, *words: Callable[[], object] | str, drawn: bool = False) -> Format:
        form = by_name[name]

        def make_it() -> Subject:
            subject = form.make()
            said = [word() if callable(word) else word for word in words]
            subject.read = lambda: command(*said)
            subject.exact = False
            return subject

        return Format(f"{name}-command", make_it, form.mutations, 1)

    def picture() -> Subject:
        path = next((ground.devkit / "JPEGImages").iterdir())
        return Subject(path, lambda: command("data", "verify", ground.devkit), memory=PICTURE_MEMORY)

    def mask() -> Subject:
        path = next((ground.devkit / "SegmentationClass").iterdir())
        return Subject(path, lambda: command("data", "verify", ground.devkit), memory=PICTURE_MEMORY)

    verify = ("data", "verify", lambda: ground.devkit)
    out = ("--out", lambda: ground.out)
    return [
        Format("jpeg-command", picture, {**BYTES, **JPEG}, 1),
        Format("mask-command", mask, {**BYTES, **PNG}, 1),
        under("voc-xml", *verify),
        under("list-main", *verify),
        under("classes", *verify),
        under("scored", *verify),
        under("coco-instances", "data", "verify", lambda: ground.coco),
        under("index", "data", "list"),
        under("record", "report", *out),
        under("record-sealed", "report", *out),
        under("predictions", "report", *out),
        under("examples", "report", "--html", *out),
        under("plugin", "list", "pretexts", "--plugin", lambda: ground.folder / "rotation.py"),
    ]
