"""The texts of options: read, or refused in a sentence that can be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.config import RunConfig
from bench.errors import UsageError
from bench.experiment import resolve
from bench.models.trunk import TrunkName


def config(**given: Any) -> RunConfig:
    return RunConfig.model_validate({"pretext": "l1_color", "downstream": "voc_seg", **given})


@pytest.mark.parametrize(
    "read",
    [
        lambda text: config(seeds=text),
        lambda text: config(labels=text),
        lambda text: config(schedule=text),
        lambda text: config(tune=8, space=text),
        lambda text: config(tune=8, space=f"head={text}"),
        lambda text: TrunkName.parse(text),
        lambda text: TrunkName.parse(f"unet:depth={text}"),
        lambda text: resolve.resolve(config(set=(text,)), print),
        lambda text: resolve.resolve(config(set=(f"recipe.lr={text}",)), print),
        lambda text: resolve.resolve(config(pretext=text), print),
    ],
)
def test_a_text_of_any_length_is_refused_in_a_sentence(read: Callable[[str], object]) -> None:
    for text in ("x" * 100_000, "9" * 5000 + "x"):
        with pytest.raises(UsageError) as refused:
            read(text)
        assert len(str(refused.value)) < 500


@pytest.mark.parametrize("value", ["[" * 100_000, "9" * 5000, "NaN", "1e999"])
def test_a_setting_that_python_cannot_read_as_json_is_refused_as_a_text(value: str) -> None:
    with pytest.raises(UsageError, match=r"recipe of l1_color: epochs takes a .* but got"):
        resolve.resolve(config(set=(f"recipe.epochs={value}",)), print)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("recipe.epochs=x", "recipe of l1_color: epochs takes a whole number, but got 'x'."),
        ("recipe.epochs=true", "recipe of l1_color: epochs takes a number, but got true."),
        ("recipe.lr=-1", "recipe of l1_color: lr takes more than 0, but got -1."),
        ("recipe.visualize_epochs=3", "recipe of l1_color: visualize_epochs takes a list, but got 3."),
        ("protocol.resize=foo", "protocol small of voc_seg: resize takes 'squash', 'letterbox' or 'crop', but got 'foo'."),
        ("protocol.batch_size=1.5", "protocol small of voc_seg: batch_size takes a whole number, but got 1.5."),
        ("protocol.metrics=[]", "protocol small of voc_seg: metrics takes at least 1 value, but got []."),
        ("protocol.schedules=3", "protocol small of voc_seg: schedules takes a table of settings, but got 3."),
        ('protocol.schedules={"frozen":[{"train":"x"}]}', "schedules.frozen.0.train takes 'head' or 'all', but got 'x'."),
        ("protocol.fit=[]", "protocol small of voc_seg: fit must name train, val or both"),
    ],
)
def test_a_setting_of_the_wrong_type_is_refused_in_our_words(setting: str, said: str, drawn: dict[str, Path]) -> None:
    given = {"pretext": "l1_color", "downstream": "voc_seg", "protocol": "small", "data": str(drawn["demo"]), "set": (setting,)}
    with pytest.raises(UsageError) as refused:
        resolve.resolve(RunConfig.model_validate(given), print)
    assert said in str(refused.value) and "Input" not in str(refused.value)
