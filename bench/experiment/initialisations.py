"""The rows of a grid that were trained elsewhere: opened, matched with the trunk, and kept for the jobs that load them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench import registry
from bench.config import RunConfig
from bench.errors import DataError, UsageError, unknown
from bench.initialisation import SHOWN, Init, Origin, Weights
from bench.job import PretrainJob
from bench.models import matching, sources
from bench.models.matching import Matched
from bench.models.sources import Source
from bench.models.trunk import TrunkName, make_trunk
from bench.text import Echo


@dataclass(frozen=True)
class Initialisation:
    """Weights from elsewhere that fit the trunk of a grid."""

    label: str
    weights: Weights
    matched: Matched
    origin: Origin
    """What the record says of them."""


def parse(config: RunConfig) -> list[Init]:
    """Return what `--init` says; UsageError for a label that is given twice or that is a pretext task's name."""
    found = [Init.parse(text) for text in config.init]
    labels = [one.label for one in found]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"--init names {label} twice; each row has a label of its own.")
        if label in registry.summaries("pretexts"):
            raise UsageError(f"--init {label}: a pretext task has this name; choose another label.")
    return found


def open_sources(inits: Sequence[Init]) -> list[tuple[Init, Source]]:
    """Return what each source holds, read or fetched once."""
    return [(init, sources.open_source(init)) for init in inits]


def trunk_for(opened: Sequence[tuple[Init, Source]]) -> str:
    """Return the trunk of the first source that tells its architecture, "" when none does."""
    return next((source.trunk for _, source in opened if source.trunk), "")


def initialise(
    config: RunConfig, opened: Sequence[tuple[Init, Source]], trunk: TrunkName, size: int, echo: Echo
) -> list[Initialisation]:
    """Match each source with the trunk, for images of `size` px, and say what was loaded.

    UsageError or DataError for one that does not fit.
    """
    found = []
    for init, source in opened:
        made = make_trunk(str(trunk))
        matched = matching.match(source.tensors, made, trunk, config.match, init.part)
        if not (config.trunk or config.partial or trunk_for(opened)) and matched.share < matching.ENOUGH:
            raise UsageError(
                f"--init {init.label}: {source.said} does not say which network it holds, and it is not {trunk}, the trunk where "
                "none is named; name it, for example by --trunk timm:resnet50,preprocessing=rgb."
            )
        matching.check(matched, source.tensors, made, trunk, f"--init {init.label}: {source.said}", config.partial)
        partial = config.partial and not matching.is_whole(matched, made)
        weights = sources.weights_of(init, source, trunk, config.match, partial)
        for line in matched.lines():
            echo(f"{init.label}: {line}")
        for line in _differences(weights, size):
            echo(f"{init.label}: {line}")
        found.append(Initialisation(init.label, weights, matched, _origin(init, source, matched)))
    return found


def begun_with(label: str, loaded: Sequence[Initialisation]) -> Weights | None:
    """Return the weights of a label, None for no label; UsageError when no `--init` has it."""
    if label and label not in {one.label for one in loaded}:
        raise unknown("label", label, [one.label for one in loaded], " of --init")
    return next((one.weights for one in loaded if one.label == label), None)


def of_record(config: RunConfig, job: PretrainJob, echo: Echo) -> list[Initialisation]:
    """Return the weights that a record's trunk begins with, opened again; DataError when they are others now."""
    if job.weights is None:
        return []
    opened = open_sources(parse(config))
    (found,) = initialise(config, opened, TrunkName.parse(job.trunk), job.size, echo)
    if found.weights.sha256 != job.weights.sha256:
        raise DataError(f"{found.origin.source} has other content than the run was made with: its SHA-256 differs.")
    return [replace(found, weights=job.weights)]


def _origin(init: Init, source: Source, matched: Matched) -> Origin:
    return Origin(
        label=init.label,
        source=source.said,
        supervision=init.supervision or source.supervision,
        brings="all" if matched.decoder else "encoder",
        naming=matched.naming,
        part=matched.part,
        loaded=len(matched.encoder),
        wanted=matched.wanted,
        share=matched.share,
        missing=matched.missing[:SHOWN],
        left_over=matched.left_over[:SHOWN],
        resized=matched.resized[:SHOWN],
    )


def _differences(weights: Weights, size: int) -> list[str]:
    """Return what of the weights' own preprocessing the grid does not do: size and resize are those of its rows."""
    other = [
        *([f"at {weights.size} px (here {size})"] if weights.size and weights.size != size else []),
        *([f"with {weights.interpolation} resizing"] if weights.interpolation not in ("", "bilinear") else []),
    ]
    return [f"trained {' '.join(other)}; size and resize are the protocol's, the same for every row"] if other else []
