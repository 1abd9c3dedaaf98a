"""What the protocols of several tasks share: the three schedules, the settings of the authors' code, the small protocols."""

from __future__ import annotations

from typing import Any

from bench.contract import Phase, Schedule

Stretch = tuple[int, float]
"""Epochs and learning rate."""


def schedules(one_phase: Stretch, head: Stretch, everything: Stretch, frozen: Stretch) -> dict[Schedule, tuple[Phase, ...]]:
    """Return the three schedules by name, from the epochs and the learning rate of each phase.

    one-phase trains all at once; two-phase trains the `head` on a frozen trunk, then `everything`; frozen trains the head only.
    """

    def phase(train: str, stretch: Stretch) -> Phase:
        return Phase.model_validate({"train": train, "epochs": stretch[0], "lr": stretch[1]})

    return {
        "one-phase": (phase("all", one_phase),),
        "two-phase": (phase("head", head), phase("all", everything)),
        "frozen": (phase("head", frozen),),
    }


AUTHORS_CODE: dict[str, Any] = {
    "interpolation": "nearest",
    "statistics": "batch",
    "evaluate_one_by_one": True,
}
"""The settings in which the released notebooks differ from the paper's text."""

SMALL: dict[str, Any] = {
    "size": 64,
    "trunk": "unet:width=16",
    "split_scheme": "official",
    "fit": ("train", "val"),
    "resize": "squash",
}
"""The settings of small and quick protocols: 64 px, a narrow trunk, the data set's own split lists."""
DEMO_SUMMARY = "small and quick, for the embedded synthetic data and for first looks"
