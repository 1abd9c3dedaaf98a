"""Write the reference pages from the code: protocols, pretext tasks, probes, metrics, commands, CSV columns, the API; studies.

`make docs` runs this before the build. The pages lie in docs/reference and are not committed, so they cannot disagree with the
code. A page of the API names a module; mkdocstrings reads its docstrings during the build.
"""

from __future__ import annotations

import csv
import inspect
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from pieces import code, comments, fields, plain, prose, short, table

from bench import metrics, registry
from bench import probe as probes
from bench.cli.app import app
from bench.protocol import Protocol
from results.csv_files import SCHEMAS
from results.probe_sheets import PROBE_TABLES
from results.table_sheets import TABLES

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
STUDIES = ROOT / "results" / "studies"
API = {
    "python": "the bench from Python",
    "contract": "what a plug-in implements",
    "config": "what a command asks for",
    "protocol": "settings of pretext and downstream tasks",
    "job": "what a row depends on",
    "record": "what a run leaves behind",
    "selection": "what a record says of a probe's choices",
    "metrics": "how predictions are scored",
}
APART = ("summary", "schedules", "metrics")
"""Fields of a protocol that are shown in another way than its settings."""
GENERATED = "<!-- Written by docs/generate.py from the code; edit the code instead. -->\n"


def main(folder: Path = FOLDER) -> None:
    """Write all pages anew."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "api").mkdir(parents=True)
    pages = {
        "protocols": protocols_page(),
        "pretexts": pretexts_page(),
        "probes": probes_page(),
        "metrics": metrics_page(),
        "commands": commands_page(),
        "columns": columns_page(),
        **{f"api/{name}": f"# bench.{name}: {what}\n\n::: bench.{name}\n" for name, what in API.items()},
    }
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(GENERATED + text, encoding="utf-8")
    for readme in sorted(STUDIES.glob("*/README.md")):
        copy_study(readme.parent, folder / "studies" / readme.parent.name)


def copy_study(study: Path, folder: Path) -> None:
    """Copy a study's texts and its figures, at the same places below a folder."""
    folder.mkdir(parents=True)
    for text in study.glob("*.md"):
        shutil.copyfile(text, folder / text.name)
    for figure in study.glob("*/*.svg"):
        (folder / figure.parent.name).mkdir(exist_ok=True)
        shutil.copyfile(figure, folder / figure.parent.name / figure.name)


def protocols_page() -> str:
    """Return the settings of protocols, and each protocol of each downstream task."""
    parts = [
        "# Protocols\n\nA protocol is data: it says how a downstream task is trained and scored. Its name stands in every row, "
        "and rows of different protocols never share a column. `--set protocol.NAME=VALUE` changes a setting for all downstream "
        "tasks, `--set voc_seg.NAME=VALUE` for one; the row then names the change.\n",
        "## Settings\n\nEach protocol below names the settings in which it differs from these defaults.\n",
        settings_table(),
        "## Score and cost\n\nWhere the repository has runs of exactly a protocol, its section shows their main metric and cost, "
        "from `leaderboard.csv` in the folder that is named, below `results/studies`. Each study's README says on which data and "
        "machine it ran, and what its figures do not show. Seconds are those of pretraining, of the search for learning rates, "
        "and of fine-tuning: means over the seeds, on a machine that did other work besides.\n",
    ]
    for task in registry.summaries("downstreams"):
        plugin = registry.load("downstreams", task)
        parts.append(f"## {task}\n\n{prose(inspect.getdoc(sys.modules[plugin.__module__]) or '')}\n")
        for name, protocol in plugin.protocols.items():
            parts += protocol_sections(task, name, protocol)
    return "\n".join(parts)


def settings_table() -> str:
    """Return every setting of a protocol with its default and what it is."""
    meanings = comments(Protocol)
    rows = [
        (f"`{name}`", "each protocol says" if field.is_required() else code(plain(field.default)), prose(meanings[name]))
        for name, field in Protocol.model_fields.items()
        if name not in APART
    ]
    return table(("Setting", "Default", "What it is"), rows)


def protocol_sections(task: str, name: str, protocol: Protocol) -> list[str]:
    """Return what one protocol is: the command, metrics, phases, changed settings, and what its runs scored and took."""
    settings = fields(protocol)
    ids = ", ".join(f"[`{one}`](metrics.md#{one})" for one in settings["metrics"])
    phases = [
        (schedule, str(place), phase["train"], str(phase["epochs"]), f"{phase['lr']:g}")
        for schedule, found in settings["schedules"].items()
        for place, phase in enumerate(found, start=1)
    ]
    changed = [
        (f"`{key}`", code(value))
        for key, value in settings.items()
        if key not in APART and ((field := Protocol.model_fields[key]).is_required() or value != plain(field.default))
    ]
    data = "--data demo" if name == "demo" else "--data voc2012 --pretrain-data coco2014"
    return [
        f"### {task}, protocol {name}\n\n{prose(protocol.summary[0].upper() + protocol.summary[1:])}.\n",
        f"```sh\nbench run --pretext random_init,cgan_color --downstream {task} --protocol {name} {data}\n```\n",
        f"Metrics, the main one first: {ids}.\n",
        table(("Schedule", "Phase", "Trains", "Epochs", "Learning rate"), phases),
        table(("Setting", "Value"), changed),
        results_of(task, name, settings["metrics"][0]),
    ]


def results_of(task: str, protocol: str, metric: str, studies: Path = STUDIES) -> str:
    """Return what runs of exactly this protocol scored and took that lie in the repository, a row of a leaderboard each."""
    rows = []
    for path, row in leaderboard_rows(studies):
        found = row["downstream"], row["protocol"], row["metric"].partition("@")[0], float(row["labels"])
        if found != (task, protocol, metric, 1.0) or not row["value"]:
            continue
        value, low, high = (f"{100 * float(row[end]):.2f}" for end in ("value", "low", "high"))
        seconds = ", ".join(f"{float(row[f'{part}_seconds']):.0f}" for part in ("pretrain", "tune", "finetune"))
        score = f"{row['metric']} {value} [{low}, {high}]"
        source = f"`{path.parent.relative_to(studies)}`"
        rows.append((prose(row_name(row)), prose(score), row["n_seeds"], prose(row["pretrain_data"]), seconds, source))
    if not rows:
        return "Score and cost: the repository has no run of exactly this protocol.\n"
    columns = ("Row", "Score, per cent [95 % interval]", "Seeds", "Pretrained on", "Seconds", "Table")
    return "Score and cost of the runs in the repository:\n\n" + table(columns, rows)


def leaderboard_rows(studies: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield the rows of all leaderboards of the studies with the file of each, larger tables first, the same row once."""
    shown = set()
    for path in sorted(studies.glob("*/*/leaderboard.csv"), key=lambda path: (path.parts[-3], -path.stat().st_size)):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if (row["run_ids"], row["metric"]) not in shown:
                    shown.add((row["run_ids"], row["metric"]))
                    yield path, row


def row_name(row: Mapping[str, str]) -> str:
    """Return a row's name: pretext task, schedule, and what is unusual about it."""
    parts = [row["pretext"], row["schedule"]]
    parts += [f"{row['transfer']} only"] if row["transfer"] != "all" else []
    parts += [] if row["tuned"] == "True" else ["not tuned"]
    return ", ".join(parts)


def pretexts_page() -> str:
    """Return each pretext task: what it is, and its recipe with the changes that protocols make."""
    parts = [
        "# Pretext tasks and their recipes\n\n`--set cgan_color.NAME=VALUE` changes a setting of one pretext task, "
        "`--set recipe.NAME=VALUE` one of all that have it. A dash means that the protocol leaves the default.\n"
    ]
    for name in registry.summaries("pretexts"):
        plugin = registry.load("pretexts", name)
        sources = comments(plugin.Recipe)
        presets: Mapping[str, Mapping[str, Any]] = {key: plugin.presets[key] for key in sorted(plugin.presets)}
        rows = [
            (
                f"`{key}`",
                code(value),
                *(code(preset[key]) if key in preset else "-" for preset in presets.values()),
                prose(sources.get(key, "")),
            )
            for key, value in fields(plugin.Recipe()).items()
        ]
        parts += [
            f"## {name}\n\n{prose(inspect.getdoc(sys.modules[plugin.__module__]) or '')}\n",
            table(("Setting", "Default", *presets, "Source of the default"), rows),
        ]
    return "\n".join(parts)


def probes_page() -> str:
    """Return each probe: what it is, a command that runs it alone, and its settings with their defaults."""
    parts = [
        "# Settings of probes\n\n[Probes](../probes.md) says what probes are for and how their choices are made. "
        "`--set knn.NAME=VALUE` changes a setting of one probe; the column then stands apart. A list has the candidates of a "
        "choice, or what is tried side by side, and is given as a list: `--set 'knn.k=[20]'`. Defaults are shown with three "
        "digits.\n"
    ]
    evaluations = {name: evaluation for evaluation, names in probes.OF_EVALUATION.items() for name in names}
    for name, kind in probes.PROBES.items():
        evaluation = evaluations.get(name, name)
        task = next(task for task in registry.summaries("downstreams") if registry.load("downstreams", task).data == kind.needs)
        command = f"bench run --pretext random_init,cgan_color --downstream {task} --evaluate {evaluation}"
        meanings, made = comments(kind), fields(probes.make(name, {}))
        rows = [
            (f"`{key}`", code(short(value)), prose(meanings[key]) or "as above") for key, value in made.items() if key != "kind"
        ]
        parts += [
            f"## {name}\n\nColumn: {kind.title}. It needs {kind.needs}. Chosen on: {kind.by}.\n",
            f"```sh\n{command}\n```\n\n{prose(probes.explanation(name))}\n",
            table(("Setting", "Default", "What it is"), rows),
        ]
    return "\n".join(parts)


def metrics_page() -> str:
    """Return each metric: its id, what it is computed from, its formula, its source and an example."""
    parts = [
        "# Metrics\n\nA metric is a pure function of a run's saved predictions. Its id says which of its namesakes it is; a "
        "changed definition gets a new version, and versions never share a column. `bench metrics` prints the same.\n"
    ]
    for one in metrics.METRICS.values():
        paragraphs = [
            f"```python\n{paragraph}\n```" if paragraph.startswith(">>>") else prose(paragraph)
            for paragraph in metrics.explanation(one).split("\n\n")
        ]
        parts += [f"## {one.id}\n\n`{one.key}`: {one.title}. Computed from `{one.needs}`.\n", "\n\n".join(paragraphs) + "\n"]
    return "\n".join(parts)


def commands_page() -> str:
    """Return each command with its help, its arguments and options, and its example."""
    group = typer.main.get_command(app)
    parts = [f"# Commands\n\n{prose(group.help or '')}\n\n{prose(group.epilog or '')}\n"]
    parts += ["Options of every command, written before its name:\n", options_table(group)]
    parts += [section for path, command in commands(group) for section in command_sections(path, command)]
    return "\n".join(parts)


def command_sections(path: str, command: Any) -> list[str]:
    """Return the sections about one command."""
    example = (command.epilog or "").removeprefix("Example: ")
    shown = f"```sh\n{example}\n```\n" if example else ""
    return [f"## {path}\n\n{prose(inspect.cleandoc(command.help or ''))}\n\n{shown}", options_table(command)]


def commands(group: Any, path: str = "bench") -> Iterable[tuple[str, Any]]:
    """Yield each command of a group and of its groups, with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def options_table(command: Any) -> str:
    """Return the arguments and options of a command."""
    rows = []
    for parameter in command.params:
        is_argument = parameter.param_type_name == "argument"
        names = [parameter.metavar or parameter.name.upper()] if is_argument else [*parameter.opts, *parameter.secondary_opts]
        rows.append((", ".join(f"`{one}`" for one in names), default_of(parameter), prose(parameter.help or "")))
    return table(("Argument or option", "Default", "What it is"), rows) if rows else ""


def default_of(parameter: Any) -> str:
    """Return the default of an argument or option; an option of a configuration's field says it to its help text alone."""
    told = getattr(parameter, "show_default", None)
    default = told if isinstance(told, str) else parameter.default
    if parameter.required:
        return "required"
    is_off = isinstance(default, bool) or default == "" or not isinstance(default, str | int | float | Path)
    return "-" if is_off else code(default)


def columns_page() -> str:
    """Return the columns of the CSV files, and of the tables that JSON and data frames have beside them."""
    parts = [
        "# Columns of tables\n\n`bench report` writes the CSV files, and `bench list columns` prints the same list. Metric "
        "values, intervals and differences are shares of 1, not per cent, but for `points_per_hour`; printed tables and the page "
        "have per cent and points. `pandas.read_csv` reads the files back without options. Lists and objects are JSON.\n\n"
        "`bench report --json` has the same columns: a list of objects for each table, named without `.csv`, with `null` for an "
        "empty cell. The tables behind the CSV files are there alone.\n"
    ]
    for name, schema in {**SCHEMAS, **TABLES, **PROBE_TABLES}.items():
        parts.append(f"## {name}\n")
        own = {key: text for key, text in schema.items() if name != "table4" or key not in SCHEMAS["leaderboard.csv"]}
        if len(own) < len(schema):
            parts.append("A line for each cell of Table 4: these columns, and behind them all columns of leaderboard.csv.\n")
        parts.append(table(("Column", "What it is"), [(f"`{key}`", prose(text)) for key, text in own.items()]))
    return "\n".join(parts)


if __name__ == "__main__":
    main()
