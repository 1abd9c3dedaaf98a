"""A wrong command line is answered in one sentence: what was typed, the rule, and what would be right."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli.options import config_of
from bench.cli.usage import BY_SET
from bench.errors import UsageError

RUN = ("run", "--pretext", "random_init", "--downstream", "voc_seg")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("report", "--seeds", "3"), "no option --seeds in bench report; bench run and bench study have it."),
        (("study", "x", "--epochs", "3"), f"no option --epochs in bench study; it takes {BY_SET['--epochs']}."),
        (("report", "--epochs", "3"), "no option --epochs in bench report; bench run and bench tune have it."),
        (("run", "--pretxt", "a"), "no option --pretxt in bench run; the nearest is --pretext."),
        (("data", "verify", "--zzz"), "no option --zzz in bench data verify; see bench data verify --help."),
        (
            ("run", "--downstream", "a"),
            "name at least one row: --pretext NAME for a pretext task, --init LABEL=SOURCE for weights.",
        ),
        (("run", "--pretext", "a"), "--downstream is missing; see bench run --help."),
        (("show",), "RUN is missing; see bench show --help."),
        (("rnu",), "unknown command 'rnu' of bench; did you mean 'run'? Known: "),
        (("data", "prepre"), "unknown command 'prepre' of bench data; did you mean 'prepare'?"),
        ((*RUN, "--lr", "1"), "no option --lr in bench run; it takes --rates RATE,RATE, one for each phase of fine-tuning, or"),
        ((*RUN, "--iters", "9"), "no option --iters in bench run; it takes --epochs N, or --set protocol.most_steps=N for"),
        ((*RUN, "--dataset", "x"), "no option --dataset in bench run; it takes --data NAME, or --downstream TASK@NAME."),
        ((*RUN, "--batch-size", "4"), "no option --batch-size in bench run; it takes --set protocol.batch_size=VALUE or --set"),
        ((*RUN, "--epoch", "4"), "no option --epoch in bench run; the nearest is --epochs."),
        ((*RUN, "--size", "large"), "--size takes a whole number, but got 'large'."),
        ((*RUN, "--size", "4"), "--size takes at least 8, but got '4'."),
        ((*RUN, "stray"), "got unexpected extra argument(s) (stray); see bench run --help."),
        ((*RUN, "--size"), "option '--size' requires an argument; see bench"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(words: tuple[str, ...], said: str, bench: Callable) -> None:
    done = bench(*words)
    assert (done.code, done.out) == (2, "") and done.err.startswith(f"bench: {said}"), done.err
    assert done.err.count("\n") == 1


def test_a_command_without_words_shows_its_help(bench: Callable) -> None:
    for words in ((), ("data",)):
        done = bench(*words)
        assert done.code == 2 and "Usage: bench" in done.out + done.err


COMMANDS = {
    "run": RUN,
    "tune": ("tune", *RUN[1:], "--trials", "1"),
    "report": ("report",),
    "plan-seeds": ("plan-seeds",),
    "list": ("list", "runs"),
    "show": ("show", "x"),
    "export": ("export", "x", "--to", "y"),
    "reproduce": ("reproduce", "x"),
    "doctor": ("doctor",),
    "status": ("status",),
    "clean": ("clean",),
    "clean KIND": ("clean", "cache"),
    "study": ("study", "."),
}


@pytest.mark.parametrize("below", ["", "/a/b"])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_folder_that_is_a_file_is_refused_alike(command: str, below: str, bench: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = bench(*COMMANDS[command], "--out", f"{tmp_path / 'file'}{below}")
    assert (done.code, done.out, done.err) == (2, "", f"bench: --out takes a folder, but {tmp_path / 'file'} is a file.\n")


def test_every_command_with_an_output_folder_is_tried() -> None:
    import typer

    from bench.cli.app import app

    having = {name for name, one in typer.main.get_command(app).commands.items() if any("--out" in p.opts for p in one.params)}  # type: ignore[attr-defined]
    assert having == {name.partition(" ")[0] for name in COMMANDS}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": 4}, "--size takes at least 8, but got 4."),
        ({"threads": "x"}, "--threads takes a whole number, but got 'x'."),
        ({"tune": True}, "--tune takes a whole number, but got True."),
        ({"set": [3]}, "--set takes a text, but got 3."),
        ({"vary": 3}, "--vary takes 'all' or 'finetune', but got 3."),
        ({"compile": "perhaps"}, "--compile takes true or false, but got 'perhaps'."),
        ({"checkpoint_seconds": "soon"}, "--checkpoint-seconds takes a number, but got 'soon'."),
        ({"labels": [0]}, "--labels takes shares above 0 and at most 1, for example 0.01,0.1,1, but got 0."),
    ],
)
def test_a_wrong_type_is_told_in_our_words(given: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        config_of({"pretext": "a", "downstream": "b", **given})
    assert str(raised.value) == said
