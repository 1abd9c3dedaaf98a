"""The texts of options: read, or refused in a sentence that can be read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.cli import options
from bench.errors import UsageError
from bench.experiment import resolve
from bench.experiment.tuning import Search
from bench.models.trunk import TrunkName


@pytest.mark.parametrize(
    "read",
    [
        lambda text: options.seeds_of(None, text),
        lambda text: options.numbers("--labels", text),
        lambda text: Search.parse(8, text),
        lambda text: Search.parse(8, f"head={text}"),
        lambda text: TrunkName.parse(text),
        lambda text: TrunkName.parse(f"unet:depth={text}"),
        lambda text: resolve.resolve(resolve.Request(("l1_color",), ("voc_seg",), settings=(text,)), print),
        lambda text: resolve.resolve(resolve.Request(("l1_color",), ("voc_seg",), settings=(f"recipe.lr={text}",)), print),
        lambda text: resolve.resolve(resolve.Request((text,), ("voc_seg",)), print),
    ],
)
def test_a_text_of_any_length_is_refused_in_a_sentence(read: Callable[[str], object]) -> None:
    for text in ("x" * 100_000, "9" * 5000 + "x"):
        with pytest.raises(UsageError) as refused:
            read(text)
        assert len(str(refused.value)) < 500


@pytest.mark.parametrize("value", ["[" * 100_000, "9" * 5000, "NaN", "1e999"])
def test_a_setting_that_python_cannot_read_as_json_is_refused_as_a_text(value: str) -> None:
    asked = resolve.Request(("l1_color",), ("voc_seg",), settings=(f"recipe.epochs={value}",))
    with pytest.raises(UsageError, match=r"recipe of l1_color: epochs: .* but got"):
        resolve.resolve(asked, print)
