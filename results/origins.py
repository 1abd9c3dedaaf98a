"""What a table says of where trunks are from: of weights from elsewhere, and of what weakened a pretext task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.initialisation import INIT
from bench.record import Record


def notes(records: Sequence[Record]) -> list[str]:
    """Return a note for each row of weights from elsewhere, and one on what their seeds vary."""
    found: dict[str, None] = {}
    given = any(record.pretrain.job.pretext == INIT for record in records)
    for record in records:
        origin, weights = record.pretrain.origin, record.pretrain.job.weights
        if origin is None or weights is None:
            continue
        loaded = f"{origin.loaded:,} of {origin.wanted:,} tensors"
        if weights.partial:
            loaded += f", {100 * origin.share:.3g} % of the encoder's parameters (--partial)"
        if weights.match == "order":
            loaded += ", matched by their order"
        source = origin.source if ":" in origin.source else Path(origin.source).name
        parts = [f"{origin.label}: weights from {source}, SHA-256 {weights.sha256[:12]}; {loaded}"]
        parts.append(f"labels in their training: {origin.supervision}")
        if weights.mean:
            parts.append(f"images normalised by mean {_numbers(weights.mean)} and standard deviation {_numbers(weights.std)}")
        found[f"{'; '.join(parts)}."] = None
        if origin.audit is not None and origin.audit.problem:
            found[f"{origin.label}: the audit warns: {origin.audit.problem}."] = None
    if found and given:
        found["Rows of weights from elsewhere are one network: their seeds vary new parts and the order of data alone."] = None
    return list(found)


def caveats(records: Sequence[Record]) -> list[str]:
    """Return a note for each pretext task that its trunk or recipe weakened, by what the task says."""
    said = {(record.pretext, caveat): None for record in records for caveat in record.pretrain.caveats}
    return [f"{name}: {caveat}." for name, caveat in said]


def parts_of_label(record: Record) -> list[str]:
    """Return what the label of a row of weights from elsewhere says beside their name: labels in their training, and how much."""
    origin, weights = record.pretrain.origin, record.pretrain.job.weights
    if origin is None or weights is None:
        return []
    found = [] if origin.supervision in ("none", "unknown") else [origin.supervision]
    return [*found, f"partial, {100 * origin.share:.3g} % of the encoder"] if weights.partial else found


def _numbers(values: Sequence[float]) -> str:
    return "/".join(f"{value:g}" for value in (values if len(set(values)) > 1 else values[:1]))
