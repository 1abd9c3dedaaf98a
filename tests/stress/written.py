"""What the program wrote itself: a broken file gives what the valid one gives, or is refused.

The formats ending in `-sealed` are the same with digests that fit: what another version, or a stranger, may have written. Those
may say something else, as long as what is refused is refused in a sentence.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench import record
from bench.data import catalogue, hashes, packs, splits
from bench.errors import DataError
from bench.experiment import pretraining, trial, tuning
from bench.experiment.search import search_of
from bench.storage import files, journal
from bench.training import checkpoint
from results import board, overlays, report
from results.cache import Cache
from results.predictions import predictions_path, read_answers, reader
from tests.results.made import make
from tests.results.made import tuning as made_tuning
from tests.stress import mutations
from tests.stress.binaries import NPY, NPZ, TENSORS
from tests.stress.cases import Format, Subject
from tests.stress.ground import Ground, quiet, sealed, unsealed
from tests.stress.mutations import BYTES, JSON, TEXT


def stored(ground: Ground) -> list[Format]:
    def index() -> Subject:
        assert ground.drawn
        path = files.home() / "data" / "demo" / "index.json"
        return Subject(path, lambda: catalogue.read_index(path).model_dump_json(), exact=True)

    def split() -> Subject:
        dataset = catalogue.open_dataset("demo", quiet) if ground.drawn else None
        assert dataset is not None
        splits.open_splits(dataset, "official", "labels")
        path = next((files.home() / "splits").glob("demo-official-labels-*.json"))
        return Subject(path, lambda: splits.open_splits(dataset, "official", "labels").model_dump_json(), exact=True)

    def hashed() -> Subject:
        dataset = catalogue.open_dataset("demo", quiet) if ground.drawn else None
        assert dataset is not None
        hashes.open_hashes(dataset, quiet)
        return Subject(hashes.path_of(dataset), lambda: hashes.open_hashes(dataset, quiet).tobytes(), exact=True)

    def in_pack(name: str) -> Callable[[], Subject]:
        def make_it() -> Subject:
            order = ground.order

            def read() -> list[object]:
                pack = packs.open_pack(order, quiet, quiet)
                rows = list(range(len(pack.manifest.ids)))
                arrays = [array.read(rows).tobytes() if array else None for array in (pack.images, pack.masks, pack.truth)]
                return [pack.manifest.model_dump_json(), *arrays]

            path = order.folder / name
            return Subject(path, read, exact=True, names=(str(path), f"{path.parent}/"))

        return make_it

    def kept() -> Subject:
        path = ground.folder / "kept.json"
        files.publish_json(path, {"values": {"1": 0.25, "2": 0.5}, "seconds": 12.5, "images": 80})
        return Subject(path, lambda: trial.TrialProgress.read(path).model_dump(), exact=True)

    def study() -> Subject:
        path = ground.folder / "study" / "journal.log"
        path.parent.mkdir()
        _search(path)
        lines = path.read_bytes().splitlines(keepends=True)
        # A journal that ends early is what a killed process leaves: any beginning of whole lines is one.
        beginnings = [_after(path, b"".join(lines[:count])) for count in range(len(lines) + 1)]
        path.write_bytes(b"".join(lines))
        lock = path.with_suffix(".lock")

        def fits(_: object, found: object) -> bool:
            return found in beginnings

        return Subject(path, lambda: _trials(path), exact=True, fits=fits, tidy=lambda: lock.unlink(missing_ok=True))

    def finished_search() -> Subject:
        wanted = search_of(ground.grid.jobs[0], ground.config(tune=3), ground.grid.jobs)
        path = ground.out / "studies" / wanted.id / "tuning-3.json"
        _publish(path, made_tuning(study=wanted.id, budget=3).model_dump(mode="json"))
        return Subject(path, lambda: _dumped(tuning.find_tuning(wanted, 3, ground.out)), exact=True)

    def pretrained() -> Subject:
        job = ground.grid.jobs[0].pretrain
        path = ground.out / "pretrained" / job.id / "pretrain.json"
        one = make().pretrain.model_copy(update={"id": job.id, "job": job})
        _publish(path, one.model_dump(mode="json"))
        return Subject(path, lambda: _dumped(pretraining.find_pretrained(job, ground.out)), exact=True)

    def run_record() -> Subject:
        path = ground.out / "runs" / ground.runs[0].id / "record.json"
        return Subject(path, lambda: [one.model_dump_json() for one in record.read(ground.out)], exact=True)

    forms = [
        Format("index", index, {**BYTES, **JSON}, 4),
        Format("split", split, {**BYTES, **JSON}, 4),
        Format("hashes", hashed, {**BYTES, **JSON}, 3),
        Format("pack-manifest", in_pack("manifest.json"), {**BYTES, **JSON}, 4),
        Format("pack-images", in_pack("images.npy"), {**BYTES, **NPY}, 4),
        Format("pack-masks", in_pack("masks.npy"), {**BYTES, **NPY}, 3),
        Format("pack-truth", in_pack("truth.npy"), {**BYTES, **NPY}, 3),
        Format("kept", kept, {**BYTES, **JSON}, 3),
        Format("journal", study, {**BYTES, **TEXT, "entry": mutations.some_line(JSON)}, 5),
        Format("tuning", finished_search, {**BYTES, **JSON}, 4),
        Format("pretrain-record", pretrained, {**BYTES, **JSON}, 4),
        Format("record", run_record, {**BYTES, **JSON}, 5),
    ]
    # The same with a seal that fits: what another version, or a stranger, may have written.
    makers = {"index": index, "split": split, "pack-manifest": in_pack("manifest.json"), "kept": kept, "tuning": finished_search}
    makers |= {"hashes": hashed, "pretrain-record": pretrained, "record": run_record}
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
    files.publish_json(path, value)


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
        repr((t.number, t.state, t.values, t.params, t.user_attrs, t.intermediate_values))
        for t in study.get_trials(deepcopy=False)
    ]


def _after(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    return _trials(path)


def networks(ground: Ground) -> list[Format]:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))

    def weights() -> Subject:
        path = ground.folder / "pretext.safetensors"
        checkpoint.save_weights(path, network(), {"id": "x"})
        known = [files.sha256(path)]

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
        module, optimizers = trained()
        module(torch.ones(2, 1, 8, 8)).sum().backward()
        optimizers["loss"].step()
        place = checkpoint.save(folder, module, optimizers, {"step": 3, "id": "x"})

        def read() -> str:
            fresh, optimizers = trained()
            facts = checkpoint.load(folder, fresh, optimizers)
            state = optimizers["loss"].state_dict()["state"]
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


def results(ground: Ground) -> list[Format]:
    def answers() -> Subject:
        one = ground.runs[0]
        path = predictions_path(ground.out, one)
        return Subject(path, lambda: _shown(read_answers(ground.out, one)), exact=True)

    def answers_sealed() -> Subject:
        subject, one = answers(), ground.runs[0]
        made = [one]

        def put(content: bytes) -> None:
            subject.path.write_bytes(content)
            made[0] = one.model_copy(update={"predictions": hashlib.sha256(content).hexdigest()})

        subject.put, subject.exact = put, False
        subject.read = lambda: _shown(read_answers(ground.out, made[0]))
        return subject

    def examples() -> Subject:
        one = ground.runs[0]
        boards = board.boards(ground.runs, reader(ground.out))

        def read() -> str:
            problems: list[str] = []
            found = overlays.overlays(boards[0], [(0, "Segmentation")], ground.out, problems)
            if problems:
                raise DataError(problems[0])
            return repr(found)

        path = ground.out / "runs" / one.id / "examples.npz"
        return Subject(path, read, exact=True, names=(f"runs/{one.id}/examples.npz",))

    def examples_sealed() -> Subject:
        subject, one = examples(), ground.runs[0]

        def put(content: bytes) -> None:
            subject.path.write_bytes(content)
            changed = one.model_copy(update={"examples": hashlib.sha256(content).hexdigest()})
            subject.read = lambda: _overlaid(changed, ground.out)

        subject.put, subject.exact, subject.memory = put, False, 768 << 20
        return subject

    def cache() -> Subject:
        path = ground.out / "cache" / "report.cache"
        known = Cache()
        _report(ground, known)
        files.publish_file(path, known.text())

        def read() -> dict[str, str]:
            return _report(ground, Cache.read(path)).files

        return Subject(path, read, exact=True)

    return [
        Format("predictions", answers, {**BYTES, **NPZ}, 4),
        Format("predictions-sealed", answers_sealed, {**BYTES, **NPZ}, 4),
        Format("examples", examples, {**BYTES, **NPZ}, 4),
        Format("examples-sealed", examples_sealed, {**BYTES, **NPZ}, 4),
        Format("report-cache", cache, {**BYTES, **JSON, **TEXT}, 2),
    ]


def _overlaid(one: record.Record, out: Path) -> str:
    """Return a run's images as the page has them; DataError when they are left out."""
    problems: list[str] = []
    found = overlays.overlays(board.boards([one], reader(out))[0], [(0, "Segmentation")], out, problems)
    if problems:
        raise DataError(problems[0])
    return repr(found)


def _report(ground: Ground, known: Cache) -> report.Report:
    return report.make(ground.runs, ground.out, report.Wanted(), "bench report", known)


def _shown(answers: tuple[tuple[str, ...], dict[str, Any]]) -> list[object]:
    ids, arrays = answers
    return [ids, *((name, array.dtype.str, array.shape, array.tobytes()) for name, array in sorted(arrays.items()))]
