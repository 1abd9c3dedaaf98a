"""A whole grid, tuned, against the same jobs run each for itself: what is pretrained, looked at and searched once."""

from __future__ import annotations

from pathlib import Path

from bench.experiment import grid
from bench.experiment.finetuning import finetune
from bench.experiment.pretraining import pretrain
from bench.experiment.resolve import Request
from bench.experiment.tuning import Search
from tests.benchmarks.common import Figure, ratio, seconds, workplace
from tests.benchmarks.step import Silent

PRETEXTS = ("random_init", "l1_color", "inpainting", "cgan_color")
DOWNSTREAMS = ("voc_cls", "voc_seg")
SEEDS, TRIALS = 3, 8


def request(pretexts: tuple[str, ...], downstreams: tuple[str, ...], seeds: int) -> Request:
    """Return a request of the demo's protocol on the two-phase schedule, with a narrow trunk."""
    trunk, settings = "unet:width=8", ("recipe.evaluation_images=16", "recipe.images=[]")  # at 32 px, for the time
    return Request(
        pretexts, downstreams, "demo", "demo", trunk=trunk, size=32, seeds=tuple(range(seeds)), schedules=("two-phase",),
        settings=settings,
    )  # fmt: skip


def alone(folder: Path, pretext: str, downstream: str) -> float:
    """Return the seconds of one job that shares nothing: pretrain, fine-tune, score after every epoch as a trial is."""
    screen = Silent()
    session = grid.open_session(request((pretext,), (downstream,), 1), grid.Options("cpu"), folder, screen)  # type: ignore[arg-type]
    job = session.grid.jobs[0].model_copy(update={"part": "val"})

    def score(tuned: object, *_: object) -> float:
        tuned.predictions(session.machine)  # type: ignore[attr-defined]
        return 0.0

    return seconds(lambda: finetune(job, pretrain(job.pretrain, session), session, score))


def measure() -> list[Figure]:
    """Return seconds of the grid, of its jobs each for itself (one of each cell, times how many), and their ratio."""
    with workplace() as folder:
        alone(folder / "warm", "random_init", "voc_seg")
        each = {
            (pretext, downstream): alone(folder / f"{pretext}-{downstream}", pretext, downstream)
            for pretext in PRETEXTS
            for downstream in DOWNSTREAMS
        }
        screen = Silent()
        session = grid.open_session(request(PRETEXTS, DOWNSTREAMS, SEEDS), grid.Options("cpu"), folder / "all", screen)  # type: ignore[arg-type]
        shared = seconds(lambda: grid.run_grid(session, screen, Search.parse(TRIALS)))  # type: ignore[arg-type]
    independent = sum(each.values()) * SEEDS * TRIALS
    return [
        Figure("the grid: 4 pretexts x 2 tasks x 3 seeds, 8 trials", shared, "s"),
        Figure(f"its {len(each) * SEEDS * TRIALS} jobs each for itself (8 measured)", independent, "s"),
        ratio("jobs each for itself against the grid", independent / shared, 5),
    ]
