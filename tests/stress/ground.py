"""What the examples of all formats share: drawn data, prepared, a job on them, finished runs, and the command line."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import shutil
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench import record, registry
from bench.config import RunConfig
from bench.data import catalogue, demo, packs
from bench.experiment import resolve
from bench.storage import files
from tests.results.made import make, publish
from tests.stress.cases import Refused

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
        """Folders of drawn images, registered as demo and demo_unlabelled."""
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
            boxes = [
                {"id": 7, "image_id": 0, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16.0, "iscrowd": 0, "segmentation": []}
            ]
            text = {"info": {"year": 2014}, "images": images, "categories": [{"id": 1, "name": "cat"}]}
            text |= {"annotations": boxes} if kind == "instances" else {}
            (root / "annotations" / f"{kind}_{part}.json").write_text(json.dumps(text))
        return root

    @cached_property
    def grid(self) -> resolve.Grid:
        """One job on the drawn data, as the command line makes it."""
        assert self.drawn
        return resolve.resolve(self.config(), quiet)

    def config(self, **changes: Any) -> RunConfig:
        """Return what a user would have asked for."""
        data = {"data": "demo", "pretrain_data": "demo_unlabelled", "trunk": TRUNK, "size": 32, "protocol": "demo"}
        return RunConfig.model_validate({"pretext": "l1_color", "downstream": "voc_seg", **data, **changes})

    @cached_property
    def runs(self) -> list[record.Record]:
        """Finished runs of two pretext tasks and two seeds, with all that a record holds."""
        shown = _seen()
        digest = hashlib.sha256(shown).hexdigest()
        made = []
        for pretext, value in (("random_init", 0.2), ("cgan_color", 0.5)):
            for seed in range(2):
                one = make(pretext, seed, value, "voc_seg", examples=digest).model_copy(update=self.facts(pretext, seed))
                made.append(publish(self.out, one))
                (self.out / "runs" / one.id / "examples.npz").write_bytes(shown)
        return made

    def facts(self, pretext: str, seed: int) -> dict[str, Any]:
        """Return what a run's record says beside its scores."""
        machine = {"type": "cpu", "threads": 1, "precision": "fp32", "compiled": False}
        origin = {"command": ["run"], "started": "2026-01-01T00:00:00+00:00", "python": "3.11", "versions": {"torch": "2"}}
        origin |= {"machine": machine, "data": "demo", "pretrain_data": "demo_unlabelled", "commit": None, "dirty": None}
        job = self.grid.jobs[0]
        trunk = job.pretrain.model_copy(update={"pretext": pretext, "seed": seed})
        settings = job.settings.model_copy(update={"metrics": ("miou_voc",)})
        job = job.model_copy(update={"pretrain": trunk, "settings": settings, "seed": seed})
        pretrained = make(pretext, seed).pretrain.model_copy(update={"id": trunk.id, "job": trunk})
        return {"id": job.id, "job": job, "pretrain": pretrained, "provenance": origin}

    @cached_property
    def order(self) -> packs.Order:
        """A pack with all three arrays, made."""
        order = packs.Order(
            catalogue.open_dataset(str(self.drawn["demo"]), quiet),
            "SegmentationClass",
            packs.PackRule(size=32, resize="letterbox"),
        )
        packs.open_pack(order, quiet, quiet)
        return order

    @property
    def words(self) -> tuple[object, ...]:
        """The options of a small run, which a command shares with the one that made what it reads."""
        assert self.drawn
        small = ("--trunk", TRUNK, "--size", 32, "--threads", 1, "--device", "cpu", "--protocol", "demo", "--workers", 0)
        quick = ("--set", "recipe.epochs=1", "--set", "recipe.batch_size=8", "--set", "protocol.head_width=16")
        data = ("--data", "demo", "--pretrain-data", "demo_unlabelled", "--pretext", "l1_color", "--downstream", "voc_seg")
        return (*small, *quick, *data)

    @cached_property
    def finished(self) -> Path:
        """An output folder of a real run and a real search."""
        folder = self.folder / "finished"
        command("run", *self.words, "--out", folder)
        command("tune", *self.words, "--trials", 2, "--out", folder)
        return folder

    def begin(self, *kept: str) -> Path:
        """Return an output folder anew, with some folders of the finished one."""
        place = self.folder / "again"
        shutil.rmtree(place, ignore_errors=True)
        for name in kept:
            shutil.copytree(self.finished / name, place / name)
        return place

    def clear(self, *names: str) -> None:
        """Remove what reading left in the home folder."""
        for name in names:
            shutil.rmtree(files.home() / name, ignore_errors=True)


def _seen() -> bytes:
    """Return images with what was found in them, as `bench.experiment.examples` keeps them."""
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
    return buffer.getvalue()
