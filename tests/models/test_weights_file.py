"""Files of weights that others saved: tensors of all kinds are read, and a damaged file is refused by one sentence."""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.errors import BenchError, DataError, UsageError
from bench.models import weights_file
from bench.models.weights_file import read

STATE = {"conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "conv.bias": torch.tensor([5.0, 7.0])}
FORMATS = {"zip": True, "legacy": False}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def refused(path: Path, kind: type[BenchError] = DataError) -> str:
    """Return what a file is refused with: one sentence of one line."""
    with pytest.raises(kind) as caught:
        read(path)
    said = str(caught.value)
    assert said.startswith(str(path)) and said.endswith(".") and "\n" not in said and len(said) < len(str(path)) + 300
    return said.removeprefix(str(path))


def test_safetensors_are_read_with_their_names_and_types(tmp_path: Path) -> None:
    state = {**STATE, "half": torch.ones(2, dtype=torch.bfloat16), "none": torch.zeros(0, 3), "one": torch.tensor(3)}
    save_file(state, tmp_path / "a.safetensors")
    found = read(tmp_path / "a.safetensors")
    same(dict(sorted(found.items())), dict(sorted(state.items())))


@pytest.mark.parametrize("modern", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin", ".pth.tar"])
def test_torchs_files_are_read_in_their_order(tmp_path: Path, modern: bool, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    whole = {
        "epoch": 3,
        "state_dict": STATE,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1}]},
    }
    torch.save(whole, path, _use_new_zipfile_serialization=modern)
    expected = {f"state_dict.{name}": tensor for name, tensor in STATE.items()}
    same(read(path), {**expected, "optimizer.state.0.exp_avg": torch.ones(2)})


@pytest.mark.parametrize("modern", FORMATS.values(), ids=FORMATS)
def test_tensors_of_all_kinds_come_as_they_are(tmp_path: Path, modern: bool) -> None:
    tied = torch.arange(6.0)
    state: dict[str, Tensor] = {
        "half": torch.ones(3, dtype=torch.float16), "bfloat": torch.ones(3, dtype=torch.bfloat16), "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(7), "turned": torch.arange(6.0).reshape(2, 3).t(), "tied": tied, "again": tied, "view": tied[2:4],
        "parameter": nn.Parameter(torch.ones(2)), "double": torch.ones(2, dtype=torch.float64),
    }  # fmt: skip
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=modern)
    found = read(tmp_path / "a.pth")
    same(found, state)
    assert not any(tensor.requires_grad for tensor in found.values())


def test_tensors_that_no_network_is_loaded_from_are_passed_over(tmp_path: Path) -> None:
    """A copy of a sparse tensor or of one on the meta device fails; tensors of a list have its places as names."""
    odd = {"sparse": torch.eye(2).to_sparse(), "meta": torch.empty(2, device="meta")}
    torch.save({**odd, "listed": [torch.ones(1), (torch.zeros(1),)]}, tmp_path / "a.pth")
    same(read(tmp_path / "a.pth"), {"listed.0": torch.ones(1), "listed.1.0": torch.zeros(1)})


@pytest.mark.parametrize("modern", FORMATS.values(), ids=FORMATS)
def test_tensors_of_a_gpu_are_read_on_the_cpu(tmp_path: Path, modern: bool) -> None:
    path = tmp_path / "a.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=modern)
    told = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    if modern:
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, content.replace(*told) if name.endswith("data.pkl") else content)
    else:
        path.write_bytes(path.read_bytes().replace(*told))
    assert b"cuda:0" in path.read_bytes()
    same(read(path), STATE)


def test_dictionaries_that_hold_each_other_come_to_an_end(tmp_path: Path) -> None:
    deep: dict[str, Any] = {"weight": torch.ones(1)}
    for _ in range(11):
        deep = {f"{place}": deep for place in range(50)}  # 50^11 names
    torch.save(deep, tmp_path / "a.pth")
    assert 0 < len(read(tmp_path / "a.pth")) <= weights_file.OFTEN
    round_ = dict(STATE)
    round_["round"] = round_  # type: ignore[assignment]
    torch.save(round_, tmp_path / "b.pth")
    assert "conv.bias" in read(tmp_path / "b.pth")


@pytest.mark.parametrize("modern", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, modern: bool, kept: float) -> None:
    torch.save({"a": torch.rand(500), "b": torch.rand(500)}, tmp_path / "a.pth", _use_new_zipfile_serialization=modern)
    content = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(content[: int(len(content) * kept)])
    refused(tmp_path / "a.pth")


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.999])
def test_truncated_safetensors_are_refused(tmp_path: Path, kept: float) -> None:
    save_file({"a": torch.rand(500)}, tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(content[: int(len(content) * kept)])
    refused(tmp_path / "a.safetensors")


def test_a_file_of_torch_in_which_a_number_was_changed_is_refused(tmp_path: Path) -> None:
    numbers = torch.arange(500.0)
    torch.save({"a": numbers}, tmp_path / "a.pth")
    content = bytearray((tmp_path / "a.pth").read_bytes())
    content[content.find(numbers.numpy().tobytes()[400:]) + 3] ^= 1
    (tmp_path / "a.pth").write_bytes(content)
    assert "the checksum of a/data/0 in it is wrong" in refused(tmp_path / "a.pth")


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    same(read(tmp_path / "a.pth"), STATE)


def test_a_zip_that_was_packed_anew_is_refused_and_never_read_wrongly(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as old, zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "was compressed by another program" in refused(tmp_path / "b.pth")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"), (b"\n", "it is empty"), (b"<!DOCTYPE html><html>", "it is a web page"),
        (b"  <html>404 Not Found", "it is a web page"), (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n" + bytes(90), "neither safetensors nor"), (b"12345678{not json}", "is damaged"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{}", "holds no tensors"), (b"PK\x05\x06" + bytes(18), "is damaged"),
        (b"\x80\x04K\x01.", "is damaged"), (b"\x80\x02}q\x00.", "is damaged"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_weights_says_what_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    assert said in refused(tmp_path / "a.pth")


def test_a_file_without_tensors_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 1}, tmp_path / "a.pth")
    assert "holds no tensors" in refused(tmp_path / "a.pth")
    assert "is a folder; give a file of weights" in refused(tmp_path, UsageError)
    assert "is not there; give a file of weights" in refused(tmp_path / "none.pth", UsageError)


def test_a_script_of_torch_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), str(tmp_path / "a.pt"))
    refused(tmp_path / "a.pt")


def test_the_digest_of_tensors_depends_on_names_types_shapes_and_numbers() -> None:
    ones = torch.ones(2, 2)
    others = [{"b": ones}, {"a": ones.half()}, {"a": ones.reshape(4)}, {"a": ones * 2}, {"a": ones, "b": ones}]
    digests = [weights_file.digest(one) for one in ({"a": ones}, *others)]
    assert len(set(digests)) == 6 and digests[0] == weights_file.digest({"a": torch.ones(4, 2)[::2]})


MEASURE = """
import sys
from pathlib import Path

from bench.models import matching, weights_file
from bench.models.trunk import TrunkName, make_trunk

def held(what):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what))

trunk, name = make_trunk("timm:resnet10t,preprocessing=rgb"), TrunkName.parse("timm:resnet10t,preprocessing=rgb")
def load(path):
    tensors = weights_file.read(Path(path))
    matched = matching.match(tensors, trunk, name)
    matching.check(matched, tensors, trunk, name, path, False)
    matching.load(matched, trunk)
load(sys.argv[1])
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: a process's begins with what its parent held
before = held("VmRSS")
load(sys.argv[2])
print(held("VmHWM") - before)
"""


@pytest.mark.integration
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read as Linux tells it")
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_loading_needs_less_than_1_3_times_the_file_beyond_the_network(tmp_path: Path, kind: str) -> None:
    state = timm.create_model("resnet10t").state_dict()
    for name, extra in (("small", 1), ("large", 50_000_000)):
        whole = {**state, "unused": torch.ones(extra)}
        if kind == "safetensors":
            save_file(whole, tmp_path / name)
        else:
            torch.save(whole, tmp_path / name, _use_new_zipfile_serialization=kind == "zip")
    size = (tmp_path / "large").stat().st_size
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1.3 * size
