"""What the machine promises is said; what stops the main job is found before it starts, and nothing is left behind."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.data import catalogue
from bench.storage import files
from bench.training import cpu_load, machine

pytestmark = pytest.mark.integration

Bench = Callable[..., "object"]
LIMITED = """
import resource, sys
import torch, torchvision
from bench.__main__ import main
if "addresses" in sys.argv[1]:
    mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 300_000_000,) * 2)
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000,) * 2)
sys.argv = ["bench", "doctor", "--out", sys.argv[2]]
main()
"""
MISMATCHED = """
import torch
@torch.library.register_fake("torchvision::nms")
def nms(*arguments): ...
"""


def tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def verdicts(text: str) -> dict[str, str]:
    return {line.split("\t")[0]: line.split("\t")[1] for line in text.splitlines()[1:]}


def in_a_process(code: str, *arguments: object, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(path or ""), *sys.path]))}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=300, env=environment
    )


def test_the_doctor_says_what_is_promised_and_leaves_nothing_behind(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    before = tree(tmp_path)
    told = bench("doctor", "--out", tmp_path / "runs")
    assert told.code == 0, told.err
    promised = ("python", "packages", "torch", "torchvision", "threads", "precision", "results", "deterministic algorithms")
    places = [f"{folder}: {what}" for folder in ("home", "out") for what in ("writing", "locks", "disk")]
    found = verdicts(told.out)
    assert {*promised, "memory", *places, "caches", "data"} <= found.keys()
    assert "fails" not in found.values()
    assert "\x1b" not in told.out
    after = tree(tmp_path)
    assert after.keys() == before.keys()
    assert bench("doctor", "--out", tmp_path / "new" / "runs").code == 0
    assert tree(tmp_path).keys() == before.keys()


def test_the_doctor_speaks_json(bench: Bench, tmp_path: Path) -> None:
    told = json.loads(bench("doctor", "--json", "--out", tmp_path / "runs").out)
    assert told["main_job"] is True
    assert all(check.keys() == {"name", "finding", "verdict", "remedy"} for check in told["checks"])
    broken = bench("doctor", "--json", "--out", "/proc/runs")
    assert broken.code == 4 and json.loads(broken.out)["main_job"] is False


@pytest.mark.parametrize(("folder", "option"), [("home", "$PRETEXT_BENCH_HOME"), ("out", "--out")])
def test_a_folder_that_cannot_be_written_ends_with_4_and_the_option_that_names_another(
    folder: str, option: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "below"
    if folder == "home":
        monkeypatch.setenv("PRETEXT_BENCH_HOME", str(below))
    else:
        below = Path("/proc/runs")  # a file as --out is no folder of another machine either, and is refused before
    told = bench("doctor", "--out", below if folder == "out" else tmp_path / "runs")
    assert told.code == 4
    assert verdicts(told.out)[f"{folder}: writing"] == "fails"
    assert "cannot be written" in told.err and option in told.err and str(below) in told.err


def test_a_dangling_link_is_no_folder_to_write_in(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(tmp_path / "unmounted")
    assert bench("doctor", "--out", tmp_path / "runs").code == 4


def test_a_limit_on_the_size_of_files_is_found(tmp_path: Path) -> None:
    told = in_a_process(LIMITED, "files", tmp_path / "runs")
    assert told.returncode == 4, told.stderr
    assert "1.0 MB (ulimit -f)" in told.stderr and "raise the limit" in told.stderr
    assert not (tmp_path / "runs").exists()


def test_a_limit_on_memory_is_found(tmp_path: Path) -> None:
    told = in_a_process(LIMITED, "addresses", tmp_path / "runs")
    assert told.returncode == 4, told.stderr
    assert "ulimit -v" in told.stderr and "main job needs 810.0 MB" in told.stderr


def test_a_torchvision_that_does_not_fit_torch_is_found(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(MISMATCHED)
    code = "import sys; from bench.__main__ import main; sys.argv = ['bench', 'doctor', '--out', sys.argv[1]]; main()"
    told = in_a_process(code, tmp_path / "runs", path=tmp_path)
    assert told.returncode == 4, told.stderr
    assert "operator torchvision::nms does not exist" in told.stderr
    assert "pip install --upgrade torch torchvision" in told.stderr and "Traceback" not in told.stderr


def test_a_package_of_another_version_is_found(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = tmp_path / "site" / "timm-0.1.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: timm\nVersion: 0.1\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    told = bench("doctor", "--out", tmp_path / "runs")
    assert told.code == 4
    assert "timm: 0.1 is installed, but >=1.0 is needed, so pip install 'timm>=1.0'" in told.err


def test_a_package_that_is_missing_is_found(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = tmp_path / "site" / "pretext_bench-0.1.dist-info"
    facts.mkdir(parents=True)
    text = "Metadata-Version: 2.1\nName: pretext-bench\nVersion: 0.1\nRequires-Python: >=9.1\nRequires-Dist: bench-dream>=1\n"
    (facts / "METADATA").write_text(text + 'Requires-Dist: bench-extra>=1; extra == "dev"\n')
    monkeypatch.syspath_prepend(tmp_path / "site")
    told = bench("doctor", "--out", tmp_path / "runs")
    assert told.code == 4
    assert "bench-dream: it is missing, but >=1 is needed" in told.err and "bench-extra" not in told.err
    assert "is not >=9.1" in told.err


def test_too_little_room_names_what_is_needed_on_that_disk(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    told = bench("doctor", "--out", tmp_path / "runs")
    assert told.code == 4
    assert "100.0 MB free, and the main job needs 159.0 MB" in told.err and "free 59.0 MB" in told.err


@pytest.mark.parametrize("fault", ["missing", "given twice"])
def test_locks_that_do_not_work_are_found(fault: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: object, kind: int) -> None:
        if fault == "missing":
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    told = bench("doctor", "--out", tmp_path / "runs")
    assert told.code == 4
    assert verdicts(told.out)["out: locks"] == "fails"
    assert "name a folder on another file system" in told.err and "or give the runs to a --launcher" in told.err


def test_a_machine_without_proc_is_examined_all_the_same(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_load, "PROC", tmp_path / "nothing")
    monkeypatch.setattr(cpu_load, "GROUPS", tmp_path / "nothing")
    monkeypatch.setattr(machine, "MEMORY", tmp_path / "nothing")
    monkeypatch.delattr(os, "sched_getaffinity")
    told = bench("doctor", "--out", tmp_path / "runs")
    assert told.code == 0, told.err
    assert verdicts(told.out)["processor"] == "ok"


@pytest.mark.parametrize(
    ("line", "files"),
    [
        (
            "0::/job/step",
            {
                "job/memory.max": "500000000",
                "job/memory.current": "400000000",
                "job/memory.stat": "anon 1\ninactive_file 7000000",
            },
        ),
        (
            "4:memory:/job",
            {
                "memory/job/memory.limit_in_bytes": "500000000",
                "memory/job/memory.usage_in_bytes": "400000000",
                "memory/job/memory.stat": "total_inactive_file 7000000",
            },
        ),
    ],
)
def test_a_container_with_little_memory_is_found(
    line: str, files: dict[str, str], bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(f"{line}\n")
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    monkeypatch.setattr(cpu_load, "PROC", tmp_path / "proc")
    monkeypatch.setattr(cpu_load, "GROUPS", tmp_path / "groups")
    told = bench("doctor", "--out", tmp_path / "runs")
    assert told.code == 4
    assert "memory: 107.0 MB free" in told.err and "control group" in told.err


def test_a_quota_of_cores_below_torchs_threads_is_a_note(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/\n")
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups" / "cpu.max").write_text("100000 100000\n")
    monkeypatch.setattr(cpu_load, "PROC", tmp_path / "proc")
    monkeypatch.setattr(cpu_load, "GROUPS", tmp_path / "groups")
    torch.set_num_threads(2)
    told = bench("doctor", "--out", tmp_path / "runs")
    assert told.code == 0
    assert verdicts(told.out)["threads"] == "note" and "--threads 1" in told.out


def test_how_threads_wait_and_who_shares_the_processors_is_said(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setenv("GOMP_SPINCOUNT", "123")
    torch.set_num_threads(2)
    for taken, verdict in ((0.1, "ok"), (cpu_load.cores() - 0.2, "note")):
        monkeypatch.setattr(cpu_load.Neighbours, "taken", lambda self, least=0.0, taken=taken: taken)
        told = bench("doctor", "--out", tmp_path / "runs")
        assert verdicts(told.out)["waiting threads"] == verdict
        assert "GOMP_SPINCOUNT=123" in told.out and f"other programs take {taken:.1f} of" in told.out
        assert ("so --threads 1 may be faster" in told.out) == (verdict == "note")


def test_a_prepared_data_set_whose_images_are_gone_is_a_note_unless_the_main_job_needs_it(
    bench: Bench, voc: Path, drawn: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("mine", "voc2012"):
        catalogue.register(catalogue.read(voc, name))
    shutil.rmtree(voc)
    (files.home() / "data" / "broken").mkdir()
    (files.home() / "data" / "broken" / "index.json").write_text("{")
    told = bench("doctor", "--out", tmp_path / "runs")
    assert told.code == 0, "without COCO the main job takes the demo data"
    assert {verdicts(told.out)[f"data: {name}"] for name in ("mine", "voc2012", "broken")} == {"note"}
    catalogue.register(catalogue.read(drawn["demo_unlabelled"], "coco2014"))
    told = bench("doctor", "--out", tmp_path / "runs")
    assert told.code == 4
    assert "bench data prepare voc2012 --root DIR" in told.err and "mine" not in told.err
    assert "for coco2014" in told.out
