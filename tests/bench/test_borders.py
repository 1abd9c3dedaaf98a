"""Whatever a library raises where the program calls it ends in one sentence and the exit code of its kind.

The database of a search has a list of its own, in `tests/storage/test_database.py`.
"""

import os
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import safetensors
import timm
import torch
from PIL import Image, UnidentifiedImageError
from pycocotools.coco import COCO
from safetensors import SafetensorError
from torch import nn
from torch._inductor.exc import InductorError, InvalidCxxCompiler

from bench.data import coco
from bench.data.dataset import decode, opened
from bench.errors import BenchError, DataError, MachineError, UsageError, explained
from bench.experiment import figure7
from bench.models import trunk
from bench.storage import arrays, files, seal
from bench.training import checkpoint

PILLOW = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, EOFError, RuntimeError,
    NotImplementedError, RecursionError, ZeroDivisionError, struct.error, zlib.error, UnidentifiedImageError,
    PIL.Image.DecompressionBombError,
)  # fmt: skip
"""What plug-ins of Pillow raise for files that are not what they seem, `MemoryError` aside."""
TIMM = (
    RuntimeError, AssertionError, ValueError, TypeError, AttributeError, KeyError, IndexError, NotImplementedError, ImportError,
    OSError,
)  # fmt: skip
"""What encoders raise that have no feature pyramid, or not for images of a size."""
FILES = (
    SafetensorError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    RecursionError,
    UnicodeDecodeError,
)
"""What reading safetensors, or the JSON in them, raises."""
ARCHIVES = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, TypeError, struct.error, NotImplementedError)
"""What reading an .npz raises."""


def made(kind: type[Exception]) -> Exception:
    return UnicodeDecodeError("utf-8", b"\xff", 0, 1, "the reason") if kind is UnicodeDecodeError else kind("the reason")


def raising(error: Exception) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def said(work: Callable[[], object]) -> BenchError:
    """Return the error that a user sees for what `work` raises; it is one sentence, and none that we did not expect."""
    try:
        work()
    except Exception as error:
        told = explained(error)
        text = str(told)
        assert text.endswith(".") and "\n" not in text and "unexpected" not in text and ": ." not in text, text
        return told
    pytest.fail("nothing was raised")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


@pytest.mark.parametrize("kind", PILLOW)
@pytest.mark.parametrize("what", ["an image", "a mask"])
def test_pillow_opening_a_file(image: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], what: str) -> None:
    monkeypatch.setattr(Image, "open", raising(made(kind)))

    def work() -> None:
        with opened(image, what):
            pass

    told = said(work)
    assert isinstance(told, DataError) and told.exit_code == 3 and str(told).startswith(str(image))


@pytest.mark.parametrize("kind", PILLOW)
def test_pillow_decoding_the_pixels(image: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    monkeypatch.setattr(Image.Image, "convert", raising(made(kind)))
    told = said(lambda: decode(image))
    assert isinstance(told, DataError) and str(told).startswith(str(image))


@pytest.mark.parametrize("kind", PILLOW)
def test_pillow_opening_a_kept_row_of_figure_7(image: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    figure7.keep(image.parent, 1, {"truth": np.zeros((1, 3, 8, 8), dtype=np.uint8)})
    monkeypatch.setattr(Image, "open", raising(made(kind)))
    told = said(lambda: figure7.draw(image.parent, image.parent / "figure7.png"))
    assert isinstance(told, DataError) and "truth.png does not decode" in str(told)


def test_pillow_without_memory(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", raising(MemoryError()))
    told = said(lambda: decode(image))
    assert isinstance(told, MachineError) and told.exit_code == 4 and str(image) in str(told)


@pytest.mark.parametrize("kind", TIMM)
def test_timm_making_an_encoder(monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    trunk.encoder_of.cache_clear()
    monkeypatch.setattr(timm, "create_model", raising(made(kind)))
    told = said(lambda: trunk.make_trunk("timm:resnet18"))
    assert isinstance(told, UsageError) and told.exit_code == 2
    assert re.match(r"timm:resnet18 cannot be used as a trunk: '?the reason'?\.$", str(told))
    assert str(said(lambda: trunk.make_trunk("timm:resnet81"))).startswith("unknown timm encoder 'resnet81'; did you mean")


@pytest.mark.parametrize("kind", TIMM)
def test_timm_encoding_an_image(monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    trunk.check_size.cache_clear()
    monkeypatch.setattr(trunk.TimmTrunk, "encode", raising(kind()))
    told = said(lambda: trunk.check_size("timm:resnet18", 64))
    assert isinstance(told, UsageError)
    assert str(told) == f"timm:resnet18 at 64 px cannot be used as a trunk: {kind.__name__}."


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_timm_without_memory(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    trunk.encoder_of.cache_clear()
    monkeypatch.setattr(timm, "create_model", raising(error))
    told = said(lambda: trunk.make_trunk("timm:resnet18"))
    assert isinstance(told, MachineError) and "out of memory" in str(told)


@pytest.mark.parametrize("name", ["hf-hub:some/model", "hf_hub:some/model", "local-dir:/tmp"])
def test_timm_is_asked_for_nothing_that_lies_elsewhere(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(timm, "create_model", raising(AssertionError("asked")))
    assert str(said(lambda: trunk.make_trunk(f"timm:{name}"))).startswith(f"unknown timm encoder {name!r}")


@pytest.mark.parametrize("kind", FILES)
def test_safetensors_reading_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    network, path = nn.Linear(2, 2), tmp_path / "weights.safetensors"
    checkpoint.save_weights(path, network, {})
    monkeypatch.setattr(checkpoint, "safe_open", raising(made(kind)))
    told = said(lambda: checkpoint.load_weights(path, files.sha256(path), network))
    assert isinstance(told, DataError) and str(told).startswith(f"{path} is not a safetensors file: ")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("I/O error: No space left on device (os error 28)", "no room to write"),
        ("I/O error: Permission denied (os error 13)", "cannot write"),
        ("something else", "cannot write"),
    ],
)
def test_safetensors_writing_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, sentence: str) -> None:
    monkeypatch.setattr(checkpoint, "save_file", raising(safetensors.SafetensorError(text)))
    told = said(lambda: checkpoint.save(tmp_path, nn.Linear(2, 2), {}, {"step": 1}))
    assert isinstance(told, MachineError) and told.exit_code == 4 and str(told).startswith(sentence)


def test_tied_weights_are_saved_and_loaded(tmp_path: Path) -> None:
    """safetensors raises RuntimeError for two tensors of one memory."""
    network, other = (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)) for _ in range(2))
    for one in (network, other):
        one[1].weight = one[0].weight
    checkpoint.save(tmp_path, network, {}, {"step": 1})
    checkpoint.load(tmp_path, other, {})
    assert torch.equal(other[0].weight, network[0].weight) and torch.equal(other[1].weight, network[0].weight)


def test_a_state_that_is_no_tensor_is_refused_before_training(tmp_path: Path) -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"a": 1}

    told = said(lambda: checkpoint.load(tmp_path, Odd(2, 2), {}))
    assert (told.exit_code, str(told)) == (
        2,
        "the network keeps {'a': 1} as _extra_state, which is no tensor; keep all state in tensors.",
    )


@pytest.mark.parametrize("kind", ARCHIVES)
def test_numpy_reading_an_archive_gives_its_callers_a_value_error(monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    content = arrays.pack_predictions({"scores": np.zeros((2, 3))}, ["a", "b"])
    monkeypatch.setattr(np, "load", raising(made(kind)))
    with pytest.raises(ValueError, match="the reason"):
        arrays.unpack(content, 1 << 20)


@pytest.mark.parametrize("kind", [KeyError, ValueError, TypeError, OSError, RecursionError])
def test_pycocotools_reading_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    path = tmp_path / "annotations" / "instances_train2017.json"
    path.parent.mkdir()
    path.write_text('{"images": []}')
    monkeypatch.setattr(COCO, "createIndex", raising(made(kind)))
    told = said(lambda: coco.read(tmp_path, "mine"))
    assert isinstance(told, DataError) and str(told).startswith(f"{path} is not a COCO annotation file: ")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"ids": "\ud800"}', "[" * 100_000, '{"size": 1' + "0" * 5000 + "}", "\x00"])
def test_json_and_pydantic_reading_a_sealed_file(tmp_path: Path, text: str) -> None:
    from bench.data.splits import Splits

    path = tmp_path / "splits.json"
    path.write_bytes(seal.sealed(text.encode(errors="replace").decode()).encode())
    told = said(lambda: seal.read_model(Splits, path, "a file of splits", "remove it"))
    assert isinstance(told, DataError) and str(told).startswith(f"{path} is not a file of splits of this version")


def test_a_compiler_that_torch_does_not_find() -> None:
    told = said(raising(InductorError(InvalidCxxCompiler(), None)))
    assert isinstance(told, MachineError) and told.exit_code == 4
    assert re.match(r"the networks cannot be compiled here \(.*InvalidCxxCompiler.*\); run without --compile\.$", str(told))


def test_a_terminal_without_the_characters_of_a_table(drawn: dict[str, Path], tmp_path: Path) -> None:
    """Python raises UnicodeEncodeError; the program's own texts, and names of files, may hold any character."""
    folder = tmp_path / "na\u00efve \u2020"
    command = [sys.executable, "-m", "bench", "data", "verify", str(folder)]
    asked = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False)
    assert asked.returncode == 3, asked.stderr
    assert asked.stderr.endswith(b"na?ve ?: no such folder.\n")
