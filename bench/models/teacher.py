"""A teacher: a network whose weights follow those of a student by an exponential moving average."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Teacher(nn.Module):
    """A copy of a student network that gets no gradients (Tarvainen and Valpola 2017, https://arxiv.org/abs/1703.01780).

    A pretext task calls `follow` after its last yield, when the student's weights have been updated. The copy is part of the
    task's `state_dict`, so a resumed run has it to the bit. The student is the caller's submodule, not this one's.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the teacher's output, without gradients."""
        with torch.no_grad():
            outputs: Tensor = self.network(inputs)
        return outputs

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """Set each weight to `momentum` x its own value + (1 - `momentum`) x the student's; 0 copies, 1 changes nothing.

        Buffers, such as the statistics of batch norms, are copied; in MoCo's released code the teacher measures its own.
        """
        mine: list[Tensor] = list(self.network.parameters())
        torch._foreach_lerp_(mine, [weight.detach() for weight in student.parameters()], 1 - momentum)
        for own, other in zip(self.network.buffers(), student.buffers(), strict=True):
            own.copy_(other)
