"""A teacher: a network whose weights follow those of a student by an exponential moving average."""

from __future__ import annotations

import copy
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from bench.contract import Trunk


class Teacher(nn.Module):
    """A copy of a student network that gets no gradients (Tarvainen and Valpola 2017, https://arxiv.org/abs/1703.01780).

    A pretext task calls `follow` after its last yield, when the student's weights have been updated. The copy is part of the
    task's `state_dict`, so a resumed run has it to the bit. The student is the caller's submodule, not this one's.
    """

    by_image: ClassVar[tuple[str, ...]] = ("forward", "encode")

    def __init__(self, student: nn.Module, without: str = "") -> None:
        """`without` names a submodule that is not copied: `up`, where a trunk's decoder is not needed."""
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        if without:
            self.network.set_submodule(without, nn.Identity())

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the teacher's output, without gradients."""
        with torch.no_grad():
            outputs: Tensor = self.network(inputs)
        return outputs

    def encode(self, inputs: Tensor) -> list[Tensor]:
        """Return the features of a teacher that is a trunk, without gradients."""
        with torch.no_grad():
            return cast(Trunk, self.network).encode(inputs)

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """Set each weight to `momentum` x its own value + (1 - `momentum`) x the student's; 0 copies, 1 changes nothing.

        Buffers, such as the statistics of batch norms, are copied; in MoCo's released code the teacher measures its own.
        """
        theirs = dict(student.named_parameters())
        mine = dict(self.network.named_parameters())
        torch._foreach_lerp_(list(mine.values()), [theirs[name].detach() for name in mine], 1 - momentum)
        buffers = dict(student.named_buffers())
        for name, own in self.network.named_buffers():
            own.copy_(buffers[name])
