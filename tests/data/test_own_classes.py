"""classes.txt says which id is which class: a line with more than a name is refused, and no class is shifted."""

from pathlib import Path

import pytest

from bench.errors import DataError
from tests.data.made import write_own
from tests.data.own import opened

NAMES = ("aeroplane", "bicycle", "bird")
MORE = {
    "number and space": "0 background\n1 aeroplane",
    "number and colon": "1: aeroplane",
    "number and comma": "0,aeroplane",
    "number and point": "0. background\n1. aeroplane\n2. bicycle\n3. bird",
    "number and bracket": "1) aeroplane\n2) bicycle\n3) bird",
    "number behind": "background 0\naeroplane 1\nbicycle 2\nbird 3",
    "number behind, in another order": "bicycle 2\naeroplane 1\nbird 3",
    "number behind a comma": "background,0\naeroplane,1\nbicycle,2\nbird,3",
    "colour": "name,r,g,b\nbackground,0,0,0\naeroplane,128,0,0",
    "quotes": '"background"\n"aeroplane"\n"bicycle"\n"bird"',
    "marks of a list": "- background\n- aeroplane\n- bicycle\n- bird",
}


@pytest.mark.parametrize("text", MORE.values(), ids=MORE)
def test_a_line_with_more_than_a_name_is_refused(tmp_path: Path, text: str) -> None:
    root = write_own(tmp_path)
    (root / "classes.txt").write_text(text)
    with pytest.raises(DataError, match="has more in a line than the name of a class"):
        opened(root)


@pytest.mark.parametrize("text", ["background\nignore\n", "ignore\n", "Background class\n", "road\nthe background\n"])
def test_a_name_that_is_no_class_is_refused_where_the_ids_would_shift(tmp_path: Path, text: str) -> None:
    root = write_own(tmp_path)
    (root / "classes.txt").write_text(text + "\n".join(NAMES))
    with pytest.raises(DataError, match="in the wrong place: background has the id 0"):
        opened(root)


@pytest.mark.parametrize(
    "names", [("grade 1", "grade 2", "grade 3"), ("boeing 737", "airbus 320", "dash 8"), ("3d glasses", "t-shirt", "o'brien's")]
)
def test_names_with_numbers_of_their_own_are_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = write_own(tmp_path)
    (root / "classes.txt").write_text("# my classes\n" + "\n".join(names))
    for path in (root / "Annotations").iterdir():
        text = path.read_text()
        for old, new in zip(NAMES, names, strict=True):
            text = text.replace(f"<name>{old}<", f"<name>{new}<")
        path.write_text(text)
    assert opened(root).classes == names


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    root = write_own(tmp_path)
    (root / "classes.txt").mkdir()
    with pytest.raises(DataError, match=r"classes\.txt cannot be read as a text"):
        opened(root)
