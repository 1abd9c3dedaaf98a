"""How a tensor's name is taken apart and put together: the parts between dots, some of them numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

Naming = Callable[[Iterable[str]], dict[str, str] | None]
"""Takes the names of timm's plain model in order; returns for each its name elsewhere, or None where one has none there."""


class Nameless(Exception):
    """A tensor that the other model does not have."""


def one_by_one(translate: Callable[[list[str]], str]) -> Naming:
    """Return the naming that translates each name by itself; `translate` gets its parts and may raise Nameless."""

    def naming(names: Iterable[str]) -> dict[str, str] | None:
        try:
            return {name: translate(name.split(".")) for name in names}
        except Nameless:
            return None

    return naming


def join(*parts: object) -> str:
    """Return the parts with dots between them."""
    return ".".join(map(str, parts))


def inside(parts: list[str], table: Mapping[str, str]) -> str:
    """Return the end of a name with its beginning replaced by the first entry of `table` that fits; Nameless for none."""
    rest = ".".join(parts)
    for here, there in table.items():
        if rest == here or rest.startswith(f"{here}."):
            return there + rest[len(here) :]
    raise Nameless(rest)
