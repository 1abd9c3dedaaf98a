"""What a run of somebody else needs here: its data sets under any name, and its plug-ins, whose text its record holds.

The text of a record is never run unless the user trusts it; it is shown first.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import registry
from bench.data import catalogue
from bench.data.dataset import Dataset
from bench.data.download import ARCHIVES
from bench.errors import BenchError, DataError, UsageError
from bench.job import Job
from bench.record import DataFacts, Record
from bench.storage import files
from bench.text import Echo, printable_lines, shell

DEMO = (catalogue.DEMO_LABELLED, catalogue.DEMO_UNLABELLED)


def prepare_line(facts: DataFacts) -> str:
    """Return the command that prepares a data set as a record has it; FOLDER stands for the user's own."""
    if facts.synthetic and facts.name in DEMO:
        return f"bench data prepare {catalogue.DEMO_LABELLED}"
    name = re.sub(r"[^\w.-]", "_", facts.name).lstrip(".")
    words = ["bench", "data", "prepare", name or "data", *(() if facts.name in ARCHIVES else ("--root", "FOLDER"))]
    if len(facts.scored) < len(facts.classes):
        words += ["--score", ",".join(facts.scored)]
    words += [word for pattern in facts.exclude for word in ("--exclude", pattern)]
    for option in ("layout", "labels", "group"):
        chosen: str = getattr(facts, option)
        words += [f"--{option}", chosen] if chosen else []
    words += [word for value in facts.mask_values for word in ("--map", value)]
    return shell([*words, "--skip-broken"] if facts.left_out else words)


def open_data(name: str, facts: DataFacts, fingerprint: str, echo: Echo) -> Dataset:
    """Return the data set with a fingerprint: the one of a name or path, or one that is prepared here under another name.

    DataError, with the line that prepares it, when there is none.
    """
    there = ""
    try:
        dataset = catalogue.open_dataset(name, echo)
        if dataset.fingerprint == fingerprint:
            return dataset
        there = f"; {name} here has fingerprint {dataset.fingerprint[:12]}"
    except BenchError:  # it is not here under this name
        pass
    for other in _prepared():
        if other.fingerprint == fingerprint:
            echo(f"{facts.short} is prepared here as {other.name}")
            return other
    raise DataError(
        f"the run needs {facts.title} with fingerprint {fingerprint[:12]}, which is not prepared here{there}; prepare it with "
        f"`{prepare_line(facts)}`."
    )


def _prepared() -> list[Dataset]:
    """Return the data sets that are prepared; none when one of their indexes is damaged, which `bench data list` tells."""
    try:
        return list(catalogue.prepared().values())
    except DataError:
        return []


@dataclass(frozen=True)
class PluginText:
    """A plug-in that a run was made with: its kind, its name, the first 16 digits of its file's SHA-256, and its text or ""."""

    kind: str
    name: str
    digest: str
    text: str

    @property
    def file(self) -> str:
        """The file's name."""
        return f"{self.name}.py"

    @property
    def is_here(self) -> bool:
        """Whether a plug-in of this name is found here with the same text."""
        return self.is_known and registry.source_digest(self.kind, self.name) == self.digest

    @property
    def is_known(self) -> bool:
        """Whether a plug-in of this name is found here, with whatever text."""
        return self.name in registry.summaries(self.kind)


def plugins(record: Record) -> list[PluginText]:
    """Return the plug-ins that a run was made with; built-in tasks are none."""
    parts = (
        ("pretexts", record.job.pretrain.pretext, record.job.pretrain.source),
        ("downstreams", record.job.downstream, record.job.source),
    )
    return [PluginText(kind, name, digest, record.plugins.get(kind, "")) for kind, name, digest in parts if digest]


def sources(record: Record) -> list[str]:
    """Return the text of each plug-in that a run was made with; UsageError where there is none, or where it was not kept."""
    found = plugins(record)
    if not found:
        raise UsageError(f"{record.id} was made without plug-ins.")
    lacking = [plugin.file for plugin in found if not plugin.text]
    if lacking:
        raise UsageError(f"the record of {record.id} does not hold the text of {' and '.join(lacking)}.")
    return [plugin.text for plugin in found]


def texts(job: Job) -> dict[str, str]:
    """Return the text of each plug-in of a job by its kind, for the record; a file that was changed meanwhile is left out."""
    parts = (("pretexts", job.pretrain.pretext, job.pretrain.source), ("downstreams", job.downstream, job.source))
    found = {kind: (registry.source_text(kind, name), digest) for kind, name, digest in parts if digest}
    return {kind: text for kind, (text, digest) in found.items() if text and _digest(text) == digest}


def from_record(record: Record, trusted: bool, echo: Echo) -> list[PluginText]:
    """Return the plug-ins that a run was made with, that are not here, and that its record holds, after showing their text.

    UsageError where the record does not hold one, and where the user does not trust them.
    """
    missing = [plugin for plugin in plugins(record) if not plugin.is_here]
    for plugin in missing:
        there = "is another file here" if plugin.is_known else "is not here"
        made_with = f"{record.id} was made with the plug-in {plugin.file} (SHA-256 {plugin.digest}), which {there}"
        if not plugin.text:
            raise UsageError(f"{made_with} and whose text the record does not hold; give the file with --plugin {plugin.file}.")
        if _digest(plugin.text) != plugin.digest or not re.fullmatch(r"\w[\w .-]*", plugin.name):
            raise DataError(f"{made_with}; the text in the record is another one, and is not run.")
        for line in _shown(plugin):
            echo(line)
        if not trusted:
            raise UsageError(
                f"{made_with}; its text from the record stands above and is run only with --trust-plugin, "
                f"or give a copy of your own with --plugin {plugin.file}."
            )
    return missing


def add(missing: list[PluginText], folder: Path) -> None:
    """Write trusted plug-ins below a folder, each with the bytes that the run was made with, and add them."""
    for plugin in missing:
        path = files.make_folder(folder / "plugins") / plugin.file
        files.publish_file(path, plugin.text)
        registry.add_plugin(path)


def _shown(plugin: PluginText) -> Iterator[str]:
    yield f"{plugin.file}, as the record holds it:"
    yield from (f"    {line}" for line in printable_lines(plugin.text).splitlines())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
