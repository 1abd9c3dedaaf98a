"""A trunk as a folder that others open: timm by `local-dir:`, this program by `load_trunk` and `--init`.

    model.safetensors     the encoder in timm's names, or the whole U-Net
    decoder.safetensors   the decoder of a trunk on a timm encoder
    config.json           what timm needs to make the encoder, and in `pretext_bench` what this program needs to make the trunk
    README.md             a model card

timm's plain network has layers behind those that a trunk keeps. They are written too, since timm asks for them, and are random.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.contract import Preprocessing, Trunk
from bench.errors import DataError, UsageError
from bench.models import matching, names
from bench.models.sources import CONFIG_FILE, DECODER_FILE, OURS, open_folder
from bench.models.trunk import TrunkName, make_trunk
from bench.storage import files

ENCODER_FILE, HEAD_FILE = "model.safetensors", "head.safetensors"
FILLED = 0
"""The seed of the random layers that only timm's plain network has."""


def write(
    folder: Path, trunk: Trunk, name: str, size: int, facts: Mapping[str, Any], head: nn.Module | None = None
) -> tuple[str, ...]:
    """Write a trunk of a canonical name, trained on images of `size` px, into a folder that exists, and the head on it, if any.

    `facts` are added to the `pretext_bench` part of config.json. Return the names of tensors that are random because only timm's
    plain network has them.
    """
    parsed, own = TrunkName.parse(name), trunk.preprocessing
    colour = own.name == "rgb"
    mean, std = (own.mean.flatten().tolist(), own.std.flatten().tolist()) if colour else ([], [])
    mean, std = [round(value, 7) for value in mean], [round(value, 7) for value in std]
    ours: dict[str, Any] = {**facts, "trunk": name, "preprocessing": own.name, "size": size, "mean": mean, "std": std}
    if parsed.family == "unet":
        _save(folder / ENCODER_FILE, trunk.state_dict())
        filled: tuple[str, ...] = ()
        config: dict[str, Any] = {"architecture": "unet"}
    else:
        state, filled, args = _plain_state(trunk, parsed)
        _save(folder / ENCODER_FILE, state)
        _save(folder / DECODER_FILE, trunk.up.state_dict())
        cfg = {
            "tag": str(facts.get("label", "")), "input_size": [own.channels, size, size], "fixed_input_size": False,
            "interpolation": "bilinear", "crop_pct": 1.0, "num_classes": 0, "mean": mean or [0.5], "std": std or [0.5],
            "license": "other",
        }  # fmt: skip
        config = {"architecture": parsed.encoder, "num_classes": 0, "pretrained_cfg": cfg, "model_args": args}
    if head is not None:
        _save(folder / HEAD_FILE, head.state_dict())
    ours["sha256"] = {path.name: files.sha256(path) for path in sorted(folder.glob("*.safetensors"))}
    (folder / CONFIG_FILE).write_text(json.dumps({**config, OURS: ours}, indent=2, sort_keys=True) + "\n")
    return filled


def load_trunk(folder: Path | str) -> Trunk:
    """Return the trunk in an exported folder, in eval mode on the CPU, with its preprocessing.

    UsageError for a folder that `bench export` did not write; DataError when its tensors are not those of its trunk.
    """
    source = open_folder(Path(folder))
    if not source.ours:
        raise UsageError(f"{folder} was not written by bench export: its {CONFIG_FILE} has no part {OURS}.")
    ours = source.ours
    trunk = make_trunk(str(ours["trunk"]))
    trunk.preprocessing = Preprocessing(ours["preprocessing"], ours["mean"], ours["std"])
    matched = matching.match(source.tensors, trunk, TrunkName.parse(str(ours["trunk"])))
    if matched.missing or not matched.decoder:
        lacking = ", ".join(matched.missing[:5]) or "its decoder"
        raise DataError(f"{folder} does not hold the trunk {ours['trunk']}: it lacks {lacking}.")
    matching.copy(matched, trunk)
    trunk.trained_at = int(ours["size"])
    return trunk.eval()


def _plain_state(trunk: Trunk, name: TrunkName) -> tuple[dict[str, Tensor], tuple[str, ...], dict[str, Any]]:
    """Return the state of timm's plain network without classifier, what of it is random, and timm's arguments that make it."""
    import timm

    args: dict[str, Any] = {"in_chans": trunk.preprocessing.channels}
    if name.img_size:
        args["img_size"] = name.img_size
    kept = trunk.down.state_dict()
    shapes = {own: tuple(tensor.shape) for own, tensor in kept.items()}
    of_plain = names.schemes(name.encoder, shapes, trunk.preprocessing.channels)["timm"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(FILLED)
        plain = timm.create_model(name.encoder, num_classes=0, **args)
    state = plain.state_dict()
    filled = tuple(full for full in state if full not in of_plain)
    return {full: kept[of_plain[full]] if full in of_plain else tensor for full, tensor in state.items()}, filled, args


def _save(path: Path, state: Mapping[str, Tensor]) -> None:
    ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    save_file(ready, str(path), metadata={"format": "pt"})
