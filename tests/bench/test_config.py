"""The texts of options: read, or refused in a sentence that can be read."""

from __future__ import annotations

from collections.abc import Callable
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
    with pytest.raises(UsageError, match=r"recipe of l1_color: epochs: .* but got"):
        resolve.resolve(config(set=(f"recipe.epochs={value}",)), print)
