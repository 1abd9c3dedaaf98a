"""Weights of others in a trunk: their tensors are matched with the trunk's by name and shape, and copied.

Whatever wraps the names (`module.`, `backbone.`, `encoder_q.`, `state_dict`, ...) is found without a list: for each way of naming
an encoder (`bench.models.names`), every beginning that some names share is tried, and the one under which most parameters match
by name and shape is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from bench.contract import Trunk
from bench.errors import DataError, UsageError
from bench.initialisation import SHOWN, Match
from bench.models import names
from bench.models.fitting import beyond, fitting
from bench.models.trunk import TrunkName

ENOUGH = 0.99
"""The least share of the encoder's parameters that must be loaded."""
COUNTER = "num_batches_tracked"
"""How a batch norm's counter of training batches is called; files of old versions of torch have none."""
KINDS = {"weight", "bias", "running_mean", "running_var"}
"""What the tensors of a norm are called, which have one shape."""
PASSED_OVER = ("student", "encoder_k", "key_encoder", "target", "momentum", "backbone_momentum", "ema")
"""How the names of networks begin that authors keep beside the one they evaluate: where two fit equally, the other one is taken,
and both are named on the screen. Sources: DINO evaluates the teacher, MoCo the query encoder, BYOL the online network."""
PREFERRED = ("state_dict_ema", "model_ema")
"""Averages of a network's weights, which timm takes where a file has both (timm/models/_helpers.py)."""


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
    other_shapes: tuple[str, ...] = ()
    """Tensors that the file has by name, in a shape or type that does not fit; each with both."""
    beyond: tuple[str, ...] = ()
    """Blocks of the file that follow on the encoder's own and have their names and shapes: it is a deeper network's."""
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
        lists = {"missing": self.missing, "of another shape": self.other_shapes, "left over": self.left_over}
        for what, some in (lists | {"blocks of a deeper network": self.beyond, "resized": self.resized}).items():
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
        fits = fitting(own, tensors[theirs], wanted[own], trunk.down)
        assert fits is not None
        encoder[own] = fits.to(wanted[own].dtype).clone(memory_format=torch.contiguous_format)  # the file may change later
        if fits.numel() != tensors[theirs].numel():
            resized.append(own)
    decoder = _decoder(tensors, best.part, trunk)
    parameters = {own: tensor.numel() for own, tensor in trunk.down.named_parameters()}
    loaded = sum(count for own, count in parameters.items() if own in encoder)
    beginning = f"{best.part}." if best.part else ""
    used = {*best.pairs.values(), *(f"{_sibling(best.part)}{own}" for own in decoder)}
    left_over = [full for full in tensors if full.startswith(beginning) and full not in used]
    return Matched(
        encoder=encoder,
        decoder=decoder,
        part=best.part,
        naming=best.naming,
        share=loaded / max(1, sum(parameters.values())),
        wanted=len(wanted),
        missing=tuple(own for own in wanted if own not in encoder and not own.endswith(COUNTER)),
        left_over=tuple(left_over),
        resized=tuple(resized),
        other_shapes=_other_shapes(tensors, wanted, best, beginning, _schemes(wanted, trunk, name)),
        beyond=beyond(tensors, best.pairs.values(), left_over),
        others=tuple(one.part or "(no part)" for one in others),
        caveat=names.caveat(name.encoder, best.naming) if name.family == "timm" else "",
    )


def check(matched: Matched, tensors: Mapping[str, Tensor], trunk: Trunk, name: TrunkName, source: str, partial: bool) -> None:
    """Raise UsageError for weights of other channels than the trunk's, DataError when too little of the encoder was matched."""
    _check_channels(matched, tensors, trunk, name, source)
    if partial and matched.encoder:
        return
    if matched.share >= ENOUGH:
        told = _of_another(matched, trunk)
        if told:
            raise DataError(
                f"{source} does not hold the encoder of {name}: {told}; choose its own trunk, or take what fits by --partial."
            )
        return
    trained = {own for own, _ in trunk.down.named_parameters()}
    missing = [own for own in matched.missing if own in trained]
    order = ""
    if _in_order(tensors, trunk, name):
        order = " Its shapes are those of the encoder in the same order: --match order takes them so."
    raise DataError(
        f"{source} fills {100 * matched.share:.4g} % of the parameters of {name}'s encoder, and {100 * ENOUGH:g} % is the least "
        f"(--partial allows less). Missing: {_first(missing)}. Left over in the file: {_first(matched.left_over)}.{order}"
    )


def is_whole(matched: Matched, trunk: Trunk) -> bool:
    """Tell whether the encoder was loaded from weights of the same network, so that nothing had to be allowed."""
    return matched.share >= ENOUGH and not _of_another(matched, trunk)


def _of_another(matched: Matched, trunk: Trunk) -> str:
    """Return what tells that most of the encoder was loaded from another network; "" when nothing does."""
    first = next((own for own, parameter in trunk.down.named_parameters() if parameter.ndim == 4), "")
    if matched.other_shapes:
        return f"these tensors have other shapes or types: {_first(matched.other_shapes)}"
    if first and first not in matched.encoder:
        return f"it lacks the first convolution, {first}"
    return f"it goes on with {_first(matched.beyond)}, as a deeper network" if matched.beyond else ""


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
        most = max(there.count(".") for there in known) + 1
        for full, tensor in tensors.items():
            words = full.split(".")
            for cut in range(max(0, len(words) - most), len(words)):
                own = known.get(".".join(words[cut:]))
                if own is None or fitting(own, tensor, wanted[own], trunk.down) is None:
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
    """Return how many words of a part are those of networks that are passed over, less those of networks that are preferred."""
    return sum(word.startswith(PASSED_OVER) - (word in PREFERRED) for word in part.split("."))


def _other_shapes(
    tensors: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    best: _Candidate,
    beginning: str,
    schemes: Mapping[str, Mapping[str, str]],
) -> tuple[str, ...]:
    """Return the tensors that have the right name under the best candidate's beginning and do not fit, each with both shapes."""
    found = []
    for there, own in schemes.get(best.naming, {}).items():
        tensor = tensors.get(beginning + there)
        if tensor is not None and own not in best.pairs and not own.endswith(COUNTER):
            shapes = [f"{str(one.dtype).removeprefix('torch.')} {tuple(one.shape)}" for one in (tensor, wanted[own])]
            found.append(f"{own} ({shapes[0]} in the file, {shapes[1]} in the trunk)")
    return tuple(found)


def _sibling(part: str) -> str:
    """Return what stands before the decoder's names where `part` stands before the encoder's."""
    return f"{part.removesuffix('down')}up."


def _decoder(tensors: Mapping[str, Tensor], part: str, trunk: Trunk) -> dict[str, Tensor]:
    """Return the decoder's tensors, all of them or none."""
    if part.rpartition(".")[2] != "down":
        return {}
    wanted = trunk.up.state_dict()
    found = {own: tensors.get(f"{_sibling(part)}{own}") for own in wanted}
    fits = {own: one.clone() for own, one in found.items() if one is not None and one.shape == wanted[own].shape}
    return fits if len(fits) == len(wanted) else {}


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

    def agrees(full: str, own: str, shape: tuple[int, ...]) -> bool:
        tensor = tensors[full]
        kinds = {full.rpartition(".")[2], (own or full).rpartition(".")[2]}
        if len(kinds) > 1 and kinds <= KINDS:  # safetensors lists tensors by name: a bias before its weight
            return False
        if not own:
            return tensor.shape == shape
        return tensor.shape in (shape, wanted[own].shape) and fitting(own, tensor, wanted[own], trunk.down) is not None

    for counters in (True, False):
        ours = [(own, shape) for full, own, shape in order if counters or not full.endswith(COUNTER)]
        theirs = [full for full in tensors if counters or not full.endswith(COUNTER)]
        behind = 1 + max(place for place, (own, _) in enumerate(ours) if own)
        pairs = list(zip(theirs, ours[:behind], strict=False))
        if len(pairs) == behind and all(agrees(full, own, shape) for full, (own, shape) in pairs):
            return {own: full for full, (own, _) in pairs if own}
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
