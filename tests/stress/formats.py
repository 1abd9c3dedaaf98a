"""Every format that the program reads, by name."""

from __future__ import annotations

from pathlib import Path

from tests.stress import commands, options, sources, written
from tests.stress.cases import Format
from tests.stress.ground import Ground


def formats_below(folder: Path, seeds: Path | None = None) -> dict[str, Format]:
    """Return every format by name; its example lies below `folder`, and `seeds` is a VOC folder with more examples."""
    ground = Ground(folder)
    found = {
        form.name: form
        for form in (
            *sources.images(folder, seeds),
            *sources.masks(folder, seeds),
            *sources.lists(ground, seeds),
            *written.stored(ground),
            *written.networks(ground),
            *written.results(ground),
            *options.texts(ground),
        )
    }
    return found | {form.name: form for form in commands.commands(ground, found)}
