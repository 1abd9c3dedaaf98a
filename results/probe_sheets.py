"""The values of the tables about probes and protocols, for JSON documents and data frames."""

from __future__ import annotations

from collections.abc import Sequence

from results import lowshot, representations, selection, sensitivity, variation, watched
from results.sheets import Sheet, sheet, texts

PROBE_TABLES = {
    "lowshot": texts(lowshot.FIELDS),
    "diagnostics": texts(representations.FIELDS),
    "watched": texts(watched.FIELDS),
    "selection": texts(selection.FIELDS),
    "sensitivity": texts(sensitivity.FIELDS),
    "variation": texts(variation.FIELDS),
}
"""What the columns of each table mean, in order, by the table's name. The first three are there where runs have them, the others
where they are asked for."""


def of_probes(
    samples: Sequence[lowshot.Sample], levels: Sequence[representations.Level], seen: Sequence[watched.Seen]
) -> dict[str, Sheet]:
    """Return the sheets of what runs have: low-shot scores by shots, diagnostics of features by level, curves of pretraining."""
    found = {
        "lowshot": sheet(lowshot.FIELDS, samples),
        "diagnostics": sheet(representations.FIELDS, levels),
        "watched": sheet(watched.FIELDS, seen),
    }
    return {name: one for name, one in found.items() if one.lines}


def inflations(found: Sequence[selection.Inflation]) -> dict[str, Sheet]:
    """Return the sheet of what choosing on the test split would have reported."""
    return {"selection": sheet(selection.FIELDS, found)}


def sensitivities(found: Sequence[sensitivity.Compared]) -> dict[str, Sheet]:
    """Return the sheet of how columns order the same rows."""
    return {"sensitivity": sheet(sensitivity.FIELDS, found)}


def variations(found: Sequence[variation.Share]) -> dict[str, Sheet]:
    """Return the sheet of how variation is divided among what runs differ in."""
    return {"variation": sheet(variation.FIELDS, found)}
