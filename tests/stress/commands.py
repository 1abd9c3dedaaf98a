"""The same files under whole commands, from end to end."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import record
from bench.storage import files
from tests.stress.binaries import NPY, TENSORS
from tests.stress.cases import Format, Subject
from tests.stress.ground import Ground, command
from tests.stress.image_files import JPEG, PNG
from tests.stress.mutations import BYTES, JSON, TEXT
from tests.stress.sources import IMAGE_MEMORY

WHOLE = 0.3
"""The share of cases that run a whole command, which takes a hundred times as long as reading a file."""


def commands(ground: Ground, forms: Mapping[str, Format]) -> list[Format]:
    """The same files under whole commands."""

    def under(name: str, *words: Callable[[], object] | str) -> Format:
        form = forms[name]

        def make_it() -> Subject:
            subject = form.make()
            said = [word() if callable(word) else word for word in words]
            subject.read = lambda: command(*said)
            subject.exact = False
            return subject

        return Format(f"{name}-command", make_it, form.mutations, WHOLE)

    def image() -> Subject:
        path = next((ground.devkit / "JPEGImages").iterdir())
        return Subject(path, lambda: command("data", "verify", ground.devkit), memory=IMAGE_MEMORY)

    def mask() -> Subject:
        path = next((ground.devkit / "SegmentationClass").iterdir())
        return Subject(path, lambda: command("data", "verify", ground.devkit), memory=IMAGE_MEMORY)

    def run_on(kept: str, pattern: str, *more: object, home: bool = False) -> Callable[[], Subject]:
        """A whole run that begins with some folders of a finished one, and reads a file in them or in the home folder."""

        def make_it() -> Subject:
            place = ground.begin(kept)
            path = next((files.home() if home else place).glob(pattern))
            valid = path.read_bytes()

            def read() -> object:
                command("run" if kept == "pretrained" else "tune", *ground.words, *more, "--out", place)
                if kept == "studies":
                    (found,) = place.glob("studies/*/tuning-2.json")
                    return [json.loads(found.read_bytes())[name] for name in ("best", "best_value", "trials")]
                (one,) = record.read(place)
                return one.weights, one.predictions

            def tidy() -> None:
                ground.begin(kept)
                path.write_bytes(valid)

            return Subject(path, read, exact=True, tidy=tidy, names=(str(path), f"{path.parent}/"), memory=1 << 30)

        return make_it

    def typed(option: str, valid: str) -> Callable[[], Subject]:
        def make_it() -> Subject:
            path = ground.folder / "typed"
            path.write_text(valid)

            def read() -> object:
                text = os.fsdecode(path.read_bytes()).replace("\0", "")[:60_000]  # what a process can be given
                return command("run", *ground.words, f"{option}={text}", "--plan", "--out", ground.folder / "planned")

            return Subject(path, read, names=(option, "setting", "recipe", "protocol", "trunk"), codes=(2,), memory=1 << 30)

        return make_it

    def folder_of(name: str) -> Format:
        form = forms[name]

        def make_it() -> Subject:
            subject = form.make()
            place = ground.folder / f"folder-{name}"
            place.mkdir(exist_ok=True)
            path = Path(shutil.copy(subject.path, place))
            return Subject(
                path, lambda: command("data", "verify", place), subject.examples, memory=IMAGE_MEMORY, loud=subject.loud
            )

        return Format(f"{name}-command", make_it, form.mutations, WHOLE)

    verify = ("data", "verify", lambda: ground.devkit)
    out = ("--out", lambda: ground.out)
    pack = "packs/*SegmentationClass*"
    return [
        *(folder_of(name) for name in ("png", "webp", "bmp", "tiff")),
        Format("weights-command", run_on("pretrained", "pretrained/*/pretext.safetensors"), {**BYTES, **TENSORS}, WHOLE),
        Format("pretrain-record-command", run_on("pretrained", "pretrained/*/pretrain.json"), {**BYTES, **JSON}, WHOLE),
        Format(
            "split-command", run_on("pretrained", "splits/demo-*SegmentationClass-*.json", home=True), {**BYTES, **JSON}, WHOLE
        ),
        Format("pack-manifest-command", run_on("pretrained", f"{pack}/manifest.json", home=True), {**BYTES, **JSON}, WHOLE),
        Format("pack-images-command", run_on("pretrained", f"{pack}/images.npy", home=True), {**BYTES, **NPY}, WHOLE),
        Format("tuning-command", run_on("studies", "studies/*/tuning-2.json", "--trials", 2), {**BYTES, **JSON}, WHOLE),
        Format("option-set-command", typed("--set", "protocol.batch_size=8"), {**BYTES, **TEXT, "deep": JSON["deep"]}, WHOLE),
        Format("option-labels-command", typed("--labels", "0.1,1"), {**BYTES, **TEXT}, WHOLE),
        Format("jpeg-command", image, {**BYTES, **JPEG}, WHOLE),
        Format("mask-command", mask, {**BYTES, **PNG}, WHOLE),
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
        under("plugin", "list", "pretexts", "--plugin", lambda: ground.folder / "turning.py"),
    ]
