"""Which runs share a board, a column and a row, and how rows are named."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from bench.initialisation import INIT
from bench.metrics import METRICS
from bench.record import Record
from bench.schema import Schema, canonical, identity_of
from results import origins, protocols

K = TypeVar("K")
T = TypeVar("T")
BASELINE_NOTE = "the paper's baseline"
DATA = ("data", "data fingerprint")
"""The facts of a board in which its columns may differ."""
PROBED = "probed"
"""What stands for the schedule of a probe: nothing is fine-tuned."""
HOSTS = ("two-phase", "frozen", "one-phase")
"""The schedules of the rows that a probe may stand in, the preferred one first."""


def groups(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Return the items by their key, in order of appearance."""
    found: dict[K, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def digest(value: Any) -> str:
    """Return eight hexadecimal digits that tell values apart; settings count by what in them is not a default."""
    return hashlib.sha256(canonical(identity_of(value)).encode()).hexdigest()[:8]


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return a phrase with both values for each field that differs between two sets of facts."""
    found = []
    for name in ours:
        one, other = ours[name], theirs.get(name)
        if one == other:
            continue
        if isinstance(one, Schema) and isinstance(other, Schema):
            found += difference(one.differences(other), other.model_dump(mode="json"))
        else:
            found.append(f"{name} differs ({_short(name, one)} and {_short(name, other)})")
    return found


def _short(name: str, value: Any) -> str:
    text = protocols.said_of(name, value)
    return text[:12] if len(text) == 64 else text


def board_facts(record: Record) -> dict[str, Any]:
    """Return what runs must share to stand on one board. The split scheme is not in it: each task has its own."""
    return {
        "data": record.data.title_of_all,
        "protocol": record.job.protocol,
        "trunk": record.job.pretrain.trunk,
        "size": record.pretrain.job.size,
        "split": record.job.split,
        "labels": record.job.labels,
        "data fingerprint": record.data.fingerprint,
        "synthetic": record.data.synthetic,
    }


def boards(records: Sequence[Record]) -> list[list[Record]]:
    """Return the runs of each board, in order of appearance.

    Runs on several labelled data sets share a board, each set with columns of its own, unless two of them have one name or some
    are synthetic. A protocol may be changed for one task alone: as long as every task was run under one protocol, they share a
    board, and the changes belong to the task's column. A probe's protocol lacks changes that matter to training alone. Where a
    task was fine-tuned, or a probe made, under several protocols, each protocol has a board of its own.
    """
    found: list[list[Record]] = []
    for members in _of_any_data(records):
        tasks = groups(members, lambda record: (record.downstream, record.job.evaluation, record.data.fingerprint)).values()
        one_each = all(len({record.job.protocol for record in task}) == 1 for task in tasks)
        found += [members] if one_each else groups(members, lambda record: record.job.protocol).values()
    return found


def _of_any_data(records: Sequence[Record]) -> list[list[Record]]:
    """Return the runs that share everything on a board but their data and a protocol's changes, or that too."""

    def shared(record: Record, *left_out: str) -> str:
        facts = {name: value for name, value in board_facts(record).items() if name not in left_out}
        return digest({**facts, "protocol": protocols.named(record.job.protocol)[0]})

    found: list[list[Record]] = []
    for members in groups(records, lambda record: shared(record, *DATA)).values():
        sets = {(record.data.name, *(board_facts(record)[name] for name in DATA)) for record in members}
        distinct = len({name for name, *_ in sets}) == len(sets)
        found += [members] if distinct else groups(members, shared).values()
    return found


def apart(ours: Sequence[Record], theirs: Sequence[Record]) -> list[str]:
    """Return a phrase for each field that keeps two boards apart; protocols are compared by the tasks that both boards have."""
    mine, other = ({(one.downstream, one.job.evaluation): one.job.protocol for one in runs} for runs in (ours, theirs))
    common = mine.keys() & other.keys()
    facts = []
    for chosen, runs in ((mine, ours), (other, theirs)):
        labels = sorted({protocols.short(label) for name, label in chosen.items() if name in common or not common})
        facts.append({**board_facts(runs[0]), "data": runs[0].data.short, "protocol": " and ".join(labels)})
    return difference(*facts)


@lru_cache(maxsize=1 << 13)
def column_key(record: Record) -> tuple[str, str, str, str]:
    """Return what a run's column is known by: the task, how the rates were found, a digest of all that it shares, its data."""
    return record.downstream, rates_of(record), digest(column_facts(record)), record.data.fingerprint


def column_facts(record: Record) -> dict[str, Any]:
    """Return what two runs of one task must share, beside the board's facts, to stand in one column."""
    job = record.job
    facts = {"version": job.version, "source": job.source, "settings": job.settings, "size": job.size}
    if job.frozen != "trunk":
        facts["inherited"] = job.frozen
    if job.probe is not None:
        facts["probe"] = job.probe
    return {**facts, "splits": job.splits_fingerprint, "metrics": sorted(record.metrics), "rates": rates_of(record)}


def transfer_of(record: Record) -> str:
    """Return what a row inherits: all of what it brings where a column says what it inherits there."""
    return record.job.transfer if record.job.frozen == "trunk" else "all"


def rates_of(record: Record) -> str:
    """Return how a run's rates were found, which runs of one column share; "" where they are the protocol's."""
    tuning = record.tuning
    if tuning is None:
        given = record.job.rates
        return f"rates given: {', '.join(f'{rate:.6g}' for rate in given)}" if given else ""
    seed = f"seed {tuning.seed}" if tuning.seeds == "first" else "each seed's own"
    how = f"{tuning.sampler}, pruned: {tuning.pruner}, by the main metric on val, {seed}"
    return f"{searched_of(record)}, {how}"


def searched_of(record: Record) -> str:
    """Return how many trials a run's search had and over which ranges; "" where nothing was searched."""
    tuning = record.tuning
    if tuning is None:
        return ""
    phases = record.job.phases
    searched = {str(phase.train): tuning.space[f"phase-{number}"] for number, phase in enumerate(phases, start=1)}
    ranges = tuning.ranges or {**{str(kind): limits for kind, limits in record.job.settings.space.items()}, **searched}
    text = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in sorted(ranges.items()))
    kinds = sorted(record.job.trains)
    if not tuning.drawn and (kinds != ["all", "head"] or set(ranges) - set(kinds) - set(tuning.space)):
        text += ", drawn for this row alone"
    return f"{tuning.budget} trials of rates ({text})"


@dataclass(frozen=True)
class Members:
    """The runs of one row. `trunk_seed` is the seed of the trunk that they share, None where every seed has its own trunk."""

    records: tuple[Record, ...]
    trunk_seed: int | None

    @property
    def first(self) -> Record:
        """The run that says what the row is: the first that was fine-tuned, or the first of a row of probes alone."""
        return next((record for record in self.records if record.job.probe is None), self.records[0])

    @property
    def vary(self) -> str:
        """What the seeds of the row vary: all, or fine-tuning alone (finetune)."""
        given = self.records[0].job.pretrain.pretext == INIT  # one network, whatever the seed
        return "all" if self.trunk_seed is None and not given else "finetune"


def rows(records: Sequence[Record]) -> list[Members]:
    """Group the runs of a board into rows; only seeds and columns differ within a row.

    A run whose trunk has the run's own seed belongs to the row in which everything varies. Runs on the trunk of another seed are
    a row in which fine-tuning alone varies; the run of the trunk's own seed is in both. Where every run of a column uses another
    seed's trunk or lends its own, there are only rows of the second kind. A probe has the seed of its trunk, and stands with the
    fine-tuned runs of that trunk (`_hosts`).
    """
    hosts = _hosts(records)
    found: dict[tuple[tuple[str, ...], int | None], list[Record]] = {}

    def key_of(record: Record) -> tuple[str, ...]:
        return hosts.get(row_key(record)) or row_key(record)

    # fine-tuned columns come first, since they say which rows there are
    for column in sorted(groups(records, column_key).values(), key=lambda runs: runs[0].job.probe is not None):
        is_probe = column[0].job.probe is not None
        lenders = [(key_of(r), trunk_seed_of(r)) for r in column if trunk_seed_of(r) != r.job.seed]
        shared = {*lenders, *((key, seed) for key, seed in found if is_probe and seed is not None)}
        own = [record for record in column if trunk_seed_of(record) == record.job.seed]
        # a lent trunk's own run is in the row of that trunk; a row in which everything varies needs a run beside the lenders
        lent = [record for record in own if (key_of(record), record.job.seed) in shared]
        for record in own:
            if len(lent) < len(own) or (is_probe and (key_of(record), None) in found):
                found.setdefault((key_of(record), None), []).append(record)
        for record in column:
            if (key_of(record), trunk_seed_of(record)) in shared:
                found.setdefault((key_of(record), trunk_seed_of(record)), []).append(record)
    order = sorted(found, key=lambda key: (key[0][0] != "random_init", *key[0], -1 if key[1] is None else key[1]))
    return [Members(tuple(sorted(found[key], key=lambda r: (r.downstream, r.job.seed))), key[1]) for key in order]


def _hosts(records: Sequence[Record]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return the key of the row that probes stand in, by their own key, where one was fine-tuned from the same trunk.

    Of several such rows it is one that inherits all, rather than the encoder alone, and the first schedule of `HOSTS`.
    """

    def same(record: Record) -> tuple[str, ...]:
        return *pretext_key(record), precision_of(record)

    def preference(record: Record) -> tuple[bool, int, int]:
        return transfer_of(record) != "all", HOSTS.index(record.job.schedule), -record.job.statistics_version

    tuned = groups((record for record in records if record.job.probe is None), same)
    probes = {row_key(record): same(record) for record in records if record.job.probe is not None}
    return {key: row_key(min(tuned[trunk], key=preference)) for key, trunk in probes.items() if trunk in tuned}


def trunk_seed_of(record: Record) -> int:
    """Return the seed of a run's pretrained trunk."""
    return record.pretrain.job.seed


def row_key(record: Record) -> tuple[str, ...]:
    """Return what the runs of a row share: pretext, recipe, pretraining data, version, schedule, what is inherited, precision."""
    transfer = f"{transfer_of(record)} {record.job.statistics_version}"
    return (*pretext_key(record), schedule_of(record), transfer, precision_of(record))


def schedule_of(record: Record) -> str:
    """Return the schedule that a row is known by: that of fine-tuning, or "probed" where nothing was fine-tuned."""
    return record.job.schedule if record.job.probe is None else PROBED


def dead(record: Record) -> str:
    """Return why a run's network was dead before its first phase, as far as its record tells; "" where it was alive.

    A record without a spread is from a version that froze untrained batch norms with mean 0 and variance 1. Such a trunk is taken
    for dead, but not a timm encoder under a task with labels: the task uses the encoder alone, which may have no batch norm.
    """
    if record.spread is not None:
        return record.spread.problem
    if record.job.probe is not None:
        return ""
    settings, labels = record.job.settings, METRICS[record.metric_ids[0].partition("@")[0]].needs == "scores"
    untrained = not record.pretrain.recipe.get("epochs") and record.pretrain.origin is None
    new_parts = untrained or (record.job.transfer == "encoder" and not labels)
    has_norms = record.job.pretrain.trunk.startswith("unet") or not labels
    running = settings.statistics == "running"
    if new_parts and has_norms and running and "head" in record.job.trains:
        return "an earlier version of the bench froze it with batch-norm statistics that were never measured"
    return ""


def precision_of(record: Record) -> str:
    """Return the precision that a run's networks computed in, and that of pretraining when it was another."""
    before = record.pretrain.precision
    trained = record.pretrain.history and before != record.precision
    return f"{record.precision}, pretrained in {before}" if trained else record.precision


def pretext_key(record: Record) -> tuple[str, ...]:
    """Return what the pretrained trunks of a row share: everything but the seed."""
    job = record.pretrain.job
    recipe = canonical(recipe_of(record, job.recipe))
    begins = "" if job.weights is None else canonical(job.weights.identity())  # a label may change
    name = begins if job.pretext == INIT else job.pretext + begins
    return name, recipe, job.data_fingerprint, job.splits_fingerprint, str(job.version), job.source


def recipe_of(record: Record, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the pretext task's recipe, or some `settings` of it; the rate is "searched" where a search chose it."""
    recipe = dict(record.pretrain.recipe if settings is None else settings)
    if record.tuning and "pretext" in record.tuning.best:
        recipe["lr"] = "searched"
    return recipe


def labels(members: Sequence[Members], records: Sequence[Record]) -> list[str]:
    """Return a label for each row of a board, no two the same."""
    found = [_label(one, records) for one in members]
    return [
        name if found.count(name) == 1 else f"{name} [{digest(row_key(one.first))}]"
        for name, one in zip(found, members, strict=True)
    ]


def _label(members: Members, records: Sequence[Record]) -> str:
    """Return a row's label: the pretext task, the schedule, what is inherited, and what tells it from rows of the same task."""
    record = members.first
    parts = []
    schedule = schedule_of(record)
    if schedule != PROBED and (schedule != "two-phase" or record.pretext == "random_init"):
        is_papers = (record.pretext, schedule) == ("random_init", "one-phase")
        parts.append(schedule + (f", {BASELINE_NOTE}" if is_papers else ""))
    if transfer_of(record) != "all":
        versions = {other.job.statistics_version for other in records if transfer_of(other) == record.job.transfer}
        parts.append(f"{record.job.transfer} only" + (f", version {record.job.statistics_version}" if len(versions) > 1 else ""))
    if len({precision_of(other) for other in records}) > 1:
        parts.append(precision_of(record))
    parts += origins.parts_of_label(record)
    if members.trunk_seed is not None:
        parts.append(f"one trunk, seed {members.trunk_seed}")
    return pretext_label(record, records, parts)


def pretext_label(record: Record, records: Sequence[Record], parts: Sequence[str] = ()) -> str:
    """Return a pretext task's name with `parts` and what tells it from others of the same name."""
    parts = list(parts)
    others = [other for other in records if other.pretext == record.pretext]
    recipe, job = recipe_of(record), record.pretrain.job
    for name in recipe:
        if len({canonical(recipe_of(other).get(name)) for other in others}) > 1:
            parts.append(f"{name}={recipe[name]}")

    def differs(name: str) -> bool:
        return len({getattr(other.pretrain.job, name) for other in others}) > 1

    if differs("data_fingerprint") and record.pretrain.data is not None:
        parts.append(f"on {record.pretrain.data.name} {record.pretrain.data.fingerprint[:6]}")
    if differs("held_out"):
        parts += ["leaks dropped"] if job.held_out else []
    elif differs("splits_fingerprint") and not differs("data_fingerprint"):
        parts.append(f"split {job.splits_fingerprint[:6]}")
    if differs("weights") and job.weights is not None:
        parts.append(f"weights {job.weights.sha256[:6]}")
    if differs("version"):
        parts.append(f"version {job.version}")
    if differs("source"):
        parts.append(f"source {job.source[:6]}")
    return f"{record.pretext} ({'; '.join(parts)})" if parts else record.pretext
