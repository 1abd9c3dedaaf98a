"""Where weights come from: a file, a folder as timm and `bench export` write it, timm's own weights, or a model hub's."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.errors import DataError, MachineError, UsageError, out_of_memory, unknown
from bench.initialisation import HUBS, Init, Weights, usual_ones
from bench.models import weights_file
from bench.models.trunk import TrunkName
from bench.storage import files, offline

ENCODER_FILES = ("model.safetensors", "pytorch_model.bin")
DECODER_FILE, CONFIG_FILE, OURS = "decoder.safetensors", "config.json", "pretext_bench"
"""What `bench export` writes beside the encoder, and the part of config.json that is its own."""
UNLABELLED = r"dino|mae|ijepa|lvd142m|lvd1689m|sat493m|seer|fb_ssl_yfcc|mim_"
"""Tags of weights that were trained on images without their labels. Of `mim_`, the features learned are those of EVA-CLIP."""
LABELS: tuple[tuple[str, str], ...] = (
    (r"in2[12]k|inw21k|in12k", "ImageNet-22k labels"), (r"in1k|imagenet$", "ImageNet-1k labels"), ("sa1b", "masks of SA-1B"),
)  # fmt: skip
WEB = (
    r"wsl_ig|swag|openai|laion|datacomp|clip|dfn|merged2b|webli|cc12m|yfcc15m|bamboo|mim_|m30m|m38m|eupe|"
    r"^(indomain_)?pt$|apple_pt|radio|pali|qwen|gemma|deepseek|florence|ogvl|fb_tiling"
)
"""Tags of weights that labels, texts or networks trained on texts of the web went into."""


def supervision_of(tag: str) -> str:
    """Return which labels a tag of timm's weights says were used anywhere in their training: none, a text, or unknown.

    Sources: timm's model cards and the papers that they name.

    >>> supervision_of("fcmae_ft_in22k_in1k"), supervision_of("fcmae"), supervision_of("tv_in1k")
    ('ImageNet-22k labels and ImageNet-1k labels', 'none', 'ImageNet-1k labels')
    """
    first, *tuned = re.split(r"(?:^|_)ft_", tag)
    unlabelled = re.search(UNLABELLED, first) is not None
    labelled = tuned if unlabelled else [first, *tuned]
    found = [told for pattern, told in LABELS if any(re.search(pattern, part) for part in labelled)]
    if re.search(WEB, tag):
        found.append("labels or texts of the web")
    return " and ".join(found) or ("none" if unlabelled else "unknown")


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
        return supervision_of(str(self.config.get("tag") or ""))


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
    if trunk.preprocessing != "rgb":
        if init.mean:
            raise UsageError(f"--init {init.label}: the trunk {trunk} takes lightness, which has no mean and std to choose.")
        mean = std = ()
    elif not mean or not std:
        raise UsageError(
            f"--init {init.label}: the file does not say how its images were normalised, and a wrong guess costs many points; "
            f"give it behind the source: {usual_ones()}, or mean=R/G/B,std=R/G/B in shares of 1."
        )
    try:
        size = source.config.get("input_size") or (0,)
        found = Weights(
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
    except (TypeError, ValueError, LookupError) as error:
        raise DataError(f"{source.said}: mean, std or size in its {CONFIG_FILE} are not numbers.") from error
    three = 3 if trunk.preprocessing == "rgb" else 0
    right = len(found.mean) == len(found.std) == three and all(math.isfinite(one) for one in found.mean)
    if not right or not all(0 < one < math.inf for one in found.std):
        raise DataError(
            f"{source.said}: mean and std are three numbers, of std above 0, but they are {found.mean} and {found.std}."
        )
    return found


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
        with _weights_only():
            model: Any = timm.create_model(name, pretrained=True)
    except Exception as error:  # what timm, the hub's client and the network raise has no common base
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        if type(error).__name__ == "UnpicklingError" or "weights_only" in reason:
            raise DataError(
                f"the weights {init.source} could run a program when they are read, and are refused: {reason}."
            ) from error
        if offline.is_forbidden():
            reason = f"--offline ({offline.VARIABLE}) forbids the network, and they are not in the cache"
        raise MachineError(
            f"the weights {init.source} could not be fetched ({reason}); timm keeps them in its cache once a command with the "
            "network has fetched them."
        ) from error
    config, state = model.pretrained_cfg, model.state_dict()
    known = init.kind == "timm" and config.get("tag")
    said = f"timm:{architecture}.{config['tag']}" if known else init.source
    return Source(state, weights_file.digest(state), said, config, {}, str(config.get("architecture") or architecture))


@contextmanager
def _weights_only() -> Iterator[None]:
    """Let torch execute nothing of a file inside the block, also where an older timm asks it to."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
