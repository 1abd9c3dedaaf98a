"""What is wrong with a command line, in one sentence: the errors of Typer's parser in our words.

The parser's errors are recognised by what they hold: their classes have moved between versions of Typer.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from bench.errors import UsageError, unknown
from bench.protocol import Protocol, Recipe
from bench.schema import complaint
from bench.text import printable

BY_SET = {"--epochs": "--set protocol.epochs=N"}
"""Options that a command without them takes as a setting, if it takes settings."""
_RATES = "--rates RATE,RATE, one for each phase of fine-tuning, or --set recipe.lr=RATE for pretraining"
_STEPS = "--epochs N, or --set protocol.most_steps=N for training steps"
CALLED = {
    "--lr": _RATES, "--rate": _RATES, "--learning-rate": _RATES, "--lrs": _RATES,
    "--iterations": _STEPS, "--iters": _STEPS, "--steps": _STEPS, "--max-steps": _STEPS,
    "--dataset": "--data NAME, or --downstream TASK@NAME", "--datasets": "--downstream TASK@NAME,TASK@NAME",
    "--task": "--downstream TASK", "--tasks": "--downstream TASK,TASK", "--method": "--pretext NAME",
    "--model": "--trunk NAME", "--backbone": "--trunk NAME", "--arch": "--trunk NAME", "--encoder": "--trunk NAME",
    "--weights": "--init LABEL=FILE", "--checkpoint": "--init LABEL=FILE", "--pretrained": "--init LABEL=FILE",
    "--output": "--out DIR", "--output-dir": "--out DIR", "--gpu": "--device cuda:N", "--gpus": "--device cuda:N",
    "--num-workers": "--workers N", "--image-size": "--size N", "--img-size": "--size N",
}  # fmt: skip
"""What other programs call an option or a setting of this one, and what it is called here."""


def is_parsers(error: Exception) -> bool:
    """Tell whether an error is one of the parser's, about what the user typed."""
    return hasattr(error, "format_message") and hasattr(error, "ctx")


def in_words(error: Any) -> UsageError:
    """Return one of the parser's errors as one of ours: what was typed, the rule, and what would be right."""
    context, param = error.ctx, getattr(error, "param", None)
    here = context.command_path if context else "bench"
    see = f"see {here} --help"
    message = str(error.format_message()).rstrip(".")
    option = getattr(error, "option_name", None)
    if type(error).__name__ == "MissingParameter" and param is not None:
        return UsageError(f"{_name(param)} is missing; {see}.")
    if type(error).__name__ == "NoSuchOption" and context:
        return UsageError(f"no option {printable(str(option))} in {here}; {_instead(str(option), context) or see}.")
    if param is not None:
        cause = error.__cause__
        said = complaint(cause, _name(param)) if isinstance(cause, ValidationError) else f"{_name(param)}: {error.message}"
        return UsageError(f"{said.rstrip('.')}.")
    known = getattr(context.command, "commands", {}) if context else {}
    wrong = re.match(r"No such command '([^']*)'", message)
    if wrong and known:
        return unknown("command", wrong[1], known, f" of {here}")
    return UsageError(f"{message[:1].lower()}{message[1:]}; {see}.")


def _name(param: Any) -> str:
    """Return a parameter as it is typed: --out, or RUN for an argument."""
    opts = [one for one in param.opts if one.startswith("--")]
    return opts[0] if opts else str(param.metavar or param.name).upper()


def _instead(option: str, context: Any) -> str:
    """Return what to type instead of an option that a command has not: a setting, a near option, or a command that has it."""
    own = [name for param in context.command.params for name in param.opts if name.startswith("--")]
    having = [path for path, command in _commands(context.find_root()) if any(option in one.opts for one in command.params)]
    if option in BY_SET and "--set" in own:
        return f"it takes {BY_SET[option]}"
    if option in CALLED and CALLED[option].split()[0] in own:
        return f"it takes {CALLED[option]}"
    setting = option.removeprefix("--").replace("-", "_")
    owners = [owner for owner, model in (("protocol", Protocol), ("recipe", Recipe)) if setting in model.model_fields]
    if owners and "--set" in own:
        return f"it takes {' or '.join(f'--set {owner}.{setting}=VALUE' for owner in owners)}"
    if having:
        return f"{' and '.join(having)} {'have' if len(having) > 1 else 'has'} it"
    near = difflib.get_close_matches(option, own, n=1, cutoff=0.5)
    return f"the nearest is {near[0]}" if near else ""


def _commands(root: Any) -> Iterator[tuple[str, Any]]:
    """Yield every command, with the words that call it."""
    for name, command in root.command.commands.items():
        inner = getattr(command, "commands", {})
        yield from ((f"bench {name} {one}", it) for one, it in inner.items())
        if not inner:
            yield f"bench {name}", command
