"""How a protocol that was changed is shown: under a short name, and in one line that says what was changed.

A record holds its protocol's label in full, for example `small+batch_size=8`, with values as JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from bench.record import Record
from bench.text import plain

SHORT = 32
"""The most characters of a label that is its own short name."""


def named(label: str) -> tuple[str, list[str]]:
    """Split a protocol's label into its name and the changes to it.

    >>> named('small+batch_size=8+schedules={"frozen":[]}')
    ('small', ['batch_size=8', 'schedules={"frozen":[]}'])
    """
    name, *changes = re.split(r"\+(?=[a-z_]+=)", label)
    return name, changes


def short(label: str) -> str:
    """Return a protocol's label, or where it is long or holds JSON its name with six digits that tell its changes from others.

    >>> short("small+batch_size=8"), short('small+schedules={"frozen":[]}')
    ('small+batch_size=8', 'small+008700')
    """
    name, changes = named(label)
    if not changes or (len(label) <= SHORT and not re.search(r'["{}\[\]]', label)):
        return label
    return f"{name}+{hashlib.sha256(label.encode()).hexdigest()[:6]}"


def explanation(label: str) -> str:
    """Return one line that says what a short name stands for; "" where the short name is the label itself.

    >>> explanation('small+schedules={"two-phase":[{"epochs":3,"lr":0.002,"train":"head"},{"epochs":5,"lr":0.01,"train":"all"}]}')
    'small+031f65 is small with two-phase: head 3 epochs at 0.002, all 5 epochs at 0.01'
    """
    name, changes = named(label)
    return "" if short(label) == label else f"{short(label)} is {name} with {'; '.join(map(readable, changes))}"


def explanations(labels: Iterable[str]) -> list[str]:
    """Return the line of each label that needs one, in order of appearance."""
    return [text for label in dict.fromkeys(labels) if (text := explanation(label))]


def of_board(records: Sequence[Record]) -> str:
    """Return the short name of a board's protocol; where tasks' protocols were changed apart, its name with what each adds."""
    trained = [record for record in records if record.job.probe is None]  # what probes change is part of it
    several = len({record.data.name for record in records}) > 1
    tasks = {
        (one.downstream, one.data.name): (f"{one.title} on {one.data.name}" if several else one.title, one.job.protocol)
        for one in trained or records
    }
    names = {short(label) for _, label in tasks.values()}
    if len(names) == 1:
        return names.pop()
    name = named(records[0].job.protocol)[0]
    changed = ", ".join(f"{title} {short(label).removeprefix(name)}" for title, label in tasks.values() if named(label)[1])
    return f"{name} ({changed})"


def readable(change: str) -> str:
    """Return a change of a setting, as in a label or in --set, without JSON.

    >>> readable('voc_seg.fit=["train","val"]'), readable("batch_size=8")
    ('voc_seg.fit train, val', 'batch_size 8')
    """
    name, _, text = change.partition("=")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    said = said_of(name, value)
    return said if name == "schedules" and said != plain(value) else f"{name} {said}"


def said_of(name: str, value: Any) -> str:
    """Return the value of a setting for a reader, without JSON.

    >>> said_of("schedules", {"frozen": [{"train": "head", "epochs": 3, "lr": 0.01}]}), said_of("fit", ["train", "val"])
    ('frozen: head 3 epochs at 0.01', 'train, val')
    """
    return (_schedules(value) if name.endswith("schedules") else "") or plain(value)


def _schedules(value: Any) -> str:
    """Return the phases of each schedule in words; "" where the value holds none, since a label in a record may hold anything."""
    try:
        said = [f"{schedule}: {', '.join(map(_phase, phases))}" for schedule, phases in value.items()]
    except (ValueError, TypeError, KeyError, AttributeError):
        return ""
    return "; ".join(said)


def _phase(phase: Any) -> str:
    return f"{phase['train']} {phase['epochs']} epoch{'' if phase['epochs'] == 1 else 's'} at {phase['lr']}"
