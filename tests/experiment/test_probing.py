"""Probes through the command line: a run each, chosen on validation, recomputed here from the saved trunk with other code."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from bench import record
from bench.data import catalogue, packs, splits
from bench.experiment.pretraining import load_pretrained
from bench.record import Record
from bench.storage.arrays import unpack
from bench.storage.files import sha256

Run = Callable[..., "object"]
IMAGES = ("knn", "linear", "linear-sgd", "svm", "lowshot")
FEW = ("--set", "lowshot.draws=2", "--set", "lowshot.shots=[1,2]", "--set", "svm.costs=[0.1,1]")


def records(tmp_path: Path, folder: str = "runs") -> dict[tuple[str, str], Record]:
    return {(one.pretext, one.job.evaluation): one for one in record.read(tmp_path / folder)}


def arrays(tmp_path: Path, run: Record, file: str = "predictions.npz") -> dict[str, NDArray]:
    return unpack((tmp_path / "runs" / "runs" / run.id / file).read_bytes(), 1 << 30)


@pytest.fixture
def probed(tiny: Run, tmp_path: Path) -> dict[tuple[str, str], Record]:
    """Probe a random trunk and a trained one, both tasks, and fine-tune them beside that."""
    asked = ("--pretext", "random_init,l1_color", "--downstream", "voc_cls,voc_seg", "--evaluate", "all", "--schedule", "frozen")
    done = tiny(*asked, *FEW)
    assert done.code == 0, done.err
    return records(tmp_path)


def test_every_evaluation_makes_a_run_with_its_choice_beside_the_fine_tuned_ones(
    probed: dict[tuple[str, str], Record], bench: Run, tmp_path: Path
) -> None:
    dense = ("dense-linear", "dense-knn")
    assert set(probed) == {
        *((row, name) for row in ("random_init", "l1_color") for name in ("finetune", *IMAGES, *dense)),
        *(("l1_color", f"{name}, decoder") for name in dense),  # nothing was trained in the other row's decoder
    }
    for (_, name), one in probed.items():
        if name == "finetune":
            assert one.selection is None and one.diagnostics == () and one.job.probe is None
            continue
        assert one.selection is not None and one.losses == [] and one.weights == ""
        assert one.selection.value == one.metrics[one.selection.metric]
        vals = [tried.val for tried in one.selection.tried]
        tests = [tried.test for tried in one.selection.tried]
        if name in ("knn", "linear", "linear-sgd", *dense):
            place = vals.index(max(vals))  # type: ignore[type-var]
            assert one.selection.chosen == one.selection.tried[place].choice
            assert one.selection.value == pytest.approx(tests[place])
            assert one.selection.on_test_value == pytest.approx(max(tests))  # type: ignore[type-var]
        beside = tmp_path / "runs" / "runs" / one.id / "chosen_on_test.npz"
        assert beside.is_file() == bool(one.selection.predictions)
        if one.selection.predictions:
            assert sha256(beside) == one.selection.predictions
        assert len(one.diagnostics) == (5 if name in IMAGES else 0)
    shown = bench("report", "--out", tmp_path / "runs", "--selection", "--sensitivity", "--html")
    assert shown.code == 0, shown.err
    for text in ("Classification, kNN", "Segmentation, dense kNN, decoder", "Representations", "Low-shot"):
        assert text in shown.out


def test_a_fine_tuned_run_has_the_id_that_it_has_without_probes(tiny: Run, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen")
    assert tiny(*asked).code == 0
    (alone,) = record.read(tmp_path / "runs")
    again = tiny(*asked, "--evaluate", "finetune,knn")
    assert again.code == 0 and f"{alone.id} (seed 0, frozen): finished before" in again.out
    assert {one.job.evaluation for one in record.read(tmp_path / "runs")} == {"finetune", "knn"}
    third = tiny(*asked, "--evaluate", "finetune,knn")
    assert third.out.count("finished before") == 2


def own_features(tmp_path: Path, run: Record, level: int, ids: list[str], data: Path) -> torch.Tensor:
    """Return the averages of an encoder level for some images, computed by the trunk as it was saved."""
    trunk = load_pretrained(run.pretrain, tmp_path / "runs").eval()
    dataset = catalogue.open_dataset(str(data), print)
    pack = packs.open_pack(packs.Order(dataset, "images", packs.PackRule(size=32)), print, lambda done, total: None)
    images = torch.from_numpy(pack.images.read(pack.places(ids))).permute(0, 3, 1, 2)
    with torch.no_grad():
        return trunk.encode(trunk.preprocessing(images))[level - 1].mean(dim=(2, 3)).double()


def test_a_linear_probe_is_recomputed_from_the_saved_trunk_by_scikit_learn(
    tiny: Run, tmp_path: Path, drawn: dict[str, Path]
) -> None:
    assert tiny("--pretext", "l1_color", "--downstream", "voc_cls", "--evaluate", "linear").code == 0
    run = records(tmp_path)["l1_color", "linear"]
    assert run.selection is not None
    level, penalty = int(run.selection.chosen["level"]), float(run.selection.chosen["penalty"])  # type: ignore[arg-type]
    dataset = catalogue.open_dataset(str(drawn["demo"]), print)
    made = splits.open_splits(dataset, run.job.settings.split_scheme, "labels")
    fit, test = made.ids("train", "val"), made.ids("test")
    theirs, ours = own_features(tmp_path, run, level, test, drawn["demo"]), own_features(tmp_path, run, level, fit, drawn["demo"])
    mean, deviation = ours.mean(dim=0), ours.std(dim=0, correction=0)
    labels, found = dataset.labels(fit), arrays(tmp_path, run)
    assert found["ids"].tolist() == test
    for c in range(labels.shape[1]):
        judged = labels[:, c] != -1
        if len(np.unique(labels[judged, c])) < 2:
            continue
        model = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000)
        model.fit(((ours - mean) / deviation).numpy()[judged], labels[judged, c])
        expected = model.predict_proba(((theirs - mean) / deviation).numpy())[:, 1]
        np.testing.assert_allclose(found["scores"][:, c], expected, atol=1e-3)


def test_dense_probes_are_scored_on_the_pixels_on_which_fine_tuned_networks_are(tiny: Run, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_seg", "--schedule", "frozen")
    asked = (*asked, "--set", "protocol.resize=letterbox", "--evaluate", "finetune,dense-linear,dense-knn")
    assert tiny(*asked).code == 0
    found = {name: arrays(tmp_path, one)["confusion"] for (_, name), one in records(tmp_path).items()}
    for name in ("dense-linear", "dense-knn"):
        np.testing.assert_array_equal(found[name].sum(axis=2), found["finetune"].sum(axis=2))
    assert (found["dense-linear"] != found["dense-knn"]).any()


def test_low_shot_draws_are_kept_by_the_ids_of_labelled_images(probed: dict[tuple[str, str], Record], tmp_path: Path) -> None:
    run = probed["l1_color", "lowshot"]
    drawn = json.loads((tmp_path / "runs" / "runs" / run.id / "draws.json").read_text())["positives"]
    split = json.loads((tmp_path / "runs" / "runs" / run.id / "split.json").read_text())["members"]
    assert set(drawn) == {"0", "1"}
    assert {name for classes in drawn.values() for some in classes for name in some} <= {*split["train"], *split["val"]}
    other = tmp_path / "runs" / "runs" / probed["random_init", "lowshot"].id / "draws.json"
    assert drawn == json.loads(other.read_text())["positives"]
    assert arrays(tmp_path, run)["shots"].shape[1:3] == (2, 2)


def test_a_given_level_is_taken_and_has_a_run_of_its_own(tiny: Run, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--evaluate", "knn")
    assert tiny(*asked).code == 0 and tiny(*asked, "--level", 2).code == 0
    chosen = [one.selection.chosen["level"] for one in record.read(tmp_path / "runs") if one.job.probe.level == 2]  # type: ignore
    assert chosen == [2] and len(record.read(tmp_path / "runs")) == 2
    wrong = tiny(*asked, "--level", 6)
    assert wrong.code != 0 and "--level takes 1 to 5" in wrong.err


@pytest.mark.parametrize(
    "options, said",
    [
        (("--evaluate", "knnn"), "unknown evaluation 'knnn'; did you mean 'knn'?"),
        (("--evaluate", "knn", "--epochs", "3"), "--epochs belongs to fine-tuning"),
        (("--evaluate", "knn", "--tune", "3"), "--tune belongs to fine-tuning"),
        (("--evaluate", "dense-linear"), "voc_cls is a task with labels"),
        (("--evaluate", "finetune,dense-knn"), "add it by --downstream voc_seg"),
        (("--evaluate", "finetune", "--level", "2"), "--level is the encoder level"),
        (("--set", "knn.k=[3]"), "add it to --evaluate"),
        (("--evaluate", "knn", "--set", "knn.k=[0]"), "k.0 takes at least 1"),
        (("--evaluate", "knn", "--set", "knn.kk=[3]"), "unknown setting 'kk' of probe knn; did you mean 'k'?"),
        (("--watch", "linear:2"), "--watch takes knn:N"),
        (("--watch", "knn:0"), "--watch takes knn:N"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_way_out(tiny: Run, options: tuple[str, ...], said: str) -> None:
    done = tiny("--pretext", "random_init", "--downstream", "voc_cls", *options)
    assert done.code == 2 and said in " ".join(done.err.split())


def test_watching_changes_no_weight_and_no_id_and_is_kept_with_the_trunk(tiny: Run, tmp_path: Path) -> None:
    asked = ("--pretext", "l1_color", "--downstream", "voc_cls", "--evaluate", "knn")
    assert tiny(*asked, "--watch", "knn:1").code == 0
    watched = records(tmp_path)["l1_color", "knn"].pretrain
    (tmp_path / "runs").rename(tmp_path / "watched")
    assert tiny(*asked).code == 0
    plain = records(tmp_path)["l1_color", "knn"].pretrain
    assert (watched.id, watched.weights, watched.history) == (plain.id, plain.weights, plain.history)
    assert plain.watched == () and [one.epoch for one in watched.watched] == [1, 2]
    assert all(one.metric == "map_voc@1" and one.value is not None for one in watched.watched)
    assert watched.supervision == "none"


def test_a_probe_is_reproduced_to_the_bit_and_shown_with_the_command_that_makes_it(tiny: Run, bench: Run, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_cls,voc_seg", "--evaluate", "lowshot,dense-knn")
    assert tiny(*asked, *FEW[:4], "--set", "dense-knn.k=[4]", "--level", 3).code == 0
    for one in records(tmp_path).values():
        again = bench("reproduce", one.id, "--out", tmp_path / "runs", "--into", tmp_path / "again")
        assert again.code == 0 and "reproduced to the bit" in again.out, again.out + again.err
        line = bench("show", one.id, "--out", tmp_path / "runs").out.strip().splitlines()[-1]
        plan = bench(*shlex.split(line)[1:], "--out", tmp_path / "runs", "--plan")
        assert plan.code == 0 and f"{one.id} " in plan.out and "finished" in plan.out


def test_seeds_that_vary_fine_tuning_alone_have_one_probe_a_trunk(tiny: Run, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--evaluate", "knn", "--seeds", 2)
    assert tiny(*asked, "--vary", "finetune").code == 0
    assert len(record.read(tmp_path / "runs")) == 1
    assert tiny(*asked).code == 0
    assert [one.job.seed for one in record.read(tmp_path / "runs")] in ([0, 1], [1, 0])


def test_features_that_are_the_same_for_every_image_are_marked_and_at_their_floor(
    tiny: Run, bench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.models.probed import ProbedTask

    whole = ProbedTask.features
    monkeypatch.setattr(ProbedTask, "features", lambda self, trunk, inputs: whole(self, trunk, inputs[:1]).repeat(len(inputs), 1))
    assert tiny("--pretext", "random_init", "--downstream", "voc_cls", "--evaluate", "knn,linear").code == 0
    for one in record.read(tmp_path / "runs"):
        assert one.spread is not None and one.spread.problem
    report = bench("report", "--out", tmp_path / "runs").out
    assert "‡: dead" in report and "†" in report


def test_what_matters_to_training_alone_changes_no_probe_and_no_table(tiny: Run, bench: Run, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen", "--evaluate", "finetune,knn")
    assert tiny(*asked, "--epochs", 2).code == 0
    (before,) = [one.id for one in record.read(tmp_path / "runs") if one.job.probe is not None]
    done = tiny(*asked, "--tune", 1, "--epochs", 1)
    assert done.code == 0 and f"{before} (seed 0, knn): finished before" in done.out, done.out + done.err
    found = record.read(tmp_path / "runs")
    assert [one.id for one in found if one.job.probe is not None] == [before]
    assert sorted(one.tuning is not None for one in found) == [False, False, True]
    boards = json.loads(bench("report", "--out", tmp_path / "runs", "--json").out)["table4"]
    of_board = [
        {line["evaluation"] for line in boards if line["board"] == number and not line["trivial"]} for number in (1, 2, 3)
    ]
    assert {"knn", "finetune"} in of_board or {"knn"} in of_board


def test_weights_from_elsewhere_are_one_network_for_a_probe_that_draws_nothing(tiny: Run, bench: Run, tmp_path: Path) -> None:
    assert tiny("--pretext", "random_init", "--downstream", "voc_cls", "--evaluate", "knn").code == 0
    (run,) = record.read(tmp_path / "runs")
    assert bench("export", run.id, "--out", tmp_path / "runs", "--to", tmp_path / "trunk").code == 0
    asked = (
        "--init",
        f"mine=local-dir:{tmp_path / 'trunk'}",
        "--downstream",
        "voc_cls",
        "--evaluate",
        "knn,linear",
        "--seeds",
        2,
    )
    done = tiny(*asked)
    assert done.code == 0, done.err
    seeds: dict[str, list[int]] = {}
    for one in record.read(tmp_path / "runs"):
        if one.pretext == "mine":
            seeds.setdefault(one.job.evaluation, []).append(one.job.seed)
    assert seeds["knn"] == seeds["linear"] == [0] and sorted(seeds["linear-sgd"]) == [0, 1]


def test_what_no_run_can_come_from_is_told_before_anything_is_trained(tiny: Run, tmp_path: Path) -> None:
    dense = tiny(
        "--pretext", "random_init", "--downstream", "voc_seg", "--evaluate", "dense-knn", "--set", "dense-knn.source=decoder"
    )
    assert dense.code == 2 and "no row here brings a trained decoder" in dense.err
    level = tiny("--pretext", "l1_color", "--downstream", "voc_cls", "--evaluate", "knn", "--level", 9)
    assert level.code == 2 and "--level takes 1 to 5" in level.err
    assert not (tmp_path / "runs" / "pretrained").exists()


def test_features_that_are_no_numbers_are_refused_by_every_kind_of_probe(tiny: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.models.probed import ProbedTask

    whole = ProbedTask.features
    monkeypatch.setattr(ProbedTask, "features", lambda self, trunk, inputs: whole(self, trunk, inputs) * float("nan"))
    done = tiny("--pretext", "random_init", "--downstream", "voc_cls,voc_seg", "--evaluate", "knn,dense-linear")
    assert done.code != 0 and done.out.count("are not finite numbers, so nothing can be probed") == 2
