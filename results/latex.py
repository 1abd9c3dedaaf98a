"""Tables as LaTeX: Table 4 is as wide as a column of a journal, tables with more columns as the page; notes stand below."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from bench.text import printable
from results.board import MARKS
from results.tables import Line, Table

PREAMBLE = r"% The document needs: \usepackage{booktabs,tabularx}"
NARROW = 4
"""The most columns of a table that is as wide as a column of text; others are as wide as the page."""
_CHARACTERS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}",
    "[": "{[}", "]": "{]}", "|": r"\textbar{}", "`": r"\`{}", '"': "''",
    **dict(zip(MARKS, (r"\textdagger{}", r"\S{}", r"\textdaggerdbl{}", r"\P{}"), strict=True)),
}  # fmt: skip
"""What stands for a character that LaTeX would read as a command, or show as another."""
_PUNCTUATION = "–—‘’“”•…"
_LACKING = "\xad«»ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲų"
"""The characters up to ž that pdfLaTeX does not have without further packages; of others it has `_PUNCTUATION`."""
LONG = 14
"""The most characters of a word that no line of a cell breaks."""


def latex(tables: Iterable[Table]) -> str:
    """Return tables as LaTeX (booktabs, tabularx); no text of theirs is a command."""
    return "\n\n".join([PREAMBLE, *map(_table, tables)]) + "\n"


def _table(table: Table) -> str:
    narrow = len(table.columns) <= NARROW
    kind, width = ("table", r"\columnwidth") if narrow else ("table*", r"\textwidth")
    column = r">{\raggedright\arraybackslash\hspace{0pt}}X"  # without the space LaTeX would not hyphenate a cell's first word
    first = rf">{{\hsize={0.7 if narrow else 1}\hsize}}"
    share = (len(table.columns) - 0.7) / max(1, len(table.columns) - 1)
    others = rf">{{\hsize={share:.4f}\hsize}}" if narrow else ""
    layout = first + column + f"*{{{len(table.columns) - 1}}}{{{others}{column}}}" if len(table.columns) > 1 else column
    title = re.sub(r"^Table \d: ", "", table.title)  # LaTeX numbers tables itself
    lines = [rf"\begin{{{kind}}}", rf"\caption{{{_escaped(title)}}}", r"\footnotesize\setlength{\tabcolsep}{3pt}"]
    lines += [rf"\begin{{tabularx}}{{{width}}}{{@{{}}{layout}@{{}}}}", r"\toprule", _line(Line(table.columns)), r"\midrule"]
    for place, row in enumerate(table.rows):
        lines += [r"\midrule"] if row.heading and place else []
        lines.append(_line(row))
    lines += [r"\bottomrule", r"\end{tabularx}"]
    if table.notes:
        notes = "\\par\n".join(map(_escaped, table.notes))
        lines += [r"\par\smallskip", rf"\begin{{minipage}}{{{width}}}\raggedright", notes, r"\end{minipage}"]
    return "\n".join([*lines, rf"\end{{{kind}}}"])


def _line(row: Line) -> str:
    if row.heading:
        return rf"\multicolumn{{{len(row.cells)}}}{{@{{}}l@{{}}}}{{\emph{{{_escaped(row.cells[0])}}}}} \\"
    cells = [rf"\textbf{{{_breakable(c)}}}" if place in row.bold else _breakable(c) for place, c in enumerate(row.cells)]
    return " & ".join(cells) + r" \\"


def _breakable(text: str) -> str:
    """Return the escaped text of a cell, whose long words may break after a mark that stands in names and settings."""
    words = (re.split("(?<=[_=:/,])", word) if len(word) > LONG else [word] for word in text.split(" "))
    return " ".join(r"\allowbreak{}".join(map(_escaped, parts)) for parts in words)


def _escaped(text: str) -> str:
    known = "".join(map(_known, unicodedata.normalize("NFC", printable(text))))
    escaped = "".join(_CHARACTERS.get(character, character) for character in known)
    return re.sub("-(?=-)", "-{}", escaped)  # two hyphens would be a dash


def _known(character: str) -> str:
    """Return a character that pdfLaTeX has; for another one what is ASCII in it, or a question mark.

    >>> "".join(map(_known, "éąα猫％"))
    'éa??%'
    """
    if character.isascii() or character in _CHARACTERS or character in _PUNCTUATION:
        return character
    if "¡" <= character <= "ž" and character not in _LACKING:
        return character
    return "".join(part for part in unicodedata.normalize("NFKD", character) if part.isascii()) or "?"
