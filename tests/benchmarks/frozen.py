"""A search of the frozen rate with features computed once, against the same search that computes them anew each time."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from bench.experiment.finetuning import finetune
from bench.experiment.pretraining import pretrain
from bench.experiment.search import chosen_by, search_of
from bench.experiment.tuning import tune
from bench.record import Tuning
from bench.training.feature_cache import Cache
from tests.benchmarks.common import Figure, ratio, seconds, workplace
from tests.benchmarks.step import opened

TRIALS, MEASURED, EPOCHS, SHARE = 20, 3, 3, 0.4
CASES = {
    "classification, linear head, 256 px": ("voc_cls", 256, "unet", ("protocol.head_width=0",)),
    "classification, the paper's head, 256 px": ("voc_cls", 256, "unet", ("protocol.head_width=4096",)),
    "segmentation, 64 px, width 32": ("voc_seg", 64, "unet:width=32", ()),
}


def search(out: Path, downstream: str, size: int, trunk: str, settings: tuple[str, ...], trials: int) -> tuple[float, Tuning]:
    """Return the seconds of a search of the head's rate and of the training that it ends in, and the search."""
    phase = f'protocol.schedules={{"frozen":[{{"train":"head","epochs":{EPOCHS},"lr":0.0003}}]}}'
    data = {"data": "demo", "protocol": "demo", "trunk": trunk, "size": size, "device": "cpu"}
    grid = {"pretext": "random_init", "downstream": downstream, "schedule": "frozen", "labels": SHARE, "tune": trials}
    session = opened(out, **data, **grid, set=(phase, *settings))
    job, found = session.grid.jobs[0], []
    trunk_record = pretrain(job.pretrain, session)

    def work() -> None:
        found.append(tune(search_of(job, session.config, session.grid.jobs), session))
        finetune(chosen_by(found[0], job), trunk_record, session)

    return seconds(work), found[0]


def epochs(tuning: Tuning) -> int:
    """Return the epochs that the trials and the training after them went through."""
    return sum(len(trial.epochs) for trial in tuning.trials) + EPOCHS


def measure() -> list[Figure]:
    """Return seconds with and without kept features, and their ratio; what both find is equal to the bit."""
    found: list[Figure] = []
    with workplace() as folder:
        for number, (name, case) in enumerate(CASES.items()):
            taken, kept = search(folder / f"kept{number}", *case, TRIALS)
            with ExitStack() as stack:
                stack.enter_context(patch.object(Cache, "_room", lambda _: 0))
                stack.enter_context(patch.object(Cache, "_disk", lambda _: 0))
                few, plain = search(folder / f"plain{number}", *case, MEASURED)
            pairs = zip(kept.trials, plain.trials, strict=False)
            assert all(one.epochs == other.epochs for one, other in pairs), f"{name}: not equal to the bit"
            whole = few * epochs(kept) / epochs(plain)
            found += [
                Figure(f"{name}: {TRIALS} trials, features kept", taken, "s"),
                Figure(f"{name}: computed anew ({MEASURED} trials measured, by the epoch)", whole, "s"),
                ratio(name, whole / taken, 20),
            ]
    return found
