"""Tables as LaTeX compile, fit a column, and have no doubled rules."""

import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from results import tables
from results.board import MARKS
from results.latex import PREAMBLE, latex
from results.tables import Line, Table
from tests.results.made import boards, seeds, tuning

RULES = re.compile(r"\\(?:top|mid|bottom)rule")
COLUMN = 252
"""Points: a column of IEEE's and MDPI's two-column papers."""
DOCUMENT = r"""\documentclass[twocolumn]{article}
%s
\setlength{\textwidth}{516pt}\setlength{\columnsep}{12pt}
\begin{document}
\typeout{a column has \the\columnwidth}
%s
\end{document}
"""


def four_rows() -> list[Table]:
    """Return all tables of the four rows of Table 4: both baselines, colorization, and a trivial predictor for each task."""
    records = []
    ranges = {"head": (1e-4, 1e-2), "all": (1e-5, 1e-3)}
    for downstream in ("voc_cls", "voc_seg"):
        for pretext, schedule in (("random_init", "one-phase"), ("random_init", "two-phase"), ("cgan_color", "two-phase")):
            search = tuning(f"{pretext} {schedule} {downstream}", ranges=ranges, drawn=(("all",), ("head",)))
            changes = {"downstream": downstream, "schedule": schedule, "trunk": "unet:depth=8,width=64", "tuning": search}
            records += seeds(pretext, (0.5, 0.52, 0.51), **changes)
    (board,) = boards(records)
    made = [kind(board) for kind in (tables.table4, tables.differences, tables.searches, tables.costs)]
    return [table for table in made if table is not None] + tables.table3(records)


def hostile() -> Table:
    name = "a_b%&$#{}~^\\<>[]|`\"'--- " + "w" * 60 + "_" + "x" * 30
    letters = " ".join([*map(chr, range(0xA1, 0x250)), *"α猫ﬁ％≤😀–—‘’“”•…", "e\u0301", "\u0301", "\u200b"])
    rows = (Line((name,) * 4, frozenset({1}), heading=True), Line((name, name, name, letters), frozenset({2})))
    return Table(name, (name, " ".join(MARKS), letters), ("a", "b", name, letters), rows)


def compiled(text: str, folder: Path) -> str:
    """Return what TeX says of a document with some tables; skip where there is no TeX with the packages."""
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex on the PATH")
    found = subprocess.run(["kpsewhich", "booktabs.sty", "tabularx.sty"], capture_output=True, text=True, check=False)
    if len(found.stdout.split()) < 2:
        pytest.skip("this TeX has no booktabs or tabularx")
    (folder / "document.tex").write_text(DOCUMENT % (PREAMBLE.partition(": ")[2], text), encoding="utf-8")
    command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said[-1500:]
    assert f"a column has {COLUMN}.0pt" in said
    return said


def test_the_four_rows_of_table_4_fit_a_column(tmp_path: Path) -> None:
    table = four_rows()[0]
    assert len([row for row in table.rows if not row.heading]) == 6 and "tuned, 8 trials" in table.columns[2]
    said = compiled(latex([table]), tmp_path)
    assert r"\begin{tabularx}{\columnwidth}" in latex([table]) and "Overfull" not in said and "(1 page" in said


def test_every_table_compiles(tmp_path: Path) -> None:
    assert "Overfull" not in compiled(latex(four_rows()), tmp_path)


def test_a_table_with_hostile_names_compiles(tmp_path: Path) -> None:
    compiled(latex([hostile()]), tmp_path)


def test_what_is_wider_than_a_column_is_seen(tmp_path: Path) -> None:
    """The measure itself: one word that no line holds."""
    assert "Overfull" in compiled(latex([Table("t", (), ("a", "b"), (Line(("x", "w" * 90)),))]), tmp_path)


def test_no_rule_follows_another() -> None:
    text = latex([*four_rows(), hostile()])
    lines = [line for line in text.splitlines() if line]
    assert sum(bool(RULES.search(line)) for line in lines) > 15
    for line, following in pairwise(lines):
        assert not (RULES.search(line) and RULES.search(following)), (line, following)


def test_notes_stand_below_the_table_and_the_caption_is_its_title() -> None:
    (text,) = [block for block in latex(four_rows()[:1]).split("\n\n") if "table" in block and block != PREAMBLE]
    caption = re.search(r"\\caption\{(.*)\}\n", text)
    assert caption is not None and len(caption[1]) < 130 and caption[1].startswith("voc, protocol paper")
    assert text.index("Bold: with 95") > text.index(r"\end{tabularx}")
    assert r"\begin{table}" in text and r"{\columnwidth}" in text
    assert r"\begin{table*}" in latex(four_rows()[1:2])


def test_an_option_keeps_its_two_hyphens() -> None:
    assert r"-{}-space all=\allowbreak{}2e-06:\allowbreak{}0.005 \\" in latex(
        [Table("t", (), ("a",), (Line(("--space all=2e-06:0.005",)),))]
    )


def test_every_letter_has_something_that_stands_for_it() -> None:
    text = latex([Table("t", (), ("Ünal, α 猫, e\u0301, ąŁ, ％",), ())])
    assert r"Ünal, ? ?, é, aŁ, \% \\" in text
