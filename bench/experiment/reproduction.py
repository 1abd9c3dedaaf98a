"""Reproduction: a finished run described, written as a command, made again from its record alone, and compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench import registry
from bench.config import PAPER_SIZE, MachineConfig, RunConfig
from bench.contract import Pretext
from bench.data import splits
from bench.errors import BenchError, DataError, UsageError, unknown
from bench.experiment import initialisations, needs
from bench.experiment.jobs import protocol_of_probe, recipe_of, statistics_version, subset_of
from bench.experiment.leaks import told
from bench.experiment.resolve import Grid
from bench.experiment.runs import run
from bench.experiment.session import Screen, make_session
from bench.initialisation import INIT, as_text
from bench.job import NO_DATA
from bench.probe import DECODED, OF_EVALUATION, Probe, make
from bench.protocol import Protocol
from bench.record import Cost, Record, paths, read_one
from bench.text import Rows, plain, shell
from bench.training.machine import stoppable
from results import protocols
from results.choices import best_on_test, chosen_by

TOLERANCE = 0.02
"""The most that a metric may differ on a GPU, on another processor, or with another number of threads or version of torch."""


def find(out: Path, beginning: str) -> Record:
    """Return the one run below `out` whose id has this beginning; UsageError when there are none or several."""
    found = {path.parent.name: path for path in paths(out)}
    matching = [name for name in found if name.startswith(beginning)]
    if not matching:
        raise unknown("run", beginning, found)
    if len(matching) > 1:
        raise UsageError(f"{beginning!r} begins the ids of {len(matching)} runs: {', '.join(sorted(matching))}.")
    return read_one(found[matching[0]])


def description(record: Record) -> Rows:
    """Return a run's settings, scores, cost and provenance as rows of text."""
    origin, job, pretrain = record.provenance, record.job, record.pretrain
    facts: list[tuple[str, str]] = [
        ("run", record.id),
        *_initialisation(record),
        ("downstream task", f"{record.downstream}, protocol {protocols.short(job.protocol)}, {job.about}"),
        *(("protocol", text) for text in protocols.explanations([job.protocol])),
        ("trunk", f"{pretrain.job.trunk}, pretrained at {pretrain.job.size} px, inherited: {job.transfer}"),
        ("seed", f"{job.seed} (pretraining {pretrain.job.seed})"),
        (
            "data",
            f"{record.data.title} {record.data.fingerprint[:12]}, splits {record.data.splits_fingerprint[:12]}, "
            + ", ".join(f"{count:,} {name} images" for name, count in record.data.counts.items()),
        ),
    ]
    facts.append(("prepared by", needs.prepare_line(record.data)))
    if record.pretrain.data:
        facts.append(("pretraining data", f"{record.pretrain.data.title} {record.pretrain.data.fingerprint[:12]}"))
        facts.append(("prepared by", needs.prepare_line(record.pretrain.data)))
    if record.leaks:
        facts.append(("leaks", told(record.downstream, record.leaks)))
    for plugin in needs.plugins(record):
        kept = "its text is kept in the record (--source prints it)" if plugin.text else "its text is not in the record"
        facts.append(("plug-in", f"{plugin.file}, SHA-256 {plugin.digest}; {kept}"))
    if job.labels != 1:
        facts.append(("labels", f"{100 * job.labels:.3g} % of the training images"))
    facts += _choices(record) or [("rates", ", ".join(f"{rate:.3g}" for rate in record.rates))]
    if record.tuning:
        tuning = record.tuning
        facts.append(("tuning", f"{tuning.study}: {tuning.budget} trials, {tuning.sampler}, best {tuning.best_value:.4f} on val"))
        facts.append(("cost of tuning", _cost(tuning.cost)))
    facts += [
        *((name, _value(record.metrics[name])) for name in record.metric_ids),
        ("cost of pretraining", _cost(record.pretrain.cost)),
        ("cost of fine-tuning" if job.probe is None else "cost of the probe", _cost(record.cost)),
        ("machine", ", ".join(f"{name} {value}" for name, value in origin["machine"].items())),
        ("commit", f"{origin['commit'] or 'unknown'}{' with changed files' if origin['dirty'] else ''}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in origin["versions"].items() if version)),
        ("trunk's SHA-256", record.pretrain.weights),
        *([("network's SHA-256", record.weights)] if record.weights else []),
        ("predictions' SHA-256", record.predictions),
        ("made by", shell(["bench", *origin["command"]])),
        ("started", origin["started"]),
    ]
    return ("What", "Value"), [(name, value) for name, value in facts]


def _choices(record: Record) -> list[tuple[str, str]]:
    """Return the rows that say what a probe's settings are and how they were chosen; none for a fine-tuned run."""
    found, probe = record.selection, record.job.probe
    if found is None or probe is None:
        return []
    return [
        ("probe", f"{probe.title}: {plain(probe.model_dump(mode='json', exclude={'kind'}, exclude_none=True))}"),
        ("chosen", f"{chosen_by(record)}; on {found.by}, of {len(found.tried)} candidates"),
        ("test would choose", f"{best_on_test(record)}: {found.metric} {_value(found.on_test_value)}, never the result"),
    ]


def _initialisation(record: Record) -> list[tuple[str, str]]:
    """Return the rows that say what a run begins with: a pretext task and its recipe, or weights and what was loaded of them."""
    origin, weights = record.pretrain.origin, record.job.pretrain.weights
    if origin is None or weights is None:
        return [("pretext task", f"{record.pretext}: {plain(record.pretrain.recipe)}")]
    loaded = f"{origin.loaded} of {origin.wanted} tensors, {100 * origin.share:.4g} % of the encoder's parameters"
    facts = weights.model_dump(exclude={"sha256"}, exclude_defaults=True)
    task = record.job.pretrain.pretext != INIT
    return [
        *([("pretext task", f"{record.pretext}: {plain(record.pretrain.recipe)}")] if task else []),
        ("weights", f"{origin.label}: {origin.source}, SHA-256 {weights.sha256}"),
        ("loaded", f"{loaded}, named as {origin.naming}" + (f", from {origin.part!r}" if origin.part else "")),
        *((what, ", ".join(some)) for what, some in (("missing", origin.missing), ("left over", origin.left_over)) if some),
        ("preprocessing", plain(facts)),
        ("labels in training", origin.supervision),
        *(
            [("audit", origin.audit.problem or f"fits {origin.audit.images} images of {origin.audit.data}")]
            if origin.audit
            else []
        ),
    ]


def _value(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6f}"


def _cost(cost: Cost) -> str:
    energy = "" if cost.joules is None else f", {cost.joules / 1000:,.1f} kJ"
    return f"{cost.seconds:,.1f} s on {cost.device}, {cost.images:,} images, at most {cost.peak_memory / 2**20:,.0f} MiB{energy}"


def command(record: Record) -> list[str]:
    """Return the words of the command that makes a run again: all settings that are no default, threads and precision included.

    The rates that a search chose are given, not searched again. A run on the trunk of another seed needs both seeds, and the
    command then makes a run for each.
    """
    job, origin = record.job, record.provenance
    pretrain = job.pretrain
    base, changes = protocols.named(job.protocol)
    known = {plugin.kind: plugin.is_known for plugin in needs.plugins(record)}
    words = ["bench", "run", *_plugins(origin["command"])]
    words += [*_row(record), "--downstream", job.downstream, "--protocol", base]
    words += ["--data", str(origin["data"])]
    if pretrain.data_fingerprint != NO_DATA:
        words += ["--pretrain-data", str(origin["pretrain_data"])]
    if pretrain.held_out is not None:
        words += ["--leaks", "drop"]
    protocol: Protocol = (
        registry.load("downstreams", job.downstream).protocols[base] if known.get("downstreams", True) else job.settings
    )
    if job.settings.trunk == protocol.trunk:
        words += ["--trunk", pretrain.trunk]
    if job.settings.size == protocol.size and (job.size == pretrain.size or pretrain.size != PAPER_SIZE):
        words += ["--size", str(job.size)]
    shared = pretrain.seed != job.seed
    words += ["--seeds", f"{pretrain.seed},{job.seed}", "--vary", "finetune"] if shared else ["--seed", str(job.seed)]
    words += ["--schedule", job.schedule] if job.probe is None else _probe(job.probe)
    if job.transfer != "all":
        words += ["--transfer", job.transfer]
    if job.labels != 1:
        words += ["--labels", repr(job.labels)]
    if job.rates:
        words += ["--rates", ",".join(repr(rate) for rate in job.rates)]
    words += _settings(
        pretrain.pretext, _recipe_changes(record, base) if known.get("pretexts", True) else _recorded_recipe(record, base)
    )
    expected = protocol if job.probe is None or protocol is job.settings else protocol_of_probe(protocol, job.probe)
    words += _settings("protocol", job.settings.differences(expected))
    if not known.get("downstreams", True):
        words += [word for change in changes for word in ("--set", f"protocol.{change}")]
    was = origin["machine"]
    words += ["--threads", str(was["threads"]), "--precision", was["precision"]]
    return [*words, "--compile"] if was.get("compiled") else words


def _row(record: Record) -> list[str]:
    """Return the options that name a record's row."""
    origin, weights = record.pretrain.origin, record.job.pretrain.weights
    if origin is None or weights is None:
        return ["--pretext", record.job.pretrain.pretext]
    task = ["--pretext", record.pretrain.label] if record.job.pretrain.pretext != INIT else []
    words = [*task, "--init", as_text(origin, weights)]
    words += ["--match", weights.match] if weights.match != "name" else []
    return [*words, "--partial"] if weights.partial else words


def _probe(probe: Probe) -> list[str]:
    """Return the options that ask for a probe, with its settings; those of linear and linear-sgd make both."""
    kind = probe.model_dump(include={"kind"})["kind"]
    evaluation = next((name for name, several in OF_EVALUATION.items() if kind in several), kind)
    changes = {name: value for name, value in probe.differences(make(kind, {})).items() if name != "level"}
    if kind in DECODED:
        changes.setdefault("source", "encoder")  # else the command makes both
    level = getattr(probe, "level", None)
    return ["--evaluate", evaluation, *(["--level", str(level)] if level is not None else []), *_settings(kind, changes)]


def _recipe_changes(record: Record, protocol: str) -> dict[str, Any]:
    """Return the settings of a run's recipe that are none of the task's own for its protocol."""
    pretrain = record.job.pretrain
    plugin = registry.load("pretexts", pretrain.pretext)
    default = plugin.default_recipe(protocol)
    return recipe_of(pretrain).differences(default)


def _recorded_recipe(record: Record, protocol: str) -> dict[str, Any]:
    """Return the settings of a recipe whose plug-in is not here: those that it says are none of its own, and every preset one."""
    names = {*record.job.pretrain.recipe, *Pretext.presets.get(protocol, {})}
    return {name: value for name, value in record.pretrain.recipe.items() if name in names}


def _plugins(typed: Sequence[str]) -> list[str]:
    """Return the --plugin options of a command; a file that is not at its path here is named without its folder."""
    found = [following for word, following in pairwise(typed) if word == "--plugin"]
    found += [word.partition("=")[2] for word in typed if word.startswith("--plugin=")]
    return [word for file in found for word in ("--plugin", file if Path(file).is_file() else Path(file).name)]


def _settings(owner: str, changes: Mapping[str, Any]) -> list[str]:
    return [word for name, value in changes.items() for word in ("--set", f"{owner}.{name}={json.dumps(value)}")]


def changed_since(record: Record) -> str:
    """Return what has changed in the program since a record was made and gives its job another id now; "" when nothing has."""
    job = record.job
    for kind, name, version, source in (
        ("pretexts", job.pretrain.pretext, job.pretrain.version, job.pretrain.source),
        ("downstreams", job.downstream, job.version, job.source),
    ):
        if name not in registry.summaries(kind) and (kind, name) not in registry.UNLISTED:
            return f"{name}, which the run was made with, is not here; give its file with --plugin"
        plugin = registry.load(kind, name)
        if (plugin.version, registry.source_digest(kind, name)) != (version, source):
            made_with = f"version {version} {source}".strip()
            return f"{name} here is not the version that the run was made with ({made_with})"
    if statistics_version(job.pretrain, job.transfer) != job.statistics_version:
        return "the batch norms of untrained parts had no measured statistics when the run was made"
    return ""


def config_of(record: Record, machine: MachineConfig) -> RunConfig:
    """Return the configuration that makes a record's run again on the device of `machine`.

    The number of threads is the record's when `machine` has none. The precision is the record's for a run made on a CPU, `auto`
    for others, and networks are compiled if the record's were; what `machine` says of these two is ignored.
    """
    was = record.provenance["machine"]
    precision = was["precision"] if was["type"] == "cpu" else "auto"
    given = {**machine.model_dump(by_alias=True), "precision": precision, "compile": was.get("compiled", False)}
    given["threads"] = machine.threads if machine.threads is not None else was["threads"]
    origin, weights = record.pretrain.origin, record.job.pretrain.weights
    row: dict[str, Any] = {"pretext": (record.job.pretrain.pretext,)}
    if origin is not None and weights is not None:
        row = {"init": (as_text(origin, weights),), "match": weights.match, "partial": weights.partial}
        if record.job.pretrain.pretext != INIT:
            row["pretext"] = (record.pretrain.label,)
    return RunConfig.model_validate({**row, "downstream": (record.downstream,), **given})


def reproduce(record: Record, folder: Path, machine: MachineConfig, screen: Screen) -> Record:
    """Run a record's job in another folder, from pretraining on; DataError or UsageError when data or plug-ins have changed."""
    job, origin = record.job, record.provenance
    changed = changed_since(record)
    if changed:
        raise UsageError(f"{record.id} cannot be made again: {changed}.")
    data, pretrain_data = needs.open_data(str(origin["data"]), record.data, job.data_fingerprint, screen.echo), None
    if record.pretrain.data and job.pretrain.data_fingerprint != NO_DATA:
        name = str(origin["pretrain_data"])
        pretrain_data = needs.open_data(name, record.pretrain.data, job.pretrain.data_fingerprint, screen.echo)
    subset = subset_of(registry.load("downstreams", job.downstream), job.settings, data)
    scheme = job.settings.split_scheme
    if splits.open_splits(data, scheme, subset, screen.echo).fingerprint != job.splits_fingerprint:
        raise DataError(f"the {scheme} splits of {data.name} here are not those of {record.id}.")
    config = config_of(record, machine)
    given = initialisations.of_record(config, job.pretrain, screen.echo)
    grid = Grid([job], {str(origin["data"]): data}, pretrain_data, origin["pretrain_data"], initialisations=given)
    session = make_session(config, grid, folder, screen)
    with stoppable(session.machine.stop):
        return run(job, session, record.tuning)


@dataclass(frozen=True)
class Comparison:
    """Two runs of one job compared, as rows of text; `verdict` says whether the second reproduces the first."""

    rows: Rows
    equal: bool
    verdict: str


def compare(recorded: Record, made: Record, tolerance: float | None = None) -> Comparison:
    """Compare a recorded run with the same job run again.

    Without a tolerance, network, predictions and metrics must be equal to the bit when both runs had the same kind of CPU, number
    of threads and version of torch. Otherwise sums are rounded differently, and no metric may differ by more than `TOLERANCE`.
    """
    if recorded.metric_ids != made.metric_ids:
        raise BenchError(f"{recorded.id} has metrics {', '.join(recorded.metric_ids)}, the new run {', '.join(made.metric_ids)}.")
    pairs = [
        ("trunk's SHA-256", recorded.pretrain.weights[:16], made.pretrain.weights[:16]),
        ("network's SHA-256", recorded.weights[:16], made.weights[:16]),
        ("predictions' SHA-256", recorded.predictions[:16], made.predictions[:16]),
        *((name, _value(recorded.metrics[name]), _value(made.metrics[name])) for name in recorded.metric_ids),
    ]
    rows: list[tuple[str, ...]] = [(name, old, new, "equal" if old == new else "differs") for name, old, new in pairs]
    worst = max(_apart(recorded.metrics[name], made.metrics[name]) for name in recorded.metric_ids)
    to_the_bit = (recorded.weights, recorded.predictions, 0.0) == (made.weights, made.predictions, worst)
    different = _differences(recorded.provenance, made.provenance)
    exact = tolerance is None and not different and recorded.cost.device == "cpu"
    equal = to_the_bit if exact else worst <= (TOLERANCE if tolerance is None else tolerance)
    off = f"other bits, the largest difference of a metric is {worst:.6f}"
    if different and not to_the_bit:
        off += f"; recorded and here: {'; '.join(different)}"
    found = "reproduced to the bit" if to_the_bit else f"reproduced with {off}" if equal else f"not reproduced: {off}."
    return Comparison((("What", "Recorded", "Made again", ""), rows), equal, f"{recorded.id} was {found}")


def _differences(recorded: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    """Return the differences between two runs' machines that change how sums are rounded; earlier records lack some facts."""
    names = {"type": "device", "device": "processor", "capability": "instructions", "threads": "threads"}
    pairs = [(title, recorded["machine"].get(name), made["machine"].get(name)) for name, title in names.items()]
    pairs.append(("torch", recorded["versions"].get("torch"), made["versions"].get("torch")))
    return [f"{title} {one or 'not recorded'}, here {other}" for title, one, other in pairs if one != other]


def _apart(one: float | None, other: float | None) -> float:
    if one is None or other is None:
        return 0.0 if one == other else 1.0
    return abs(one - other)
