"""Optimizers as the settings of a recipe or a protocol say."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bench.protocol import Protocol, Recipe


def make_optimizer(settings: Recipe | Protocol, lr: float, *modules: nn.Module) -> torch.optim.Optimizer:
    """Return an optimizer of the modules' parameters, each once, with the base rate `lr`.

    Weights decay where the settings say so, but biases and parameters of one dimension, such as those of norms, do not. LARS
    adapts the rate of the others alone, whatever their decay, as in SimCLR (https://arxiv.org/abs/2002.05709, appendix B.6).
    """
    named = {id(weight): (name, weight) for module in modules for name, weight in module.named_parameters()}
    groups: list[dict[str, Any]] = [{"params": [weight for _, weight in named.values()]}]
    if settings.weight_decay or settings.optimizer == "lars":
        spared = [weight for name, weight in named.values() if weight.ndim <= 1 or name.endswith("bias")]
        decaying = [weight for name, weight in named.values() if weight.ndim > 1 and not name.endswith("bias")]
        # timm's LARS adapts what does not decay only where it is told to.
        adapts = {"always_adapt": True} if settings.optimizer == "lars" else {}
        groups = [{"params": decaying, "weight_decay": settings.weight_decay, **adapts}, {"params": spared, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
    if settings.optimizer == "lars":
        from timm.optim import Lars

        lars: torch.optim.Optimizer = Lars(groups, lr=lr, momentum=settings.momentum)
        return lars
    if settings.optimizer == "sgd":
        sgd = torch.optim.SGD(groups, lr=lr, momentum=settings.momentum, fused=True)
        if settings.momentum:  # torch's fused kernel fails where weights get their first gradients in different steps
            for weight in (weight for group in sgd.param_groups for weight in group["params"]):
                sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        return sgd
    adam = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return adam(groups, lr=lr, betas=(settings.beta1, settings.beta2), weight_decay=0.0, fused=True)
