"""A small comparison as a user makes it, command by command, and everything that must be the same however it was disturbed."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import record
from bench.data import demo
from results import predictions
from tests.stress.server import Ended, Server

TINY = ("--trunk", "unet:depth=5,width=8", "--size", "32", "--threads", "1", "--device", "cpu", "--protocol", "demo")
QUICK = ("--set", "recipe.epochs=2", "--set", "recipe.batch_size=8", "--set", "protocol.head_width=16")
COST = ("seconds", "peak_memory", "joules", "started", "command", "commit", "dirty")
"""What a record says that is another number or text each time."""
TRIALS = 10
ALLOWED = (0, 3, 4, 5, 130, 143)
"""Exit codes of a command that was disturbed: done, bad data, environment, finished with failed runs, stopped."""

STUDY = """title = "What is kept of some runs"
[options]
trunk = "unet:depth=5,width=8"
size = 32
threads = 1
device = "cpu"
protocol = "demo"
data = "mine"
pretrain-data = "others"
pretext = "random_init"
downstream = "voc_cls"
schedule = "frozen"
set = ["protocol.schedules={\\"frozen\\": [{\\"train\\": \\"head\\", \\"epochs\\": 1, \\"lr\\": 1e-3}]}"]
[parts.one]
[parts.two]
seeds = 2
[tables.both]
parts = ["one", "two"]
"""


@dataclass(frozen=True)
class Scene:
    """Images, and the folders that commands write below: the home and the results."""

    data: dict[str, Path]
    home: Path
    out: Path
    trials: int = TRIALS
    checkpoint_seconds: float = 0.02

    @classmethod
    def draw(cls, folder: Path, **more: Any) -> Scene:
        """Draw 32 unlabelled and 26 labelled synthetic images below a folder."""
        (folder / "study.toml").write_text(STUDY)
        return cls(demo.make(folder / "drawn", 32, 16, 10), folder / "home", folder / "runs", **more)

    @property
    def folders(self) -> tuple[Path, ...]:
        """What commands may change."""
        return self.home, self.out, self.kept

    @property
    def kept(self) -> Path:
        """Where the study's records and tables lie."""
        return self.out.parent / "kept"

    def commands(self) -> dict[str, tuple[object, ...]]:
        """Return the commands in their order, by name."""
        named = ("--data", "mine", "--pretrain-data", "others")
        common = (
            *TINY,
            *QUICK,
            *named,
            "--schedule",
            "two-phase",
            "--checkpoint-seconds",
            self.checkpoint_seconds,
            "--out",
            self.out,
        )
        scratch = ("--pretext", "random_init", "--downstream", "voc_cls", *_protocol("voc_cls"))
        study = self.out.parent / "study.toml"
        return {
            "prepare": ("data", "prepare", "mine", "--root", self.data["demo"]),
            "prepare others": ("data", "prepare", "others", "--root", self.data["demo_unlabelled"]),
            "run": ("run", *common, "--pretext", "cgan_color", "--downstream", "voc_seg", *_protocol("voc_seg")),
            "tune": ("tune", *common, "--trials", self.trials, *scratch),
            "tuned run": ("run", *common, "--tune", self.trials, *scratch),
            "report": ("report", "--out", self.out, "--html"),
            "study": ("study", study, "--out", self.out, "--into", self.kept, "--html"),
        }

    def run(self, server: Server, name: str, **more: Any) -> Ended:
        """Run a command of the scene."""
        return server.run(*self.commands()[name], home=self.home, **more)

    def save(self, folder: Path) -> None:
        """Copy what commands have written so far to a folder."""
        for place in self.folders:
            if place.is_dir():
                shutil.copytree(place, folder / place.name)

    def restore(self, folder: Path) -> None:
        """Put back what `save` copied, and nothing else."""
        for place in self.folders:
            shutil.rmtree(place, ignore_errors=True)
            if (folder / place.name).is_dir():
                shutil.copytree(folder / place.name, place)

    def facts(self) -> dict[str, Any]:
        """Return all that commands left, but for what it cost and when: weights, records, tables, packs, splits."""
        found: dict[str, Any] = {}
        for place in (self.out, self.kept / "records"):
            for one in record.read(place):
                found[f"{place.name} {one.id}"] = _without_cost(one.model_dump(mode="json"))
                found[f"{place.name} predictions {one.id}"] = hashlib.sha256(predictions.read_predictions(place, one)).hexdigest()
        for path in sorted(self.out.glob("studies/*/tuning-*.json")):
            found[path.parent.name] = _without_cost(json.loads(path.read_text()))
        for path in sorted(self.out.glob("pretrained/*/*.safetensors")):
            found[f"weights {path.parent.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted([*self.out.glob("*.csv"), *self.kept.glob("*/*.csv")]):
            found[str(path.relative_to(self.out.parent))] = list(_table_without_cost(path))
        for path in (self.out / "table4.md", self.kept / "both" / "table4.md"):
            if path.is_file():
                found[str(path.relative_to(self.out.parent))] = path.read_text().split("\n\n")[:4]
        found["pages"] = sorted(str(path.relative_to(self.out.parent)) for path in self.out.parent.glob("*/**/report.html"))
        for path in sorted(
            [
                *self.home.glob("packs/*/*"),
                *self.home.glob("splits/*.json"),
                *self.home.glob("data/*/index.json"),
                *self.kept.glob("records/parts.json"),
            ]
        ):
            found[str(path.relative_to(self.out.parent))] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def leftovers(self) -> list[str]:
        """Return what should not be there once every command has ended."""
        left = [path for place in self.folders for path in place.rglob("*") if path.name.startswith(".tmp-")]
        left += [*self.out.glob("work/*"), *self.out.glob("studies/*/work/*"), *self.out.glob("studies/*/workers/*")]
        return sorted(str(path.relative_to(self.out.parent)) for path in left)


def _protocol(task: str) -> tuple[str, ...]:
    phases = [{"train": "head", "epochs": 1, "lr": 1e-3}, {"train": "all", "epochs": 2, "lr": 1e-3}]
    metrics = ["map_voc"] if task == "voc_cls" else ["miou_voc"]
    return "--set", f"protocol.schedules={json.dumps({'two-phase': phases})}", "--set", f"protocol.metrics={json.dumps(metrics)}"


def _without_cost(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_cost(one) for name, one in value.items() if name not in (*COST, "sha256")}
    return [_without_cost(one) for one in value] if isinstance(value, list) else value


def _table_without_cost(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            yield {
                name: value
                for name, value in row.items()
                if not any(word in name for word in ("seconds", "memory", "joules", "commits"))
            }


def sentence(ended: Ended) -> str:
    """Return "" for a command that ended as it may, else what is wrong with how it ended."""
    if ended.code < 0:
        return f"died of signal {-ended.code}: {ended.err[-400:]}"
    if ended.code not in ALLOWED:
        return f"exit code {ended.code}: {ended.err[-600:]}"
    if "Traceback" in ended.err:
        return f"a traceback: {ended.err[-900:]}"
    said = [line for line in ended.err.splitlines() if line.startswith("bench: ")]
    return "" if not ended.code or said else f"exit code {ended.code} without a word: {ended.err[-400:]!r}"


def apart(expected: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each fact that is not what it is undisturbed."""
    for what in sorted(expected.keys() | found.keys()):
        if expected.get(what) != found.get(what):
            yield f"{what} is not what it is undisturbed: {_apart(expected.get(what), found.get(what))}"


def _apart(one: object, other: object) -> str:
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return "; ".join(f"{name}: {_apart(one.get(name), other.get(name))}" for name in one if one.get(name) != other.get(name))
    return f"{str(one)[:200]} and {str(other)[:200]}"
