"""L-BFGS for many convex problems at once, whose values and gradients come from one batched product."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MEMORY = 10
"""How many steps are remembered."""
HALVINGS = 10
"""How often a step is halved at most; a problem that then is no better has reached what its precision allows, and ends."""
SUFFICIENT = 1e-4
"""The share of the decrease that the gradient predicts which a step must reach (Armijo's rule)."""
FEWER = 0.75
"""Problems that have ended are left out once at most this share of those computed is left."""

Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Values (A,) and gradients (A, M) of some problems at their points (A, M), given the problems' numbers (A,)."""


@torch.no_grad()
def minimise(evaluate: Evaluate, start: Tensor, inverse: Tensor, tolerance: float, iterations: int = 200) -> Tensor:
    """Return the minimisers (G, M) of G smooth convex problems.

    `inverse` (G, M) is about the inverse of each Hessian's diagonal. A problem ends when the decrease that its gradient still
    predicts, g' H g / 2 with the gradient g and H of `inverse`, is at most `tolerance` times its value, or when no step makes it
    better; problems do not influence each other. Source: Nocedal and Wright
    2006, algorithms 7.4 and 3.1.
    """
    found, numbers = start.clone(), torch.arange(len(start), device=start.device)
    points, history = start.clone(), _History()
    values, gradients = evaluate(points, numbers)
    ended = torch.zeros_like(values, dtype=torch.bool)
    for _ in range(iterations):
        left = (gradients * inverse * gradients).sum(dim=1) / 2
        active = (left > tolerance * values.abs().clamp(min=1e-12)) & ~ended
        count = int(active.sum())
        if not count:
            break
        if count <= FEWER * len(numbers):
            found[numbers] = points
            numbers, points, values, gradients, inverse = (some[active] for some in (numbers, points, values, gradients, inverse))
            history.keep(active)
            ended, active = ended[active], active[active]
        directions = -history.product(gradients, inverse)
        uphill = (directions * gradients).sum(dim=1) >= 0  # what rounding may leave: begin anew from the diagonal
        directions = torch.where(uphill[:, None], -inverse * gradients, directions) * active[:, None]
        slopes = (directions * gradients).sum(dim=1)
        lengths = torch.ones_like(slopes)
        for _ in range(HALVINGS):
            tried = points + lengths[:, None] * directions
            new_values, new_gradients = evaluate(tried, numbers)
            failed = ~(new_values <= values + SUFFICIENT * lengths * slopes + 1e-9 * values.abs())
            if not failed.any():
                break
            lengths = torch.where(failed, lengths / 2, lengths)
        kept, ended = ~failed[:, None], ended | failed
        history.add(torch.where(kept, tried - points, 0), torch.where(kept, new_gradients - gradients, 0))
        points = torch.where(kept, tried, points)
        values, gradients = torch.where(failed, values, new_values), torch.where(kept, new_gradients, gradients)
    found[numbers] = points
    return found


class _History:
    """The last steps of the problems and how their gradients changed, (A, M) each."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []
        self.changes: list[Tensor] = []

    def add(self, step: Tensor, change: Tensor) -> None:
        self.steps, self.changes = [*self.steps[-MEMORY + 1 :], step], [*self.changes[-MEMORY + 1 :], change]

    def keep(self, active: Tensor) -> None:
        """Forget the problems that have ended."""
        self.steps, self.changes = ([some[active] for some in each] for each in (self.steps, self.changes))

    def product(self, gradients: Tensor, inverse: Tensor) -> Tensor:
        """Return the product of the approximate inverse Hessian and gradients (A, M); a step without curvature is left out."""
        found = gradients.clone()
        pairs = list(zip(self.steps, self.changes, strict=True))
        curvatures = [(step * change).sum(dim=1, keepdim=True) for step, change in pairs]
        weights = [torch.where(curvature > 0, 1 / curvature.clamp(min=1e-30), 0) for curvature in curvatures]
        first: list[Tensor] = []
        for (step, change), weight in zip(reversed(pairs), reversed(weights), strict=True):
            first.append(weight * (step * found).sum(dim=1, keepdim=True))
            found -= first[-1] * change
        found *= inverse
        for (step, change), weight in zip(pairs, weights, strict=True):
            found += step * (first.pop() - weight * (change * found).sum(dim=1, keepdim=True))
        return found
