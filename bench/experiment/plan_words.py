"""A plan in sentences: how long it takes, where that is known from, and what would take less."""

from __future__ import annotations

from collections.abc import Sequence

from bench.experiment.plan import DAY, Plan
from bench.experiment.step_times import StepTimes
from bench.text import duration, shell


def total(seconds: float) -> str:
    """Return an estimate as a sentence, with what it leaves out.

    >>> total(75), total(0)
    ('about 75 s in all on this machine, without packing and files', 'nothing is left to do')
    """
    return f"about {duration(seconds)} in all on this machine, without packing and files" if seconds else "nothing is left to do"


def offered(planned: Plan) -> list[str]:
    """Return a line with how long the same command takes with other protocols, if there are any."""
    if not planned.others or not planned.seconds:
        return []
    each = ", ".join(f"{name} about {duration(seconds)}" for name, seconds in planned.others.items() if seconds)
    return [f"with another protocol: {each} (--protocol NAME)"] if each else []


def warning(planned: Plan, of_study: bool = False) -> list[str]:
    """Return what to say of a plan that takes more than a day: the protocol that takes less, and how to ask for it."""
    if planned.seconds <= DAY:
        return []
    said = f"warning: this takes about {duration(planned.seconds)} on this machine"
    less = {name: seconds for name, seconds in planned.others.items() if seconds < planned.seconds / 2}
    shorter = min(less, key=lambda name: less[name]) if less else None
    if shorter is None:
        return [f"{said}; fewer seeds, tasks or trials take less, and so does a GPU"]
    more = "" if less[shorter] <= DAY else ", and fewer seeds, tasks or trials less than that"
    said += f"; with the protocol {shorter} it takes about {duration(less[shorter])}{more}"
    if of_study:
        return [f'{said} (protocol = "{shorter}" in the study\'s file)']
    return [f"{said}:", f"  {shell(with_protocol(['bench', *planned.session.command], shorter))}"]


def with_protocol(words: Sequence[str], protocol: str) -> list[str]:
    """Return the words of a command with another protocol, and without --plan and --json.

    >>> with_protocol(["bench", "run", "--protocol", "paper", "--plan"], "small")
    ['bench', 'run', '--protocol', 'small']
    """
    kept: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        if not (word in ("--plan", "--json", "--protocol") or before == "--protocol" or word.startswith("--protocol=")):
            kept.append(word)
    return [*kept, "--protocol", protocol]


def origins(times: StepTimes) -> list[str]:
    """Return where the times of steps come from, one line for each origin, and what could not be timed."""
    found: dict[str, list[str]] = {}
    for name, origin in times.origins.items():
        found.setdefault(origin, []).append(name)
    lines = [f"steps {origin}: {'; '.join(names)}" for origin, names in found.items()]
    return [*lines, *(f"warning: a step could not be timed: {problem}" for problem in times.problems)]
