"""A task's own recipe against presets: what a plug-in's class says wins over presets that it only inherits."""

from typing import ClassVar

import pytest

from bench import registry
from bench.contract import Pretext, Recipe

L1 = registry.load("pretexts", "l1_color")


class NoEpochs(Recipe):
    epochs: int = 0


class Derived(NoEpochs):
    batch_size: int = 7


class Inherits(L1):
    Recipe = NoEpochs


class Grandchild(Inherits):
    Recipe = Derived


class Owns(L1):
    Recipe = NoEpochs
    presets: ClassVar = {"small": {"epochs": 5}}


@pytest.mark.parametrize(
    ("plugin", "epochs", "batch_size"), [(L1, 12, 16), (Inherits, 0, 16), (Grandchild, 0, 7), (Owns, 5, Recipe().batch_size)]
)
def test_an_own_default_wins_over_an_inherited_preset(plugin: type[Pretext], epochs: int, batch_size: int) -> None:
    recipe = plugin.default_recipe("small")
    assert (recipe.epochs, recipe.batch_size) == (epochs, batch_size)
    assert plugin.default_recipe("paper").epochs == plugin.Recipe().epochs


@pytest.mark.parametrize("name", sorted(registry.summaries("pretexts")))
def test_the_presets_of_the_tasks_here_are_all_their_own(name: str) -> None:
    plugin = registry.load("pretexts", name)
    for protocol, preset in plugin.presets.items():
        recipe = plugin.default_recipe(protocol)
        assert {key: getattr(recipe, key) for key in preset} == preset
