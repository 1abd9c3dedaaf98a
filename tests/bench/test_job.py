"""Ids: everything in a job that is no default, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field, create_model

from bench import registry
from bench.config import RunConfig
from bench.experiment.jobs import recipe_of
from bench.experiment.resolve import resolve
from bench.experiment.search import Search
from bench.job import Job, PretrainJob
from bench.probe import PROBES
from bench.protocol import Phase, Protocol, Recipe
from bench.schema import Schema, canonical

DEFAULTS = Path(__file__).with_name("defaults.json")
PRETRAIN: dict[str, Any] = {
    "pretext": "a", "version": 1, "recipe": {"lr": 0.1, "epochs": 2}, "trunk": "unet", "size": 32,
    "data_fingerprint": "x", "splits_fingerprint": "y", "seed": 0,
}  # fmt: skip
PROTOCOL: dict[str, Any] = {
    "summary": "s", "split_scheme": "official", "resize": "squash", "batch_size": 8, "metrics": ("acc_keras",),
    "schedules": {"frozen": (Phase(train="head", epochs=1, lr=0.1),)},
}  # fmt: skip


def job(**changes: Any) -> dict[str, Any]:
    return {
        "pretrain": PretrainJob(**PRETRAIN), "downstream": "d", "version": 1, "protocol": "p", "settings": Protocol(**PROTOCOL),
        "schedule": "frozen", "size": 32, "data_fingerprint": "x", "splits_fingerprint": "y", "seed": 0, **changes,
    }  # fmt: skip


def with_a_new_field(model: type[Schema], **base: Any) -> type[Schema]:
    return create_model(model.__name__, __base__=model, shiny=(int, 3), **base)


def test_an_id_depends_on_everything_in_the_job_and_on_nothing_else() -> None:
    one = PretrainJob(**PRETRAIN)
    assert one.id == PretrainJob(**{**PRETRAIN, "recipe": {"epochs": 2, "lr": 0.1}}).id
    changes = {"version": 2, "recipe": {"lr": 0.2}, "trunk": "t", "size": 64, "data_fingerprint": "z", "splits_fingerprint": "z"}
    changes |= {"seed": 1, "source": "s", "pretext": "b"}
    assert len({one.id, *(one.model_copy(update={name: value}).id for name, value in changes.items())}) == 1 + len(changes)
    run = Job(**job())
    other = {"downstream": "e", "version": 2, "source": "s", "protocol": "q", "size": 64, "data_fingerprint": "z", "seed": 1}
    other |= {"splits_fingerprint": "z", "split": "val", "transfer": "encoder", "statistics_version": 2, "labels": 0.1}
    other |= {"rates": (0.5,), "study": "t", "trials": 3, "pretrain": one.model_copy(update={"seed": 1})}
    other |= {"settings": Protocol(**{**PROTOCOL, "batch_size": 16})}
    assert len({run.id, *(run.model_copy(update={name: value}).id for name, value in other.items())}) == 1 + len(other)


def test_a_new_field_changes_no_id_until_it_is_set() -> None:
    """Add a field to a recipe, a protocol, a pretraining job and a job: every id stays."""
    recipe = registry.load("pretexts", "cgan_color").Recipe
    newer = with_a_new_field(recipe)
    given = {"epochs": 2, "l1_weight": 1.0}
    assert newer(**given).identity() == recipe(**given).identity() != newer(**given, shiny=4).identity()
    pretraining = with_a_new_field(PretrainJob)
    assert pretraining(**PRETRAIN).id == PretrainJob(**PRETRAIN).id != pretraining(**PRETRAIN, shiny=4).id
    protocol = with_a_new_field(Protocol)
    before, after = Job(**job()), with_a_new_field(Job, settings=(protocol, ...))
    assert after(**job(settings=protocol(**PROTOCOL))).id == before.id
    assert after(**job(settings=protocol(**PROTOCOL, shiny=4))).id != before.id
    assert after(**job(settings=protocol(**PROTOCOL)), shiny=4).id != before.id


def test_a_changed_default_has_a_version_in_the_id() -> None:
    class Newer(PretrainJob):
        source: str = "built in"
        defaults_version: ClassVar[int] = 2

    assert Newer(**PRETRAIN).id != PretrainJob(**PRETRAIN).id


def test_what_is_told_only_is_in_no_id() -> None:
    assert Job(**job()).id == Job(**job(settings=Protocol(**{**PROTOCOL, "summary": "other words"}))).id


def known_defaults() -> dict[str, Any]:
    """Return the defaults that ids leave out, each with the version that must rise when one of them changes."""

    def of(model: type[Schema], version: int) -> dict[str, Any]:
        empty = model.model_construct()
        optional = {name for name, field in model.model_fields.items() if not field.is_required()}
        return {"version": [version, model.defaults_version], "defaults": empty.model_dump(mode="json", include=optional)}

    plugins = {name: registry.load("pretexts", name) for name in registry.summaries("pretexts")}
    found = {f"recipe of {name}": of(plugin.Recipe, plugin.version) for name, plugin in plugins.items()}
    return found | {model.__name__: of(model, 0) for model in (PretrainJob, Job, Protocol, Phase, Search, *PROBES.values())}


@pytest.mark.parametrize("name", known_defaults())
def test_a_default_changes_with_a_version_alone(name: str) -> None:
    """`defaults.json` holds today's defaults. A new field is added to it; a changed default comes with a higher version."""
    known, found = json.loads(DEFAULTS.read_text())[name], known_defaults()[name]
    assert found["version"] == known["version"], "the version was raised: write it and today's defaults into defaults.json"
    assert {field: found["defaults"].get(field) for field in known["defaults"]} == known["defaults"], (
        "ids leave defaults out: raise the version of the task, or `defaults_version` of the model"
    )
    assert found["defaults"].keys() == known["defaults"].keys(), "write the new field's default into defaults.json"


def test_a_recipe_of_a_later_version_is_read_again() -> None:
    class Later(registry.load("pretexts", "l1_color").Recipe):  # type: ignore[misc]
        defaults_version: ClassVar[int] = 2

    made = PretrainJob(**{**PRETRAIN, "pretext": "l1_color", "recipe": Later(epochs=2).identity()})
    assert made.recipe["defaults_version"] == 2 and recipe_of(made).epochs == 2


def test_a_default_that_is_computed_is_always_in_the_id() -> None:
    weights = ["one"]

    class Loading(Recipe):
        sha256: str = Field(default_factory=lambda: weights[0])

    first = Loading().digest()
    weights[0] = "other"
    assert Loading().digest() != first


def test_a_job_of_defaults_has_none_of_them_in_its_id(drawn: dict[str, Path]) -> None:
    data = {"data": str(drawn["demo"]), "pretrain_data": str(drawn["demo_unlabelled"]), "protocol": "paper", "size": 64}
    asked = {"pretext": "l1_color", "downstream": "voc_cls", "schedule": "two-phase", **data}
    (job,) = resolve(RunConfig.model_validate(asked), print).jobs
    assert job.pretrain.recipe == {} and "statistics" not in canonical(job.identity())
    (other,) = resolve(RunConfig.model_validate({**asked, "set": ("recipe.lr=0.5",)}), print).jobs
    assert other.pretrain.recipe == {"lr": 0.5}


def test_a_copy_of_a_job_whose_id_is_known_has_an_id_of_its_own() -> None:
    """Ids are kept once they are computed; no copy may keep another's."""
    first = Job.model_validate(job())
    assert first.id == first.model_copy().id == Job.model_validate(job()).id and first == Job.model_validate(job())
    other = first.model_copy(update={"seed": 1})
    assert other.id == Job.model_validate(job(seed=1)).id != first.id
    trunk = first.pretrain
    assert trunk.id == PretrainJob(**PRETRAIN).id and trunk.model_copy(update={"seed": 1}).id != trunk.id
    assert "id" not in first.model_dump() and first.with_changes({"seed": 2}, "a job").id != first.id
