"""What the tools of --log wrote, read by each tool's own reader."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

Values = dict[str, list[tuple[int, float]]]
"""By tag the steps and values, in the order in which they were written."""


def read(kind: str, folder: Path, out: Path, name: str) -> tuple[Values, dict[str, Any]]:
    """Return what a tool has of `name`, whose files lie in `folder`: its values, and the facts of its job."""
    if kind == "tensorboard":
        return _events(folder / kind)
    if kind == "csv":
        return _csv(folder / kind)
    return _wandb(folder / kind, name) if kind == "wandb" else _mlflow(out, name)


def figures(kind: str, folder: Path, out: Path, name: str) -> list[bytes]:
    """Return the PNG files that a tool has of `name`."""
    if kind == "tensorboard":
        events = _accumulated(folder / kind)
        return [image.encoded_image_string for tag in events.Tags()["images"] for image in events.Images(tag)]
    if kind == "csv":
        return []
    if kind == "wandb":
        return [path.read_bytes() for path in sorted(folder.glob("wandb/offline-run-*/files/media/images/**/*.png"))]
    client, run = _run(out, name)
    (stage,) = (entry.path for entry in client.list_artifacts(run.info.run_id))
    (tag,) = (entry.path for entry in client.list_artifacts(run.info.run_id, stage))
    paths = sorted(entry.path for entry in client.list_artifacts(run.info.run_id, tag))
    return [Path(client.download_artifacts(run.info.run_id, path)).read_bytes() for path in paths]


def _accumulated(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def _events(folder: Path) -> tuple[Values, dict[str, Any]]:
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data

    events = _accumulated(folder)
    values = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    told = parse_session_start_info_plugin_data(events.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content)
    return values, {name: getattr(value, value.WhichOneof("kind")) for name, value in told.hparams.items()}


def _csv(folder: Path) -> tuple[Values, dict[str, Any]]:
    table = pd.read_csv(folder / "metrics.csv", float_precision="round_trip")
    values: Values = {}
    for tag in table.columns.drop("step"):
        rows = table[["step", tag]].dropna()
        values[tag] = [(int(step), float(value)) for step, value in rows.itertuples(index=False)]
    return values, yaml.safe_load((folder / "hparams.yaml").read_text())


def _records(path: Path) -> Iterator[Any]:
    """Yield the records of wandb's file: blocks of 32 KiB as in a log of LevelDB, after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, part = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if part in (1, 4):  # whole, or the last of several
            made = wandb_internal_pb2.Record()
            made.ParseFromString(record)
            yield made
            record = b""


def _wandb(folder: Path, name: str) -> tuple[Values, dict[str, Any]]:
    (path,) = folder.glob("offline-run-*/run-*.wandb")
    values: Values = {}
    facts: dict[str, Any] = {}
    for record in _records(path):
        if record.WhichOneof("record_type") == "run":
            assert record.run.display_name == name
        for update in record.config.update:
            facts[update.key] = json.loads(update.value_json)
        row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for tag, value in row.items():
            if "trainer/global_step" in row and not tag.startswith(("_", "trainer/")) and not isinstance(value, dict):
                values.setdefault(tag, []).append((row["trainer/global_step"], value))
    return values, facts


def _run(out: Path, name: str) -> tuple[Any, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("pretext-bench")
    (run,) = (run for run in client.search_runs([experiment.experiment_id]) if run.info.run_name == name)
    return client, run


def _mlflow(out: Path, name: str) -> tuple[Values, dict[str, Any]]:
    client, run = _run(out, name)
    assert run.info.status == "FINISHED"
    histories = {tag: client.get_metric_history(run.info.run_id, tag) for tag in run.data.metrics}
    return {tag: [(one.step, one.value) for one in history] for tag, history in histories.items()}, dict(run.data.params)
