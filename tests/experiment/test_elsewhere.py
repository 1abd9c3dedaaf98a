"""A run of somebody else: what it needs is named, its data is found, its code is shown and run only when it is trusted."""

import hashlib
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import record, registry
from bench.data import catalogue
from bench.errors import DataError, UsageError
from bench.experiment import needs
from bench.record import DataFacts, Record
from bench.storage.files import publish_json
from tests.docs.test_docs import parse
from tests.results.made import make, publish

Bench = Callable[..., Any]
PLUGIN = """\
\"\"\"L1 colorization under another name.\"\"\"

from pathlib import Path

from pretexts.l1_color import L1Color

Path({trace!r}).touch()


class Mine(L1Color):
\t\"\"\"The same, indented by a tab, with a letter that is not ASCII: ä.\"\"\"
"""


@pytest.fixture
def theirs(tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Record, Path, Path]:
    """Give a run with a plug-in that is gone since, the file that the plug-in's code makes, and the plug-in's own file."""
    trace, path = tmp_path / "trace", tmp_path / "mine.py"
    path.write_text(PLUGIN.format(trace=str(trace)))
    asked = ("--pretext", "mine", "--downstream", "voc_cls", "--schedule", "frozen", "--set", "mine.epochs=1")
    assert tiny("--plugin", path, *asked).code == 0
    trace.unlink()
    path.rename(tmp_path / "kept.txt")
    monkeypatch.setattr(registry, "_given", {})
    (one,) = record.read(tmp_path / "runs")
    return one, trace, tmp_path / "kept.txt"


def test_a_record_keeps_the_text_of_its_plug_in_and_shows_it_without_running_it(
    theirs: tuple[Record, Path, Path], bench: Bench, tmp_path: Path
) -> None:
    one, trace, kept = theirs
    assert one.plugins == {"pretexts": kept.read_text()}
    shown = bench("show", one.id, "--out", tmp_path / "runs")
    assert shown.code == 0 and "mine.py, SHA-256 " in shown.out and "the command needs mine.py, which is not here" in shown.err
    assert "bench run --plugin mine.py --pretext mine" in shown.out and "--set mine.epochs=1" in shown.out
    assert bench("show", one.id, "--out", tmp_path / "runs", "--source").out == kept.read_text()
    assert bench("report", "--out", tmp_path / "runs").code == 0 and bench("list", "runs", "--out", tmp_path / "runs").code == 0
    assert not trace.exists()


def test_the_command_of_a_run_without_its_plug_in_asks_for_that_run(
    theirs: tuple[Record, Path, Path], bench: Bench, tmp_path: Path
) -> None:
    """The settings of its recipe are then those of the record, since the plug-in's own are not known."""
    one, _, kept = theirs
    command = bench("show", one.id, "--out", tmp_path / "runs").out.splitlines()[-1]
    shutil.copy(kept, tmp_path / "mine.py")
    words = command.replace("--plugin mine.py", f"--plugin {tmp_path / 'mine.py'}")
    again = bench(*shlex.split(words)[1:], "--out", tmp_path / "runs", "--device", "cpu")
    assert again.code == 0 and "finished before" in again.out, again.err


def test_code_in_a_record_runs_only_when_it_is_trusted_and_is_shown_first(
    theirs: tuple[Record, Path, Path], bench: Bench, tmp_path: Path
) -> None:
    one, trace, _ = theirs
    asked = ("reproduce", one.id, "--out", tmp_path / "runs", "--device", "cpu")
    refused = bench(*asked)
    assert refused.code == 2 and "run only with --trust-plugin" in refused.err and "mine.py" in refused.err
    assert "class Mine(L1Color):" in refused.out and not trace.exists()
    trusted = bench(*asked, "--trust-plugin")
    assert trusted.code == 0 and "was reproduced to the bit" in trusted.out, trusted.err
    assert trusted.out.index("class Mine(L1Color):") < trusted.out.index("pretrain mine") and trace.exists()


def test_a_plug_in_of_ones_own_needs_no_trust(theirs: tuple[Record, Path, Path], bench: Bench, tmp_path: Path) -> None:
    one, _, kept = theirs
    path = shutil.copy(kept, tmp_path / "mine.py")
    asked = ("reproduce", one.id, "--out", tmp_path / "runs", "--device", "cpu")
    done = bench(*asked, "--plugin", path)
    assert done.code == 0 and "class Mine" not in done.out, done.err


def test_another_file_of_that_name_is_not_taken_for_it(theirs: tuple[Record, Path, Path], bench: Bench, tmp_path: Path) -> None:
    one, _, kept = theirs
    (tmp_path / "mine.py").write_text(kept.read_text() + "# changed")
    asked = ("reproduce", one.id, "--out", tmp_path / "runs", "--device", "cpu", "--plugin", tmp_path / "mine.py")
    refused = bench(*asked)
    assert refused.code == 2 and "which is another file here" in refused.err
    assert bench(*asked, "--trust-plugin").code == 0  # the record's own text


def test_a_text_that_is_not_the_runs_own_is_never_run(theirs: tuple[Record, Path, Path], bench: Bench, tmp_path: Path) -> None:
    one, trace, kept = theirs
    path = tmp_path / "runs" / "runs" / one.id / "record.json"
    changed = one.model_copy(update={"plugins": {"pretexts": kept.read_text() + "\n"}})
    publish_json(path, changed.model_dump(mode="json"))
    refused = bench("reproduce", one.id, "--out", tmp_path / "runs", "--trust-plugin")
    assert refused.code == 3 and "the text in the record is another one, and is not run" in refused.err and not trace.exists()


def test_a_record_of_before_texts_were_kept_asks_for_the_file(
    theirs: tuple[Record, Path, Path], bench: Bench, tmp_path: Path
) -> None:
    one, _, kept = theirs
    path = tmp_path / "runs" / "runs" / one.id / "record.json"
    before = one.model_dump(mode="json")
    del before["plugins"], before["data"]["exclude"]
    publish_json(path, before)
    asked = ("--out", tmp_path / "runs")
    refused = bench("reproduce", one.id, *asked, "--trust-plugin")
    assert refused.code == 2 and "whose text the record does not hold; give the file with --plugin mine.py" in refused.err
    assert bench("show", one.id, *asked, "--source").code == 2
    given = bench("reproduce", one.id, *asked, "--device", "cpu", "--plugin", shutil.copy(kept, tmp_path / "mine.py"))
    assert given.code == 0, given.err


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "", "a\nb"])
def test_a_plug_in_whose_name_is_a_path_is_refused(name: str) -> None:
    text = "raise SystemExit"
    source = hashlib.sha256(text.encode()).hexdigest()[:16]
    one = make(name, pretrain_job={"source": source}, plugins={"pretexts": text})
    with pytest.raises(DataError, match="is not run"):
        needs.from_record(one, True, lambda line: None)


def test_a_plug_in_that_was_edited_while_a_run_went_on_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.format(trace=str(tmp_path / "trace")))
    registry.add_plugin(path)
    job = make("mine", pretrain_job={"source": registry.source_digest("pretexts", "mine")}).job
    assert needs.texts(job) == {"pretexts": path.read_text()}
    path.write_text(path.read_text() + "# edited")
    assert needs.texts(job) == {}


def test_a_file_in_another_encoding_is_not_kept_and_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(b"# -*- coding: latin-1 -*-\n# \xe4\n")
    registry.add_plugin(path)
    assert registry.source_text("pretexts", "mine") == "" and registry.source_text("pretexts", "l1_color") == ""


def test_data_that_is_prepared_under_another_name_is_found(
    tiny: Bench, bench: Bench, drawn: dict[str, Path], tmp_path: Path
) -> None:
    assert tiny("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen").code == 0
    (one,) = record.read(tmp_path / "runs")
    elsewhere = {**one.provenance, "data": "/home/somebody/shapes"}
    path = tmp_path / "runs" / "runs" / one.id / "record.json"
    publish_json(path, one.model_copy(update={"provenance": elsewhere}).model_dump(mode="json"))
    asked = ("reproduce", one.id, "--out", tmp_path / "runs", "--device", "cpu")
    refused = bench(*asked)
    assert refused.code == 3 and one.data.fingerprint[:12] in refused.err
    line = needs.prepare_line(one.data)
    assert line in refused.err and line in bench("show", one.id, "--out", tmp_path / "runs").out
    assert bench(*line.replace("FOLDER", str(drawn["demo"])).replace("prepare labelled", "prepare mine").split()[1:]).code == 0
    done = bench(*asked)
    assert done.code == 0 and "is prepared here as mine" in done.out and "to the bit" in done.out, done.err


FACTS = {"fingerprint": "f" * 64, "splits_fingerprint": "s", "counts": {}}


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"name": "voc2012", "synthetic": False}, "bench data prepare voc2012"),
        ({"name": "demo_unlabelled", "synthetic": True}, "bench data prepare demo"),
        (
            {"name": "my photos", "synthetic": False, "classes": ("a", "b", "c"), "scored": ("a", "c"), "exclude": ("x_*",)},
            "bench data prepare my_photos --root FOLDER --score a,c --exclude 'x_*'",
        ),
        ({"name": "p", "synthetic": False, "left_out": 2}, "bench data prepare p --root FOLDER --skip-broken"),
    ],
)
def test_the_line_that_prepares_a_data_set_parses_and_has_what_the_record_knows(facts: dict[str, Any], line: str) -> None:
    made = needs.prepare_line(DataFacts(**FACTS, **facts))
    assert made == line
    parse(made)


def test_a_record_keeps_the_patterns_that_were_left_out(bench: Bench, drawn: dict[str, Path], tmp_path: Path) -> None:
    excluded = next(drawn["demo_unlabelled"].rglob("*.jpg")).name
    assert bench("data", "prepare", "some", "--root", drawn["demo_unlabelled"], "--exclude", excluded).code == 0
    dataset = catalogue.prepared()["some"]
    from bench.data import splits
    from bench.experiment.provenance import data_facts

    facts = data_facts(dataset, splits.open_splits(dataset, "pretraining", "images", print), [], {})
    assert facts.exclude == (excluded,) and f"--exclude {excluded}" in needs.prepare_line(facts)


def test_a_folder_of_csv_files_alone_says_what_is_missing(bench: Bench, tmp_path: Path) -> None:
    publish(tmp_path / "runs", make())
    assert bench("report", "--out", tmp_path / "runs").code == 0
    (tmp_path / "csv").mkdir()
    for path in (tmp_path / "runs").glob("*.csv"):
        shutil.copy(path, tmp_path / "csv")
    refused = bench("report", "--out", tmp_path / "csv")
    assert refused.code == 3 and "leaderboard.csv" in refused.err and "runs/RUN/record.json" in refused.err
    assert "start with: bench run" in bench("report", "--out", tmp_path / "nothing").err


def test_a_run_without_its_predictions_says_what_is_missing(bench: Bench, tmp_path: Path) -> None:
    one = publish(tmp_path, make())
    publish(tmp_path, make(seed=1))
    (tmp_path / "runs" / one.id / "predictions.npz").unlink()
    refused = bench("report", "--out", tmp_path)
    assert refused.code == 3 and "predictions.npz is missing (of 1 of 2 runs" in refused.err


def test_a_run_without_plug_ins_has_no_text_to_print(bench: Bench, tmp_path: Path) -> None:
    one = publish(tmp_path, make())
    refused = bench("show", one.id, "--out", tmp_path, "--source")
    assert refused.code == 2 and "was made without plug-ins" in refused.err
    with pytest.raises(UsageError):
        needs.sources(one)
