"""Command-line options made from the fields of `RunConfig`, where name, type, default, range and help text are defined once."""

from __future__ import annotations

import inspect
import os
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import annotated_types
import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from bench.cli import completion, launching
from bench.config import MachineConfig, RunConfig
from bench.errors import UsageError
from bench.schema import complaint


def checked(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """Return the folder that an option names, which need not exist; UsageError for a file, and for a path below a file."""
    for place in (value, *value.parents) if value is not None else ():
        if os.path.exists(place) and not os.path.isdir(place):  # noqa: PTH110, PTH112 - these take what may not be read for missing
            raise UsageError(f"{param.opts[0]} takes a folder, but {place} is a file.")
    return value


Out = Annotated[Path, typer.Option("--out", help="Folder of pretrained trunks, runs and tables.", callback=checked)]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="A Python file with one plug-in; its name is the file's.")]
Plan = Annotated[bool, typer.Option("--plan", help="Say what would run and how long it would take; train nothing.")]

Command = Callable[..., None]


def fields(without: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the names of `RunConfig`'s fields except those in `without`; the fields of `MachineConfig` come last."""
    machine = MachineConfig.model_fields
    own = [name for name in RunConfig.model_fields if name not in machine]
    return tuple(name for name in (*own, *machine) if name not in without)


def configured(*names: str) -> Callable[[Command], Command]:
    """Return a decorator that gives a command an option for each named field of `RunConfig`.

    The command's parameter `options` gets the options that the user gave, as a dictionary by name, and its parameter `launch`,
    if it has one, what the options of a launch say. Typer reads the command's own signature with these options in their place.
    """

    def decorate(command: Command) -> Command:
        def call(**given: Any) -> None:
            chosen = {name: given.pop(name) for name in names}
            if launches:
                given["launch"] = launching.wanted({name: given.pop(name) for name in launching.OPTIONS})
            command(options={_name(name): value for name, value in chosen.items() if value is not None}, **given)

        own, parameters = inspect.signature(command, eval_str=True).parameters, list[inspect.Parameter]()
        launches = "launch" in own
        for name, parameter in own.items():
            of_several = {"options": lambda: [*map(option, names)], "launch": launching.parameters}
            parameters += of_several[name]() if name in of_several else [parameter]
        required = [one for one in parameters if one.default is inspect.Parameter.empty]
        optional = [one for one in parameters if one.default is not inspect.Parameter.empty]
        ordered = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*required, *optional)]
        call.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
        call.__annotations__ = {one.name: one.annotation for one in ordered}
        call.__name__, call.__doc__, call.__module__ = command.__name__, command.__doc__, command.__module__
        return call

    return decorate


def option(name: str) -> inspect.Parameter:
    """Return the option of a field: its value is None when the user leaves it out, and is validated by `RunConfig` later."""
    field = RunConfig.model_fields[name]
    flag, kind = f"--{_name(name).replace('_', '-')}", _kind(field)
    shown = None if field.is_required() else _text(field.get_default(call_default_factory=True))
    least: Any = next((limit.ge for limit in field.metadata if isinstance(limit, annotated_types.Ge)), None)
    declared = typer.Option(
        flag, help=field.description, show_default=shown or False, min=least, autocompletion=completion.of_field(name)
    )
    default = inspect.Parameter.empty if field.is_required() else None
    kind = kind if field.is_required() else kind | None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, declared])


def config_of(options: dict[str, Any]) -> RunConfig:
    """Return the configuration of a command's options; UsageError names the option that is wrong."""
    try:
        return RunConfig.model_validate(options)
    except ValidationError as error:
        raise _usage_error(error) from error


def machine_of(options: dict[str, Any]) -> MachineConfig:
    """Return the machine's configuration from a command's options; UsageError names the option that is wrong."""
    try:
        return MachineConfig.model_validate(options)
    except ValidationError as error:
        raise _usage_error(error) from error


def _usage_error(error: ValidationError) -> UsageError:
    where = error.errors()[0]["loc"]
    return UsageError(f"{complaint(error, '--' + str(where[0]).replace('_', '-') if where else '')}.")


def _name(name: str) -> str:
    """Return a field's name as an option: its alias, if it has one."""
    return RunConfig.model_fields[name].alias or name


def _kind(field: FieldInfo) -> Any:
    """Return the type that Typer parses for a field: bool, int, float, list[str] for a repeated option, else str."""
    kind = field.annotation
    if get_origin(kind) in (Union, types.UnionType):
        (kind, *_) = (one for one in get_args(kind) if one is not types.NoneType)
    if kind in (bool, int, float):
        return kind
    return list[str] if kind == tuple[str, ...] and not field.metadata else str


def _text(default: Any) -> str:
    """Return a default as the user would type it; "" for a default that is None, False or empty."""
    if isinstance(default, tuple):
        return ",".join(f"{one:g}" if isinstance(one, float) else str(one) for one in default)
    return "" if default in (None, False, {}, "") else f"{default:g}" if isinstance(default, float) else str(default)
