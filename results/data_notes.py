"""What a table says of its data: which list was scored, what its means leave out, and what the data sets hold beside."""

from __future__ import annotations

from collections.abc import Sequence

from bench.record import Record
from bench.text import some


def notes(records: Sequence[Record]) -> list[str]:
    """Return notes on which list was scored, on classes that a mean leaves out, and on what of the data sets was not used."""
    several = len({record.data.name for record in records}) > 1
    listed = sorted({_scored(record, several) for record in records} - {""})
    grouped = sorted({(record.data.name, record.data.group) for record in records if record.data.group})
    mapped = sorted({(record.data.name, record.data.mask_values) for record in records if record.data.mask_values})
    return [
        *([f"Scored images: {', '.join(listed)}."] if listed else []),
        *(f"{name}: values of masks changed by --map: {', '.join(values)}." for name, values in mapped),
        *made_splits(records),
        *(f"{name}: images of one {group} are on one side of every split." for name, group in grouped),
        *_undefined(records),
        *_unused(records),
    ]


def _scored(record: Record, several: bool) -> str:
    """Return the list that a run was scored on, with its data set where there are several and it does not say so."""
    named, name = record.data.scored_list, record.data.name
    return f"{named} of {name}" if named and several and not named.startswith(name) else named


def made_splits(records: Sequence[Record]) -> list[str]:
    """Return a note for each data set of which the program made the splits, since the data names none."""
    made = {
        record.data.name: (record.data.counts.get("train", 0), record.data.counts.get(record.job.split, 0))
        for record in records
        if record.job.settings.split_scheme == "own" and not record.data.scored_list
    }
    return [
        f"{name} names no splits; they were made once: {train:,} images trained on, {test:,} scored."
        for name, (train, test) in made.items()
    ]


def titles(records: Sequence[Record]) -> list[str]:
    """Return a note with the data's whole title where a table's title has not all of it; tasks are named where they differ."""
    of_task: dict[str, list[str]] = {}
    for record in records:
        tasks = of_task.setdefault(record.data.title, [])
        tasks += [record.title] if record.title not in tasks else []
    if len(of_task) == 1 and next(iter(of_task)) == records[0].data.short:
        return []
    several = len(of_task) > 1
    said = (f"{title}, {' and '.join(tasks)}" if several else title for title, tasks in of_task.items())
    return [f"Data: {'; '.join(said)}."]


def _unused(records: Sequence[Record]) -> list[str]:
    """Return a note for each data set with what it holds and the runs did not use; tasks are named where their counts differ."""
    found: dict[str, dict[str, dict[int, list[str]]]] = {}
    for record in records:
        for what, data in ((record.title, record.data), ("pretraining", record.pretrain.data)):
            for reason, number in data.unused.items() if data else ():
                tasks = found.setdefault(data.name if data else "", {}).setdefault(reason, {}).setdefault(number, [])
                if what not in tasks:
                    tasks.append(what)
    made = []
    for name, reasons in found.items():
        parts = []
        for reason, numbers in reasons.items():
            several = len(numbers) > 1
            counts = (f"{number:,}" + (f" ({', '.join(tasks)})" if several else "") for number, tasks in numbers.items())
            parts.append(f"{reason}: {', '.join(counts)}")
        made.append(f"{name}: {'; '.join(parts)}.")
    return made


def _undefined(records: Sequence[Record]) -> list[str]:
    """Return a note for each main metric whose mean leaves classes out, since no scored image can judge them."""
    found: dict[tuple[str, str], set[str]] = {}
    several = len({record.data.fingerprint for record in records}) > 1
    for record in records:
        main = record.metric_ids[0]
        absent = {name for name, value in record.per_class.get(main, {}).items() if value is None}
        if absent:
            title = f"{record.title} on {record.data.short}" if several else record.title
            found.setdefault((title, main), set()).update(absent)
    made = []
    for (title, main), names in found.items():
        classes = "1 class" if len(names) == 1 else f"{len(names)} classes"
        made.append(f"{title}: {main} is not defined for {classes} ({some(sorted(names))}) here; its mean leaves them out.")
    return made
