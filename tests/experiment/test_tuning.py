"""Tuning: one budget for all, the test part untouched, nothing lost and nothing twice when workers are killed."""

import json
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import record
from bench.config import RunConfig
from bench.errors import DataError
from bench.experiment import finetuning
from bench.experiment.resolve import resolve
from bench.experiment.search import STARTUP, search_of
from bench.experiment.trial import TrialProgress
from bench.record import Tuning
from bench.storage import journal, seal
from bench.storage.seal import sealed
from bench.training import evaluation
from tests.conftest import QUICK, TINY

Bench = Callable[..., "object"]


def studies(out: Path) -> list[Tuning]:
    return [
        Tuning.model_validate_json(seal.read(path, "a search", ".")) for path in sorted((out / "studies").glob("*/tuning-*.json"))
    ]


def trials_of(folder: Path) -> list:
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.load_study(study_name=None, storage=journal.journal(folder / "journal.log", print))
        return study.get_trials()


def test_every_row_gets_the_same_trials_and_the_test_part_is_scored_once_with_the_best_rates(
    tiny: Bench, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    predict = evaluation.predict
    monkeypatch.setattr(
        finetuning, "predict", lambda m, d, split, machine: looked.append(len(split)) or predict(m, d, split, machine)
    )
    asked = ("--pretext", "random_init,l1_color", "--downstream", "voc_seg", "--tune", 3, "--seeds", 2)
    done = tiny(*asked)
    assert done.code == 0, done.err
    found = studies(tmp_path / "runs")
    assert len(found) == 3  # random_init on both schedules
    assert {tuning.budget for tuning in found} == {len(tuning.trials) for tuning in found} == {3}
    two_phase = [tuning for tuning in found if len(tuning.space) == 2]
    (one_phase,) = [tuning for tuning in found if len(tuning.space) == 1]
    assert len(two_phase) == 2
    rates = [trial.rates["phase-1"] for trial in one_phase.trials]  # of all layers, the same values as in the other schedule
    assert rates == [trial.rates["phase-2"] for trial in two_phase[0].trials] and len(set(rates)) == 3
    assert [t.rates for t in two_phase[0].trials] == [t.rates for t in two_phase[1].trials]
    assert two_phase[0].trials[0].rates == {"phase-1": 2e-3, "phase-2": 3e-3}  # the protocol's own
    for one in found:
        assert one.best_value == max(trial.value for trial in one.trials if trial.value is not None)
        assert all(trial.state in ("complete", "pruned") and trial.epochs for trial in one.trials)
    records = record.read(tmp_path / "runs")
    assert len(records) == 6
    # The 16 test images are looked at once a record, the validation part after every epoch of a trial.
    assert looked.count(16) == len(records) and len(set(looked)) == 2 and max(looked) == 16
    for one in records:
        assert one.tuning is not None and one.job.study == one.tuning.study and one.job.split == "test"
        assert list(one.rates) == [one.tuning.best[f"phase-{n}"] for n in range(1, len(one.rates) + 1)]
        assert one.data.counts == {"train": 24, "test": 16}
    looked.clear()
    again = tiny(*asked)
    assert again.code == 0 and again.out.count("finished before") == 6 and looked == []
    report = bench("report", "--out", tmp_path / "runs")
    assert "tuned, 3 trials" in report.out and "chosen by the main metric on val" in report.out.replace("\n", " ")
    assert "in one search for all seeds: its luck is in no interval" in report.out.replace("\n", " ")
    assert "pruned: median by epoch, from a quarter" in (tmp_path / "runs" / "leaderboard.csv").read_text()
    assert tiny(*asked[:4], "--seeds", 1).code == 0
    assert "Segmentation (miou_voc@1, %; tuned, 3 trials)" in bench("report", "--out", tmp_path / "runs").out.replace("\n", " ")


def test_every_seed_has_its_own_search_where_that_is_asked_for(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen", "--tune", 2)
    assert tiny(*asked, "--seeds", 2, "--search", "each").code == 0
    records = sorted(record.read(tmp_path / "runs"), key=lambda one: one.job.seed)
    searches = [tuning for one in records if (tuning := one.tuning)]
    assert [one.job.seed for one in records] == [tuning.seed for tuning in searches] == [0, 1]
    assert len({tuning.study for tuning in searches}) == 2 and {tuning.seeds for tuning in searches} == {"each"}
    drawn = [[trial.rates["phase-1"] for trial in tuning.trials] for tuning in searches]
    assert drawn[0][0] == drawn[1][0] and drawn[0][1] != drawn[1][1]  # the protocol's own, then draws of each seed
    report = bench("report", "--out", tmp_path / "runs").out.replace("\n", " ")
    assert "in a search on every seed." in report and "variant" not in report
    assert (tmp_path / "runs" / "table4.md").read_text().count("| random_init (frozen) †§, seed") == 2
    assert "each seed's own" in (tmp_path / "runs" / "leaderboard.csv").read_text()
    assert tiny(*asked, "--seeds", 3, "--search", "each").out.count("finished before") == 2
    assert tiny(*asked, "--seeds", 1).code == 0
    assert sorted(tuning.seeds for tuning in studies(tmp_path / "runs")) == ["each", "each", "each", "first"]


def test_a_search_finds_its_trials_again_in_a_database(tiny: Bench, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen", "--storage", url)
    assert tiny(*asked, "--tune", 2).code == 0
    assert tiny(*asked, "--tune", 4).code == 0
    few, more = sorted(studies(tmp_path / "runs"), key=lambda tuning: tuning.budget)
    assert few.study == more.study and more.trials[:2] == few.trials and len(more.trials) == 4
    wrong = tiny(*asked[:-1], "nothing://user:secret@here", "--tune", 9)
    assert wrong.code == 2 and "--storage nothing://...:" in wrong.err and "secret" not in wrong.err
    nowhere = tiny(*asked[:-1], "sqlite:////nowhere/at/all.db?password=secret", "--tune", 9)
    assert nowhere.code == 4 and "unable to open" in nowhere.err and "secret" not in nowhere.err
    assert all("sqlite" not in " ".join(one.provenance["command"]) for one in record.read(tmp_path / "runs"))
    (path,) = (tmp_path / "runs" / "studies").glob("*/tuning-4.json")
    path.write_text("{}")
    damaged = tiny(*asked, "--tune", 4)
    assert damaged.code == 3 and "remove the file" in damaged.err
    path.unlink()
    assert tiny(*asked, "--tune", 4).code == 0
    again = Tuning.model_validate_json(seal.read(path, "a search", "."))
    assert (again.trials, again.best, again.best_value) == (more.trials, more.best, more.best_value)


def test_a_study_in_a_database_has_one_output_folder(tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen", "--tune", 2)
    storage = ("--storage", f"sqlite:///{tmp_path / 'study.db'}")
    assert tiny(*asked, *storage).code == 0
    other = tiny(*asked, *storage, "--out", tmp_path / "other")
    assert other.code == 2 and "begun with another --out" in other.err


THRICE = (
    'voc_seg.schedules={"two-phase": [{"train": "head", "epochs": 1, "lr": 2e-3}, {"train": "all", "epochs": 1, "lr": 3e-3}, \
{"train": "all", "epochs": 1, "lr": 1e-4}], "one-phase": [{"train": "all", "epochs": 1, "lr": 3e-3}]}'
)


@pytest.mark.parametrize("space", ["", "head=1e-3", "pretext=1e-4:1e-2"])
def test_what_cells_share_gets_the_same_rates_whatever_else_they_search(space: str, drawn: dict[str, Path]) -> None:
    def first(schedule: str, pretext: str, *settings: str) -> dict[str, list[float]]:
        data = {"data": str(drawn["demo"]), "pretrain_data": str(drawn["demo_unlabelled"]), "protocol": "demo"}
        grid = {"pretext": pretext, "downstream": "voc_seg", "schedule": schedule, "set": settings, "tune": 8, "space": space}
        config = RunConfig.model_validate({**grid, **data})
        (job,) = resolve(config, print).jobs
        study = search_of(job, config, [job])
        tried = [study.first_rates(draw) for draw in range(STARTUP)]
        assert len({rates["phase-1"] for rates in tried}) == (1 if space and study.space["phase-1"] == (1e-3, 1e-3) else 8)
        return {name: [rates[name] for rates in tried] for name in study.space}

    both, one, frozen = (first(schedule, "random_init") for schedule in ("two-phase", "one-phase", "frozen"))
    assert both["phase-2"] == one["phase-1"] and both["phase-1"] == frozen["phase-1"]
    assert one["phase-1"][0] == 3e-3 and frozen["phase-1"][0] == (1e-3 if space == "head=1e-3" else 2e-3)
    trained = first("two-phase", "l1_color")
    assert {name: trained[name] for name in both} == both and ("pretext" in trained) == space.startswith("pretext")
    thrice = first("two-phase", "random_init", THRICE)
    assert {name: thrice[name] for name in both} == both and thrice["phase-3"][1:] != both["phase-2"][1:]
    assert first("one-phase", "random_init", THRICE)["phase-1"] == one["phase-1"]


def test_another_space_is_another_study_even_where_it_does_not_matter(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen", "--tune", 2)
    assert tiny(*asked).code == 0
    assert tiny(*asked, "--space", "pretext=1e-4:1e-2").code == 0
    assert len(record.read(tmp_path / "runs")) == 2
    report = bench("report", "--out", tmp_path / "runs").out.replace("\n", " ")
    assert report.count("variant") >= 2 and "pretext 0.0001 to 0.01" in report


def test_a_pretraining_that_diverges_is_a_trial_that_failed_to_learn(tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "l1_color", "--downstream", "voc_cls", "--schedule", "frozen", "--tune", 3)
    done = tiny(*asked, "--space", "pretext=1e-3:1e38", "--set", "recipe.lr=1e-3")
    assert done.code == 0, done.err
    (tuning,) = studies(tmp_path / "runs")
    assert tuning.trials[0].state == "complete" and "diverged" in {trial.state for trial in tuning.trials}
    assert tuning.best in [trial.rates for trial in tuning.trials if trial.state == "complete"]
    assert tuning.trials[0].rates["pretext"] == 1e-3 and tuning.trials[0].images > len(tuning.trials[0].epochs) * 23


class Died(BaseException):
    """Nothing in the program catches this."""


def test_rates_of_a_worker_that_died_at_any_step_of_claiming_are_tried(
    tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Die after `ask`, after queueing the retry and before failing the lost trial: the first rates are those of every study."""
    import optuna

    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen", "--tune", 3)
    deaths = iter(("set_user_attr", "tell", "tell"))
    originals = {"set_user_attr": optuna.Trial.set_user_attr, "tell": optuna.Study.tell}
    for name in deaths:
        owner = optuna.Trial if name == "set_user_attr" else optuna.Study

        def die(*_: object, **__: object) -> None:
            raise Died

        monkeypatch.setattr(owner, name, die)
        with pytest.raises(Died):
            tiny(*asked)
        monkeypatch.setattr(owner, name, originals[name])
    assert tiny(*asked).code == 0
    assert tiny(*asked, "--out", tmp_path / "whole").code == 0
    (lost,), (whole,) = studies(tmp_path / "runs"), studies(tmp_path / "whole")
    assert [trial.rates for trial in lost.trials] == [trial.rates for trial in whole.trials]
    assert [trial.value for trial in lost.trials] == [trial.value for trial in whole.trials]


def test_the_pretext_tasks_own_rate_is_searched_when_asked(tiny: Bench, tmp_path: Path) -> None:
    done = tiny("--pretext", "l1_color", "--downstream", "voc_cls", "--tune", 2, "--space", "pretext=1e-4:1e-2,head=1e-3:1e-2")
    assert done.code == 0, done.err
    (tuning,) = studies(tmp_path / "runs")
    assert tuning.space["pretext"] == (1e-4, 1e-2) and tuning.space["phase-1"] == (1e-3, 1e-2)
    (one,) = record.read(tmp_path / "runs")
    assert one.pretrain.recipe["lr"] == tuning.best["pretext"]


def test_no_trial_is_pruned_before_a_quarter_of_its_last_phase(tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_seg", "--schedule", "two-phase", "--tune", 8)
    assert tiny(*asked).code == 0
    (tuning,) = studies(tmp_path / "runs")
    pruned = [trial for trial in tuning.trials if trial.state == "pruned"]
    assert pruned and all(2 + 3 <= len(trial.epochs) < 12 for trial in pruned)  # 2 epochs frozen, 10 of everything


def test_a_plan_counts_trials_and_knows_what_is_searched(tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen", "--tune", 2, "--seeds", 2)
    planned = tiny(*asked, "--plan")
    assert planned.code == 0 and "2 trials, less time when pruned" in planned.out
    assert "(rates not known yet, 2 seeds, frozen)  2 to do" in planned.out and not (tmp_path / "runs" / "studies").exists()
    assert tiny(*asked).code == 0
    planned = tiny(*asked, "--plan")
    assert "searched" in planned.out and " 2 finished" in planned.out


@pytest.mark.parametrize("space", ["head=0", "body=1e-4:1e-2", "head=1e-2:1e-4", "head=0:1", "head=a:b"])
def test_a_space_that_cannot_be_read_is_refused(tiny: Bench, space: str) -> None:
    done = tiny("--pretext", "random_init", "--downstream", "voc_cls", "--tune", 2, "--space", space)
    assert done.code == 2 and "--space" in done.err


def test_rates_at_which_the_loss_is_no_number_count_as_trials_that_failed_to_learn(tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_seg", "--schedule", "one-phase", "--tune", 2)
    lost = tiny(*asked, "--space", "all=1e30:1e36")
    assert lost.code == 1 and "none of 2 trials was complete" in lost.err
    assert not record.read(tmp_path / "runs")


def command(out: Path, drawn: dict[str, Path], *more: str) -> list[str]:
    data = ("--data", str(drawn["demo"]), "--pretrain-data", str(drawn["demo_unlabelled"]), "--out", str(out))
    words = (sys.executable, "-m", "bench", "tune", *TINY, *QUICK, *data, "--pretext", "random_init", "--downstream", "voc_seg")
    return [*words, "--schedule", "two-phase", *more]


def wait_until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_of_four_workers_killed_leave_exactly_the_trials_asked_for(drawn: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "runs"
    asked = command(out, drawn, "--trials", "8", "--checkpoint-seconds", "0")
    workers = [subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(4)]

    wait_until(lambda: len({path.parts[-3] for path in (out / "studies").glob("*/work/*/phase-1/*.safetensors")}) == 4)
    for worker in workers[:2]:
        worker.kill()
    outputs = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL, -signal.SIGKILL, 0, 0], outputs
    (folder,) = (out / "studies").iterdir()
    trials = trials_of(folder)
    finished = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    assert len(finished) == 8
    assert len({json.dumps(trial.params, sort_keys=True) for trial in finished}) == 8
    lost = [trial for trial in trials if trial.state.name == "FAIL"]
    assert lost and len(lost) <= 2 and not any(trial.state.name in ("RUNNING", "WAITING") for trial in trials)
    assert all(any(trial.params == other.params for other in finished) for trial in lost)
    (tuning,) = studies(out)
    assert len(tuning.trials) == 8
    assert not list((folder / "workers").iterdir())
    assert not list((folder / "work").iterdir())


def test_a_search_that_was_killed_ends_with_the_trials_of_an_undisturbed_one(drawn: dict[str, Path], tmp_path: Path) -> None:
    found = []
    for name, kill in (("whole", False), ("killed", True)):
        asked = command(tmp_path / name, drawn, "--trials", "4", "--checkpoint-seconds", "0")
        if kill:
            process = subprocess.Popen(asked, stdout=subprocess.DEVNULL)
            wait_until(lambda: len(list((tmp_path / "killed" / "studies").glob("*/work/*/trial.json"))) > 0)
            process.kill()
            process.wait()
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
        assert "best miou_voc@1" in done.stdout
        (tuning,) = studies(tmp_path / name)
        found.append([(trial.rates, trial.value, trial.epochs, trial.state) for trial in tuning.trials])
    assert found[0] == found[1]


@pytest.mark.parametrize("content", ["", "{", "[]", sealed('{"values": {"x": 1}, "seconds": 0, "images": 0}')])
def test_a_damaged_file_of_a_trial_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "trial.json").write_text(content)
    with pytest.raises(DataError, match=r"trial\.json is not .*of this version.*; remove its folder"):
        TrialProgress.read(tmp_path / "trial.json")


def test_a_journal_that_is_not_one_is_named(tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen", "--tune")
    assert tiny(*asked, 1).code == 0
    (path,) = (tmp_path / "runs" / "studies").glob("*/journal.log")
    path.write_text("no journal\n" + path.read_text())
    done = tiny(*asked, 2)
    assert done.code == 3 and "journal.log" in done.err and "Traceback" not in done.err


def test_a_torn_end_of_the_journal_is_cut_and_every_whole_trial_kept(tmp_path: Path) -> None:
    import optuna

    said: list[str] = []
    path = tmp_path / "journal.log"
    study = optuna.create_study(storage=journal.journal(path, said.append), study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code": 4, "wor')
    other = optuna.load_study(storage=journal.journal(path, said.append), study_name="s")
    assert len(other.trials) == 3 and path.read_bytes() == whole
    assert len(said) == 1 and "cut 19 bytes" in said[0]
    path.write_bytes(path.read_bytes() + b"torn while both are open")
    other.enqueue_trial({"x": 0.5})
    assert len(study.trials) == 4 and b"torn" not in path.read_bytes()


def test_a_digit_that_was_changed_in_the_journal_is_noticed(tmp_path: Path) -> None:
    import optuna

    path = tmp_path / "journal.log"
    study = optuna.create_study(storage=journal.journal(path, print), study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    whole = path.read_bytes()
    place = whole.index(b'"values":[0.') + len(b'"values":[0.')
    changed = b"5" if whole[place : place + 1] != b"5" else b"6"
    path.write_bytes(whole[:place] + changed + whole[place + 1 :])
    with pytest.raises(DataError, match="does not match its check sum; remove its folder"):
        journal.journal(path, print)
