"""Weights of others in a trunk: their tensors are matched with the trunk's by name and shape, and copied.

Whatever wraps the names (`module.`, `backbone.`, `encoder_q.`, `state_dict`, ...) is found without a list: for each way of naming
an encoder (`bench.models.names`), every beginning that some names share is tried, and the one under which most parameters match
by name and shape is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.contract import Trunk
from bench.errors import DataError, UsageError
from bench.initialisation import SHOWN, Match
from bench.models import names
from bench.models.trunk import TrunkName

ENOUGH = 0.99
"""The least share of the encoder's parameters that must be loaded."""
COUNTER = "num_batches_tracked"
"""How a batch norm's counter of training batches is called; files of old versions of torch have none."""
PASSED_OVER = (
    "student",
    "encoder_k",
    "key_encoder",
    "target",
    "momentum",
    "backbone_momentum",
    "model_ema",
    "state_dict_ema",
    "ema",
)
"""How the names of networks begin that authors keep beside the one they evaluate: where two fit equally, the other one is taken,
and both are named on the screen. Sources: DINO evaluates the teacher, MoCo the query encoder, BYOL the online network."""


@dataclass(frozen=True)
class Matched:
    """The tensors that a trunk gets, by its own names, and what was found of the rest."""

    encoder: dict[str, Tensor]
    decoder: dict[str, Tensor]
    """Empty where the weights bring an encoder alone."""
    part: str
    """What stands before the names of the tensors that were loaded."""
    naming: str
    """Whose names they have."""
    share: float
    """The share of the encoder's parameters that was loaded."""
    wanted: int
    """The number of the encoder's tensors."""
    missing: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    """Other parts of the file that match as well."""
    caveat: str = ""
    """Why the features differ from those of the network that the weights were trained in, though names and shapes fit."""

    @property
    def summary(self) -> str:
        """How much was loaded, as one line."""
        where = f" from {self.part!r}" if self.part else ""
        text = f"{len(self.encoder):,} of {self.wanted:,} tensors ({100 * self.share:.4g} % of the encoder's parameters){where}"
        return f"{text}, named as {self.naming}" + (", and the decoder" if self.decoder else "")

    def lines(self) -> list[str]:
        """Return what a user should know of the match."""
        found = [f"loaded {self.summary}"]
        for what, some in (("missing", self.missing), ("left over", self.left_over), ("resized", self.resized)):
            if some:
                found.append(f"{what}: {_first(some)}")
        if self.others:
            found.append(f"{', '.join(self.others)} would fit as well; choose with ,part=NAME behind the source")
        return [*found, self.caveat] if self.caveat else found


@dataclass
class _Candidate:
    """One naming scheme under one beginning."""

    part: str
    naming: str
    pairs: dict[str, str] = field(default_factory=dict)
    """The encoder's name -> the file's name."""
    size: int = 0


def match(tensors: Mapping[str, Tensor], trunk: Trunk, name: TrunkName, how: Match = "name", part: str = "") -> Matched:
    """Return the match of some tensors with a trunk; UsageError when the wanted `part` is not there.

    How much was matched is in `Matched.share`; `check` says when it is too little. By `order`, DataError unless all shapes agree.
    """
    wanted = trunk.down.state_dict()
    if part:
        tensors = {full: tensor for full, tensor in tensors.items() if f".{part}." in f".{full}"}
        if not tensors:
            raise UsageError(f"no tensor of the file is below {part!r}.")
    if how == "order":
        best, *others = [_by_order(tensors, wanted, trunk, name)]
    else:
        best, *others = _best(_candidates(tensors, wanted, trunk, name))
    encoder: dict[str, Tensor] = {}
    resized = []
    for own, theirs in best.pairs.items():
        fitting = _fitting(own, tensors[theirs], wanted[own], trunk.down)
        assert fitting is not None
        encoder[own] = fitting
        if fitting.numel() != tensors[theirs].numel():
            resized.append(own)
    decoder = _decoder(tensors, best.part, trunk)
    parameters = {own: tensor.numel() for own, tensor in trunk.down.named_parameters()}
    loaded = sum(count for own, count in parameters.items() if own in encoder)
    beginning = f"{best.part}." if best.part else ""
    used = {*best.pairs.values(), *(f"{_sibling(best.part)}{own}" for own in decoder)}
    return Matched(
        encoder=encoder,
        decoder=decoder,
        part=best.part,
        naming=best.naming,
        share=loaded / max(1, sum(parameters.values())),
        wanted=len(wanted),
        missing=tuple(own for own in wanted if own not in encoder and not own.endswith(COUNTER)),
        left_over=tuple(full for full in tensors if full.startswith(beginning) and full not in used),
        resized=tuple(resized),
        others=tuple(one.part or "(no part)" for one in others),
        caveat=names.caveat(name.encoder, best.naming) if name.family == "timm" else "",
    )


def check(matched: Matched, tensors: Mapping[str, Tensor], trunk: Trunk, name: TrunkName, source: str, partial: bool) -> None:
    """Raise UsageError for weights of other channels than the trunk's, DataError when too little of the encoder was matched."""
    _check_channels(matched, tensors, trunk, name, source)
    if matched.share >= ENOUGH or (partial and matched.encoder):
        return
    trained = {own for own, _ in trunk.down.named_parameters()}
    missing = [own for own in matched.missing if own in trained]
    order = ""
    if matched.share < ENOUGH and _in_order(tensors, trunk, name):
        order = " Its shapes are those of the encoder in the same order: --match order takes them so."
    raise DataError(
        f"{source} fills {100 * matched.share:.4g} % of the parameters of {name}'s encoder, and {100 * ENOUGH:g} % is the least "
        f"(--partial allows less). Missing: {_first(missing)}. Left over in the file: {_first(matched.left_over)}.{order}"
    )


def copy(matched: Matched, trunk: Trunk) -> None:
    """Copy matched tensors into a trunk."""
    with torch.no_grad():
        for module, found in ((trunk.down, matched.encoder), (trunk.up, matched.decoder)):
            own = module.state_dict()
            for name, tensor in found.items():
                own[name].copy_(tensor)


def load(matched: Matched, trunk: Trunk) -> None:
    """Copy matched tensors into a trunk that is to be fine-tuned.

    Batch norms whose statistics were loaded count as used in training, whatever the file counts: they are not measured anew.
    Those that still have mean 0 and variance 1, as in an untrained network, are measured as everywhere.
    """
    copy(matched, trunk)
    for module, found in ((trunk.down, matched.encoder), (trunk.up, matched.decoder)):
        for path, norm in module.named_modules():
            if isinstance(norm, _BatchNorm) and f"{path}.running_mean" in found and is_trained(norm):
                assert norm.num_batches_tracked is not None
                norm.num_batches_tracked.clamp_(min=1)


def is_trained(norm: _BatchNorm) -> bool:
    """Tell whether a batch norm has statistics that are not those it begins with: mean 0 and variance 1."""
    mean, variance = norm.running_mean, norm.running_var
    return mean is not None and variance is not None and (bool(mean.any()) or not bool((variance == 1).all()))


def _candidates(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], trunk: Trunk, name: TrunkName) -> list[_Candidate]:
    """Return a candidate for every naming scheme and every beginning under which some tensor matches."""
    found: dict[tuple[str, str], _Candidate] = {}
    for naming, known in _schemes(wanted, trunk, name).items():
        for full, tensor in tensors.items():
            words = full.split(".")
            for cut in range(len(words)):
                own = known.get(".".join(words[cut:]))
                if own is None or _fitting(own, tensor, wanted[own], trunk.down) is None:
                    continue
                part = ".".join(words[:cut])
                one = found.setdefault((naming, part), _Candidate(part, naming))
                if own not in one.pairs:
                    one.pairs[own] = full
                    one.size += wanted[own].numel()
    return list(found.values())


def _schemes(wanted: Mapping[str, Tensor], trunk: Trunk, name: TrunkName) -> dict[str, dict[str, str]]:
    if name.family == "unet":
        return {"the bench's U-Net": {own: own for own in wanted}}
    shapes = {own: tuple(tensor.shape) for own, tensor in wanted.items()}
    return names.schemes(name.encoder, shapes, trunk.preprocessing.channels)


def _best(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Return the candidate that fills most of the encoder, and behind it the other parts that fill as much."""
    if not candidates:
        return [_Candidate("", "nothing known")]
    most = max(one.size for one in candidates)
    ties: dict[str, _Candidate] = {}
    for one in sorted(candidates, key=lambda one: one.naming != "timm"):
        if one.size == most:
            ties.setdefault(one.part, one)
    return sorted(ties.values(), key=lambda one: _rank(one.part))


def _rank(part: str) -> int:
    """Return how many words of a part are those of networks that are passed over."""
    return sum(word.startswith(PASSED_OVER) for word in part.split("."))


def _fitting(own: str, tensor: Tensor, wanted: Tensor, down: nn.Module) -> Tensor | None:
    """Return a tensor in the shape that the encoder wants, None when it does not fit.

    Axes of size 1 may be missing or added. Position embeddings and tables of relative positions are resized, as timm does it.
    """
    if tensor.shape == wanted.shape:
        return tensor
    if not tensor.is_floating_point():
        return None
    if [side for side in tensor.shape if side > 1] == [side for side in wanted.shape if side > 1]:
        return tensor.reshape(wanted.shape)
    return _resized(own, tensor, wanted, down)


def _resized(own: str, tensor: Tensor, wanted: Tensor, down: nn.Module) -> Tensor | None:
    from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table

    path, _, last = own.rpartition(".")
    owner: Any = down.get_submodule(path)
    found: Tensor | None = None
    if last == "pos_embed" and tensor.ndim == 3 and tensor.shape[::2] == wanted.shape[::2] and hasattr(owner, "patch_embed"):
        prefix = 0 if getattr(owner, "no_embed_class", False) else int(getattr(owner, "num_prefix_tokens", 0))
        if round((tensor.shape[1] - prefix) ** 0.5) ** 2 == tensor.shape[1] - prefix:
            found = resample_abs_pos_embed(tensor.float(), list(owner.patch_embed.grid_size), num_prefix_tokens=prefix)
    elif last == "relative_position_bias_table" and tensor.ndim == 2 and tensor.shape[1] == wanted.shape[1]:
        found = resize_rel_pos_bias_table(tensor.float(), owner.window_size, tuple(wanted.shape))
    return found


def _sibling(part: str) -> str:
    """Return what stands before the decoder's names where `part` stands before the encoder's."""
    return f"{part.removesuffix('down')}up."


def _decoder(tensors: Mapping[str, Tensor], part: str, trunk: Trunk) -> dict[str, Tensor]:
    """Return the decoder's tensors, all of them or none."""
    if part.rpartition(".")[2] != "down":
        return {}
    wanted = trunk.up.state_dict()
    found = {own: tensors.get(f"{_sibling(part)}{own}") for own in wanted}
    fitting = {own: one for own, one in found.items() if one is not None and one.shape == wanted[own].shape}
    return fitting if len(fitting) == len(wanted) else {}


def _by_order(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], trunk: Trunk, name: TrunkName) -> _Candidate:
    pairs = _in_order(tensors, trunk, name)
    if not pairs:
        raise DataError(
            f"--match order: the file's tensors do not have the shapes of {name}'s encoder in its order, so they do not match."
        )
    return _Candidate(_common(pairs.values()), "others, in the same order", pairs)


def _in_order(tensors: Mapping[str, Tensor], trunk: Trunk, name: TrunkName) -> dict[str, str]:
    """Return the encoder's name -> the file's name where all shapes agree in order, with or without counters of batches."""
    wanted = trunk.down.state_dict()
    order = [(own, own, tuple(tensor.shape)) for own, tensor in wanted.items()]
    if name.family == "timm":  # the file has what stands between and behind what the encoder keeps
        known = _schemes(wanted, trunk, name)["timm"]
        whole = names.plain(name.encoder, trunk.preprocessing.channels)
        order = [(full, known.get(full, ""), shape) for full, shape in whole.items()]
    for counters in (True, False):
        ours = [(own, shape) for full, own, shape in order if counters or not full.endswith(COUNTER)]
        theirs = [(full, tuple(tensor.shape)) for full, tensor in tensors.items() if counters or not full.endswith(COUNTER)]
        behind = 1 + max(place for place, (own, _) in enumerate(ours) if own)
        if [shape for _, shape in ours[:behind]] == [shape for _, shape in theirs[:behind]]:
            return {own: full for (full, _), (own, _) in zip(theirs, ours, strict=False) if own}
    return {}


def _common(full: Iterable[str]) -> str:
    """Return the words with which all names begin."""
    split = [name.split(".")[:-1] for name in full]
    common = []
    for words in zip(*split, strict=False):
        if len(set(words)) > 1:
            break
        common.append(words[0])
    return ".".join(common)


def _check_channels(matched: Matched, tensors: Mapping[str, Tensor], trunk: Trunk, name: TrunkName, source: str) -> None:
    """Raise UsageError when the first convolution is one of colour and the trunk's of lightness, or the other way round."""
    own, ours = next(((own, p) for own, p in trunk.down.named_parameters() if p.ndim == 4), ("", None))
    if ours is None or own in matched.encoder:
        return
    other = {1: 3, 3: 1}[trunk.preprocessing.channels]
    here, there = tuple(ours.shape), (ours.shape[0], other, *ours.shape[2:])
    shapes = [tuple(tensor.shape) for tensor in tensors.values()]
    if there in shapes and shapes.count(here) < sum(tuple(p.shape) == here for p in trunk.down.parameters()):
        told = ("colour (3 channels)", "lightness") if other == 3 else ("lightness (1 channel)", "colour")
        hint = f"--trunk {name.model_copy(update={'preprocessing': 'rgb' if other == 3 else 'l'})}"
        raise UsageError(f"{source} was trained on {told[0]}, and the trunk {name} takes {told[1]}; give {hint}.")


def _first(some: Sequence[str]) -> str:
    if not some:
        return "nothing"
    more = f" and {len(some) - SHOWN:,} more" if len(some) > SHOWN else ""
    return ", ".join(some[:SHOWN]) + more
