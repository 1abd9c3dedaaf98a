"""Checkpoints of a ResNet-18 as others save them, made by renaming."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

State = dict[str, Tensor]


def behind(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def headless(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def children(state: State) -> State:
    """Return names as lightly's documentation makes a backbone: nn.Sequential of torchvision's children but the last."""
    model = torchvision.models.resnet18()
    model.load_state_dict(state)
    return nn.Sequential(*list(model.children())[:-1]).state_dict()


HEAD = {"0.weight": torch.rand(16, 512), "2.weight": torch.rand(16, 16), "2.bias": torch.rand(16)}
ARGS = argparse.Namespace(arch="resnet18", out_dim=65536, output_dir=Path("/x"))
STYLES: dict[str, tuple[Callable[[State, State], Any], str, str]] = {
    "plain": (lambda a, b: a, "", ""),
    "torchvision": (lambda a, b: {"model": a, "optimizer": {}, "epoch": 1}, "model", ""),
    "timm": (lambda a, b: {"state_dict": a, "arch": "resnet18"}, "state_dict", ""),
    "timm, averaged": (lambda a, b: {"state_dict": b, "state_dict_ema": a, "args": ARGS}, "state_dict_ema", "state_dict"),
    "ConvNeXt's, averaged": (lambda a, b: {"model": b, "model_ema": a, "args": ARGS}, "model_ema", "model"),
    "DataParallel": (lambda a, b: behind("module.", a), "module", ""),
    "lightly": (lambda a, b: behind("backbone.", children(a)) | behind("projection_head.layers.", HEAD), "backbone", ""),
    "lightly, BYOL": (
        lambda a, b: {"state_dict": behind("backbone_momentum.", children(b)) | behind("backbone.", children(a))},
        "state_dict.backbone", "state_dict.backbone_momentum",
    ),
    "solo-learn": (
        lambda a, b: {
            "state_dict": behind("momentum_backbone.", headless(b))
            | behind("backbone.", headless(a)) | behind("projector.", HEAD),
            "hyper_parameters": {"args": ARGS},
        },
        "state_dict.backbone", "state_dict.momentum_backbone",
    ),
    "MoCo v2": (
        lambda a, b: {
            "arch": "resnet18",
            "state_dict": {
                "module.queue": torch.rand(128, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.long),
                **behind("module.encoder_k.", headless(b)), **behind("module.encoder_q.", headless(a)),
                **behind("module.encoder_q.fc.", HEAD), **behind("module.encoder_k.fc.", HEAD),
            },
        },
        "state_dict.module.encoder_q", "state_dict.module.encoder_k",
    ),
    "MoCo v3": (
        lambda a, b: {"state_dict": behind("module.momentum_encoder.", b) | behind("module.base_encoder.", a)},
        "state_dict.module.base_encoder", "state_dict.module.momentum_encoder",
    ),
    "DINO": (
        lambda a, b: {
            "student": behind("module.backbone.", headless(b)) | behind("module.head.mlp.", HEAD),
            "teacher": behind("backbone.", headless(a)) | behind("head.mlp.", HEAD),
            "optimizer": {"state": {0: {"exp_avg": torch.rand(64, 3, 7, 7)}}}, "args": ARGS,
            "dino_loss": {"center": torch.rand(1, 8)},
        },
        "teacher.backbone", "student.module.backbone",
    ),
    "BYOL": (
        lambda a, b: behind("target_network.encoder.", b) | behind("online_network.encoder.", a) | behind("predictor.", HEAD),
        "online_network.encoder", "target_network.encoder",
    ),
    "VISSL": (
        lambda a, b: {
            "classy_state_dict": {"base_model": {"model": {"trunk": behind("_feature_blocks.", headless(a)), "heads": HEAD}}}
        },
        "classy_state_dict.base_model.model.trunk._feature_blocks", "",
    ),
    "mmselfsup": (
        lambda a, b: {
            "meta": {"epoch": 200, "time": "Mon"}, "state_dict": behind("backbone.", headless(a)) | behind("neck.", HEAD)
        },
        "state_dict.backbone", "",
    ),
    "Lightning": (
        lambda a, b: {
            "state_dict": behind("model.backbone.", a), "pytorch-lightning_version": "2.0", "callbacks": {"x": {"best": "p"}}
        },
        "state_dict.model.backbone", "",
    ),
}  # fmt: skip
"""By style: a function of the network that authors evaluate and of another one, and the parts of the file that hold the two."""
