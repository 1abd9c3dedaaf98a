"""A whole grid, tuned, against the same jobs run each for itself: what is pretrained, computed and searched once."""

from __future__ import annotations

from pathlib import Path

from bench.experiment.finetuning import FineTuning, finetune
from bench.experiment.grid import run_grid
from bench.experiment.pretraining import pretrain
from bench.experiment.session import Session
from tests.benchmarks.common import Figure, ratio, seconds, workplace
from tests.benchmarks.step import opened

PRETEXTS = ("random_init", "l1_color", "inpainting", "cgan_color")
DOWNSTREAMS = ("voc_cls", "voc_seg")
SEEDS, TRIALS = 3, 8


def session(folder: Path, pretexts: tuple[str, ...], downstreams: tuple[str, ...], seeds: int, trials: int = 0) -> Session:
    """Return a session of the demo's protocol on the two-phase schedule, with a narrow trunk."""
    data = {"data": "demo", "protocol": "demo", "trunk": "unet:width=8", "size": 32, "device": "cpu"}  # at 32 px, for the time
    grid = {"pretext": pretexts, "downstream": downstreams, "seeds": seeds, "schedule": "two-phase", "tune": trials}
    return opened(folder, **data, **grid, set=("recipe.evaluation_images=16", "recipe.visualize_epochs=[]"))


def alone(folder: Path, pretext: str, downstream: str) -> float:
    """Return the seconds of one job that shares nothing: pretrain, fine-tune, score after every epoch as a trial is."""
    made = session(folder, (pretext,), (downstream,), 1)
    job = made.grid.jobs[0].model_copy(update={"split": "val"})

    def score(tuned: FineTuning, *_: object) -> float:
        tuned.predictions()
        return 0.0

    return seconds(lambda: finetune(job, pretrain(job.pretrain, made), made, score))


def measure() -> list[Figure]:
    """Return seconds of the grid, of its jobs each for itself (one of each cell, times how many), and their ratio."""
    with workplace() as folder:
        alone(folder / "warm", "random_init", "voc_seg")
        each = {
            (pretext, downstream): alone(folder / f"{pretext}-{downstream}", pretext, downstream)
            for pretext in PRETEXTS
            for downstream in DOWNSTREAMS
        }
        whole = session(folder / "all", PRETEXTS, DOWNSTREAMS, SEEDS, TRIALS)
        shared = seconds(lambda: run_grid(whole))
    independent = sum(each.values()) * SEEDS * TRIALS
    return [
        Figure("the grid: 4 pretexts x 2 tasks x 3 seeds, 8 trials", shared, "s"),
        Figure(f"its {len(each) * SEEDS * TRIALS} jobs each for itself (8 measured)", independent, "s"),
        ratio("jobs each for itself against the grid", independent / shared, 5),
    ]
