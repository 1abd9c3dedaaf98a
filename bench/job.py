"""A job says everything that its row depends on, and nothing else; its digest is its id."""

from __future__ import annotations

from typing import Any, Literal

from bench.contract import Protocol, Schedule
from bench.frozen import Frozen

NO_DATA = "none"


class PretrainJob(Frozen):
    """One pretrained trunk. `data` and `split` are fingerprints; both are "none" when nothing is trained."""

    pretext: str
    version: int
    source: str = ""
    recipe: dict[str, Any]
    trunk: str
    size: int
    data: str
    split: str
    seed: int

    @property
    def id(self) -> str:
        """The pretrain id: the pretext's name and twelve hexadecimal digits."""
        return f"{self.pretext}-{self.digest()[:12]}"


class Job(Frozen):
    """One row's run: a pretrained trunk, a downstream task, a protocol, data, and which part is scored."""

    pretrain: PretrainJob
    downstream: str
    version: int
    source: str = ""
    protocol: str
    settings: Protocol
    schedule: Schedule
    size: int
    data: str
    split: str
    part: Literal["test", "val"] = "test"
    seed: int

    @property
    def id(self) -> str:
        """The run id: pretext, downstream task and twelve hexadecimal digits."""
        return f"{self.pretrain.pretext}-{self.downstream}-{self.digest()[:12]}"
