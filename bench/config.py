"""What a command asks of a grid, as it was written: the options of `bench run`, on the command line or in a study's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from bench.cli.options import names, numbers, seeds_of
from bench.errors import UsageError
from bench.experiment.grid import Options
from bench.experiment.resolve import Request
from bench.experiment.tuning import Search
from bench.schema import Frozen


def _joined(value: Any) -> Any:
    """Write a list or a number as the option's text: [1, 2] as 1,2; one alone as 1, which is a list of one."""
    if isinstance(value, list):
        return ",".join(map(str, value)) + ("," if len(value) == 1 else "")
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_joined)]


class Asked(Frozen):
    """The options of `bench run` that say what runs and how it is computed; the fields are the options' names."""

    pretext: Text
    downstream: Text
    protocol: str | None = None
    data: str | None = None
    pretrain_data: str | None = None
    trunk: str | None = None
    size: int | None = Field(default=None, ge=8)
    seed: int | None = Field(default=None, ge=0)
    seeds: Text | None = None
    vary: str = "all"
    schedule: Text | None = None
    transfer: Text = "all"
    labels: Text = "1"
    settings: tuple[str, ...] = Field(default=(), alias="set")
    rates: Text = ""
    tune: int = Field(default=0, ge=0, strict=True)
    space: str = ""
    storage: str = ""
    precision: str = "auto"
    compiled: bool = Field(default=False, alias="compile")
    device: str = "auto"
    threads: int | None = Field(default=None, ge=1)
    workers: int | None = Field(default=None, ge=0)
    checkpoint_seconds: float = Field(default=30.0, ge=0, allow_inf_nan=True)
    log: Text = ""

    def request(self) -> Request:
        """Return what is to be run; UsageError for a text that cannot be read."""
        return Request(
            pretexts=names(self.pretext),
            downstreams=names(self.downstream),
            protocol=self.protocol,
            data=self.data,
            pretrain_data=self.pretrain_data,
            trunk=self.trunk,
            size=self.size,
            seeds=seeds_of(self.seed, self.seeds),
            schedules=names(self.schedule or ""),
            transfers=names(self.transfer),
            labels=numbers("--labels", self.labels),
            vary=self.vary,
            rates=numbers("--rates", self.rates),
            settings=self.settings,
        )

    def search(self) -> Search | None:
        """Return how the rates are searched, None where they are not; UsageError for options that contradict each other."""
        if self.rates and self.tune:
            raise UsageError("--rates gives the learning rates and --tune searches them; give one of the two.")
        if (self.space or self.storage) and not self.tune:
            raise UsageError("--space and --storage belong to a search; say how many trials with --tune N.")
        return Search.parse(self.tune, self.space, self.storage) if self.tune else None

    def options(self) -> Options:
        """Return how it is computed."""
        return Options(
            self.device,
            self.threads,
            self.workers,
            self.checkpoint_seconds,
            self.precision,
            self.compiled,
            names(self.log),
        )

    def meaning(self) -> Mapping[str, Any]:
        """Return what is asked of the results: all but how the work is spread over a machine."""
        spread = {"storage", "device", "threads", "workers", "checkpoint_seconds", "log"}
        return self.model_dump(mode="json", exclude=spread, exclude_defaults=True)
