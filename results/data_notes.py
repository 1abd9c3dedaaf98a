"""What a table says of its data: which list was scored, what its means leave out, and what the data sets hold beside."""

from __future__ import annotations

from collections.abc import Sequence

from bench.record import Record

FEW = 5
"""The most names that a note lists."""


def notes(records: Sequence[Record]) -> list[str]:
    """Return notes on which list was scored, and on what the data sets hold and the runs did not use."""
    listed = sorted({record.data.scored_list for record in records} - {""})
    made = [f"Scored images: {', '.join(listed)}."] if listed else []
    made += _undefined(records)
    found: dict[str, dict[str, int]] = {}
    for record in records:
        for data in filter(None, (record.data, record.pretrain.data)):
            found[data.name] = {**found.get(data.name, {}), **data.unused}
    for name, unused in found.items():
        if unused:
            made.append(f"{name}: {'; '.join(f'{reason}: {number:,}' for reason, number in unused.items())}.")
    return made


def _undefined(records: Sequence[Record]) -> list[str]:
    """Return a note for each main metric whose mean leaves classes out, since no scored image can judge them."""
    found: dict[tuple[str, str], set[str]] = {}
    for record in records:
        main = record.metric_ids[0]
        absent = {name for name, value in record.per_class.get(main, {}).items() if value is None}
        if absent:
            found.setdefault((record.title, main), set()).update(absent)
    made = []
    for (title, main), names in found.items():
        some = ", ".join(sorted(names)[:FEW]) + (", ..." if len(names) > FEW else "")
        made.append(f"{title}: {main} is not defined for {len(names)} classes ({some}) here; its mean leaves them out.")
    return made
