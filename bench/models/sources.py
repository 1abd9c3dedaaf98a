"""Where weights come from: a file, a folder as timm and `bench export` write it, timm's own weights, or a model hub's."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.errors import DataError, MachineError, UsageError, out_of_memory, unknown
from bench.initialisation import HUBS, Init, Weights, usual_ones
from bench.models import weights_file
from bench.models.trunk import TrunkName
from bench.storage import files

ENCODER_FILES = ("model.safetensors", "pytorch_model.bin")
DECODER_FILE, CONFIG_FILE, OURS = "decoder.safetensors", "config.json", "pretext_bench"
"""What `bench export` writes beside the encoder, and the part of config.json that is its own."""
SUPERVISION: tuple[tuple[str, str], ...] = (
    (r"ft_in\d+k|in\d+k_ft", "ImageNet labels"), (r"dino|mae|ijepa|jepa|fcmae|lvd142m|lvd1689m|sat493m|dinov3", "none"),
    (r"swsl|ssl_yfcc|openai|laion|datacomp|metaclip|webli|clip|dfn|merged2b|siglip", "labels or texts of the web"),
    (r"in1k|imagenet$", "ImageNet-1k labels"), (r"in2[12]k|in12k", "ImageNet-22k labels"), (r"jft", "JFT labels"),
)  # fmt: skip
"""What the tags of timm's weights say of the labels in their training; the first that fits. Source: timm's model cards."""


@dataclass(frozen=True)
class Source:
    """What a source holds: tensors by name, a digest of its content, and what it says of itself."""

    tensors: Mapping[str, Tensor]
    sha256: str
    said: str
    """The source, with the tag that was chosen where none was named."""
    config: Mapping[str, Any]
    """timm's `pretrained_cfg`, as far as there is one."""
    ours: Mapping[str, Any]
    """What `bench export` wrote of the trunk."""
    architecture: str = ""

    @property
    def trunk(self) -> str:
        """The name of a trunk for these weights, "" where the source does not tell."""
        if self.ours.get("trunk"):
            return str(self.ours["trunk"])
        return f"timm:{self.architecture},preprocessing=rgb" if self.architecture else ""

    @property
    def supervision(self) -> str:
        """Which labels were used anywhere in the weights' training: none, a text, or unknown."""
        if self.ours.get("supervision"):
            return str(self.ours["supervision"])
        tag = str(self.config.get("tag", ""))
        return next((told for pattern, told in SUPERVISION if tag and re.search(pattern, tag)), "unknown")


def open_source(init: Init) -> Source:
    """Return what a source holds; UsageError where it does not exist, DataError where it is damaged, MachineError offline."""
    if init.kind in ("timm", "hf_hub", "hf-hub"):
        return _from_timm(init)
    path = Path(init.source.partition(":")[2] if init.kind else init.source).expanduser()
    if path.is_dir():
        return open_folder(path)
    if init.kind:
        raise UsageError(f"--init {init.label}: {path} is no folder; local-dir: takes one with config.json and weights.")
    if not path.exists() and ":" in init.source and "/" not in init.source.partition(":")[0]:
        raise UsageError(f"--init {init.label}: {init.source} is no file; a source begins with {', '.join(HUBS)} or is a file.")
    return Source(weights_file.read(path), files.sha256(path), str(path), {}, {})


def weights_of(init: Init, source: Source, trunk: TrunkName, match: Any, partial: bool) -> Weights:
    """Return what a row depends on of a source, preprocessing included; UsageError where it is not known or does not fit."""
    ours = source.ours
    if ours and ours.get("preprocessing") != trunk.preprocessing:
        raise UsageError(
            f"--init {init.label}: these weights take {ours.get('preprocessing')}, and the trunk {trunk} takes "
            f"{trunk.preprocessing}; give --trunk {ours.get('trunk')}."
        )
    mean = init.mean or ours.get("mean") or source.config.get("mean")
    std = init.std or ours.get("std") or source.config.get("std")
    if trunk.preprocessing == "l":
        if init.mean:
            raise UsageError(f"--init {init.label}: the trunk {trunk} takes lightness, which has no mean and std to choose.")
        mean = std = ()
    elif not mean or not std or len(mean) != 3:
        raise UsageError(
            f"--init {init.label}: the file does not say how its images were normalised, and a wrong guess costs many points; "
            f"give it behind the source: {usual_ones()}, or mean=R/G/B,std=R/G/B in shares of 1."
        )
    size = source.config.get("input_size") or (0,)
    return Weights(
        sha256=source.sha256,
        preprocessing=trunk.preprocessing,
        mean=tuple(mean or ()),
        std=tuple(std or ()),
        interpolation=init.interpolation or str(ours.get("interpolation") or source.config.get("interpolation") or ""),
        size=init.size or int(ours.get("size") or size[-1]),
        part=init.part,
        match=match,
        partial=partial,
    )


def open_folder(folder: Path) -> Source:
    """Return what a folder holds that `bench export` wrote, or that timm opens by `local-dir:`; errors as `open_source`."""
    path = next((folder / name for name in ENCODER_FILES if (folder / name).is_file()), None)
    if path is None:
        raise UsageError(f"{folder} holds none of {', '.join(ENCODER_FILES)}.")
    config: dict[str, Any] = {}
    if (folder / CONFIG_FILE).is_file():
        try:
            config = json.loads((folder / CONFIG_FILE).read_text())
            config["pretrained_cfg"] = dict(config.get("pretrained_cfg") or {})
            config[OURS] = dict(config.get(OURS) or {})
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{folder / CONFIG_FILE} is damaged: {error}.") from error
    for name, recorded in dict(config.get(OURS, {}).get("sha256") or {}).items():
        if not (folder / name).is_file() or files.sha256(folder / name) != recorded:
            raise DataError(f"{folder / name} is damaged: its SHA-256 is not the one in {CONFIG_FILE}.")
    tensors, digest = weights_file.read(path), files.sha256(path)
    decoder = folder / DECODER_FILE
    if decoder.is_file():
        tensors = {f"down.{name}": tensor for name, tensor in tensors.items()}
        tensors |= {f"up.{name}": tensor for name, tensor in weights_file.read(decoder).items()}
        digest = hashlib.sha256(f"{digest} {files.sha256(decoder)}".encode()).hexdigest()
    architecture = str(config.get("architecture", ""))
    return Source(tensors, digest, str(folder), config.get("pretrained_cfg", {}), config.get(OURS, {}), architecture)


def _from_timm(init: Init) -> Source:
    import timm

    name = init.source.partition(":")[2] if init.kind == "timm" else init.source.replace("hf_hub:", "hf-hub:", 1)
    architecture = name.partition(".")[0]
    if init.kind == "timm" and not timm.is_model(architecture):
        raise unknown("timm encoder", name, timm.list_models())
    if init.kind == "timm" and name not in (*timm.list_pretrained(f"{architecture}.*"), architecture):
        raise UsageError(f"timm has no weights {name}; it has {', '.join(timm.list_pretrained(f'{architecture}.*')) or 'none'}.")
    try:
        model: Any = timm.create_model(name, pretrained=True)
    except Exception as error:  # what timm, the hub's client and the network raise has no common base
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise MachineError(
            f"the weights {init.source} could not be fetched ({reason}); timm keeps them in its cache once a command with the "
            "network has fetched them."
        ) from error
    config, state = model.pretrained_cfg, model.state_dict()
    known = init.kind == "timm" and config.get("tag")
    said = f"timm:{architecture}.{config['tag']}" if known else init.source
    return Source(state, weights_file.digest(state), said, config, {}, str(config.get("architecture") or architecture))
