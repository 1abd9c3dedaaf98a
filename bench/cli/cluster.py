"""`--plan` for a launch: what it costs with its workers, and what would be submitted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.launching import Wanted, launch_of

if TYPE_CHECKING:
    from bench.config import RunConfig
    from bench.experiment.plan import Plan
    from bench.launch.cost import Cost
    from bench.launch.launch import Launch


class LaunchPlan:
    """What a launch of some planned grids costs, and what its engine would submit."""

    def __init__(self, asked: Wanted, config: RunConfig, out: Path, plans: Sequence[Plan]) -> None:
        from bench.launch.cost import planned_cost
        from bench.launch.engines import engine_class
        from bench.launch.planning import planned

        self.launch: Launch | None = launch_of(asked, config, out) if asked.launcher else None
        workers = self.launch.workers if self.launch is not None else asked.launch_workers or 1
        self.cost: Cost = planned_cost([(plan.session, planned(plan.session, plan)) for plan in plans], workers)
        self.submitted = ""
        if self.launch is not None:
            engine = engine_class(self.launch.launcher)()
            engine.check(self.launch)
            self.submitted = engine.preview(self.launch)

    def data(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        launcher = self.launch.launcher if self.launch is not None else None
        return {"launcher": launcher, **self.cost.data(), "submitted": self.submitted}

    def lines(self) -> list[str]:
        """Return the plan in sentences, and what would be submitted word for word."""
        return [*self.cost.lines(), *(["", "what would be submitted:", *self.submitted.splitlines()] if self.submitted else [])]
