"""Names that would be markup, formulas or commands elsewhere, through the command line and into everything that it writes."""

import csv
import os
import pty
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from bench import text
from results import latex, sheets
from tests.data.made import devkit

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
PLUGINS = (
    "<script>alert(1)<script>",
    "[red]x[red]",
    "a_b%&$#{}~^\\",
    "=cmd|' C calc'!A0",
    "\x1b[31mred",
    "`b` | **c** [d](e) _f_",
)
CLASSES = ("<script>alert(1)</script>", "[red]y[/red]", "a_b%&$#{}~^\\", "=cmd|' /C calc'!A0", "\x1b[31mred", "@SUM(1)\t|`*")
FOLDER = "\t=<b>[red]d_a%|`\x9b31m\\"


@pytest.fixture(scope="module")
def hostile(drawn: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with runs of plug-ins, data and classes with hostile names, and the pages and tables of `bench report`."""
    place = tmp_path_factory.mktemp("hostile")
    data = Path(shutil.copytree(drawn["demo"], place / FOLDER))
    known = (devkit(data) / "classes.txt").read_text().split()
    renamed = dict(zip(known, CLASSES, strict=False))
    (devkit(data) / "classes.txt").write_text("\n".join(renamed.get(name, name) for name in known))
    for path in (devkit(data) / "Annotations").glob("*.xml"):
        annotation = path.read_text()
        # XML has no way to write an escape sequence: that class is in the list, and its objects have another one's name.
        for name, new in renamed.items():
            annotation = annotation.replace(
                f"<name>{name}</name>", f"<name>{escape(new if new.isprintable() else known[-1])}</name>"
            )
        path.write_text(annotation)
    plugins = []
    for name in PLUGINS:
        (place / f"{name}.py").write_text((ROOT / "pretexts" / "random_init.py").read_text())
        plugins += ["--plugin", str(place / f"{name}.py")]
    arguments = ["--pretext", ",".join(PLUGINS), "--downstream", "voc_seg", "--schedule", "one-phase", "--data", str(data)]
    arguments += ["--trunk", "unet:depth=5,width=8", "--size", "32", "--threads", "1", "--device", "cpu", "--protocol", "demo"]
    arguments += ["--set", "protocol.head_width=16", "--out", str(place / "runs")]
    (place / "run.txt").write_bytes(bench(place, "run", *plugins, *arguments))
    (place / "report.txt").write_bytes(bench(place, "report", "--html", "--out", str(place / "runs")))
    return place


def bench(place: Path, *arguments: str) -> bytes:
    """Return what the program prints into a pipe."""
    words = [sys.executable, "-m", "bench", *arguments]
    done = subprocess.run(words, env=variables(place), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout


def variables(place: Path, **others: str) -> dict[str, str]:
    return {**os.environ, "PRETEXT_BENCH_HOME": str(place / "home"), "TERM": "xterm-256color", "COLUMNS": "250", **others}


def on_terminal(place: Path, *arguments: str, **others: str) -> str:
    """Return what the program writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments], env=variables(place, **others), stdout=theirs, stderr=theirs, cwd=ROOT
    ) as process:
        os.close(theirs)
        found = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the terminal's other end is closed
                break
            if not piece:
                break
            found += piece
    os.close(ours)
    assert process.returncode == 0, found.decode()
    return found.decode()


def controls(content: str) -> set[str]:
    return {character for character in content if character != "\n" and text.printable(character) != character}


@pytest.mark.parametrize("file", ["run.txt", "report.txt"])
def test_in_a_pipe_names_are_as_they_are_and_nothing_moves_the_cursor(hostile: Path, file: str) -> None:
    shown = (hostile / file).read_text()
    assert controls(shown) == set()
    for name in PLUGINS:
        assert text.printable(name).strip() in shown
    assert text.printable(FOLDER) in shown


@pytest.mark.parametrize("no_color", [False, True])
@pytest.mark.parametrize("what", [("report",), ("list", "runs")])
def test_on_a_terminal_no_name_is_markup(hostile: Path, what: tuple[str, ...], no_color: bool) -> None:
    shown = on_terminal(hostile, *what, "--out", str(hostile / "runs"), **({"NO_COLOR": "1"} if no_color else {}))
    assert "[red]x[red]" in shown and "[31mred" in shown and "\x9b" not in shown and "\x1b[31mred" not in shown
    if no_color:
        assert not re.search(r"\x1b\[[0-9;]*(3[0-8]|4[0-8]|9[0-7])[0-9;]*m", shown)


def test_the_screen_shows_a_command_that_a_shell_reads_as_it_was_given(hostile: Path) -> None:
    run = next(path.name for path in (hostile / "runs" / "runs").iterdir() if path.name.startswith("\x1b"))
    plugin = str(hostile / f"{PLUGINS[4]}.py")
    shown = bench(hostile, "show", run, "--plugin", plugin, "--out", str(hostile / "runs")).decode()
    assert controls(shown) <= {"\t"}
    command = shown.splitlines()[-1]
    read = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command}"], env={**os.environ, "LC_ALL": "C.UTF-8"}, capture_output=True
    )
    words = read.stdout.decode().split("\0")
    assert words[words.index("--pretext") + 1] == PLUGINS[4] and words[words.index("--data") + 1] == str(hostile / FOLDER)


def test_a_record_as_json_moves_no_cursor(hostile: Path) -> None:
    run = next(path.name for path in (hostile / "runs" / "runs").iterdir() if path.name.startswith("\x1b"))
    shown = bench(hostile, "show", run, "--json", "--out", str(hostile / "runs")).decode()
    assert controls(shown) == set() and "\\u009b31m" in shown


@pytest.mark.parametrize("file", ["leaderboard.csv", "per_run.csv", "per_class.csv", "agreement.csv"])
def test_no_cell_of_a_csv_file_is_a_formula(hostile: Path, file: str) -> None:
    content = (hostile / "runs" / file).read_text()
    cells = [cell for row in csv.reader(content.splitlines()) for cell in row]
    assert controls(content) == set()
    formulas = [cell for cell in cells if cell.strip()[:1] in tuple("=+-@") and not re.fullmatch(r"-?[0-9.e-]+", cell)]
    assert formulas == []
    assert file == "agreement.csv" or "'=cmd|' C calc'!A0" in cells  # that one names no pretext task


@pytest.mark.parametrize(
    "value", ["=1+1", "+1", "-1", "@A1", "\t=1+1", "\r=1+1", " =1+1", "\n@A1", "\u00a0=1+1", "\uff1d1+1", "\uff0b1", "\x1b=1"]
)
def test_what_begins_a_formula_is_found_behind_white_space(value: str) -> None:
    written = sheets.csv_text(sheets.Sheet({"a": "a text"}, [{"a": value}]))
    assert written.splitlines()[1].lstrip('"').startswith("'") and controls(written) == set()


class Tags(HTMLParser):
    """Counts the tags of a page and keeps its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attributes]


def test_the_page_has_no_tag_and_no_handler_of_a_name(hostile: Path) -> None:
    page = (hostile / "runs" / "report.html").read_text()
    found = Tags(page)
    assert found.tags["script"] == 1 and found.tags["b"] == 1 and found.tags["red"] == 0
    assert [name for name, _ in found.attributes if name.startswith("on")] == []
    assert all(value.startswith(("data:", "#")) for name, value in found.attributes if name in ("src", "href"))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "&lt;script&gt;alert(1)&lt;script&gt;" in page
    assert controls(page) == set()


def unescaped(content: str, character: str) -> Iterator[str]:
    """Yield what stands around each place of a character that an even number of backslashes stands before."""
    for found in re.finditer(rf"(?<!\\)(?:\\\\)*{re.escape(character)}", content):
        yield content[max(0, found.start() - 20) : found.end() + 20]


def test_markdown_has_rows_of_as_many_cells_as_columns_and_no_markup_of_a_name(hostile: Path) -> None:
    content = (hostile / "runs" / "table4.md").read_text()
    assert controls(content) == set()
    tables = [block.splitlines() for block in content.split("\n\n") if block.startswith("|")]
    for table in tables:
        assert len({len(list(unescaped(row, "|"))) for row in table}) == 1
    for character in ("<", "`"):
        assert list(unescaped(content, character)) == []
    assert r"\`b\` \| \*\*c\*\* [d]\(e) \_f\_" in content and r"a_b%&$#{}\~^\\" in content


def test_latex_has_no_command_of_a_name(hostile: Path) -> None:
    first, _, content = (hostile / "runs" / "table4.tex").read_text().partition("\n")
    assert controls(content) == set() and first == latex.PREAMBLE
    own = r"begin|end|caption|toprule|midrule|bottomrule|multicolumn|emph|textbf|pm|text[a-z]+|columnwidth|par|smallskip"
    own += r"|footnotesize|setlength|tabcolsep|hsize|raggedright|arraybackslash|hspace|allowbreak|S"
    assert re.findall(r"\\([A-Za-z]+)", re.sub(rf"\\({own})\b", "", content)) == []
    for character in "%$#_~^":
        assert [place for place in unescaped(content, character) if "pm" not in place] == []
    ampersands = [
        len(list(unescaped(line, "&"))) for line in content.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
    ]
    assert set(ampersands) == {1, 7}
    assert r"a\_b\%\&\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}" in content
    assert r"=cmd\textbar{}' C calc'!A0" in content
