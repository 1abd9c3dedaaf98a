"""Reads the tensors of a file that others saved, and executes nothing: safetensors, and torch's files by `weights_only=True`.

Checkpoints often hold more than tensors: the arguments of the program, NumPy scalars, paths. Those types are listed here and read
as nothing. A file with any other type is refused by the type's name.
"""

from __future__ import annotations

import hashlib
import re
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from bench.errors import DataError, UsageError, out_of_memory

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")
"""How files of weights end: `.pth.tar` is usual too."""
DEEPEST, OFTEN = 12, 8
"""The most dictionaries inside one another, and how often one dictionary is looked into: a file may hold it under many names."""
NOT_WEIGHTS = (
    (b"", "it is empty"), (b"<", "it is a web page"),
    (b"version https://git-lfs", "it is a Git LFS pointer, and git lfs pull fetches the file"),
)  # fmt: skip
"""What downloads that went wrong begin with."""


class _Nothing:
    """What an inert type is read as: it takes everything, and keeps and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        return

    def __setstate__(self, _: Any) -> None:
        return


class _Dictionary:
    """What an inert dictionary is read as: torch fills no other types than its own and these."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


class _List:
    """What an inert list is read as."""

    def __new__(cls, *_: Any) -> Any:
        return []


INERT = (
    "argparse.Namespace", "types.SimpleNamespace", "uuid.UUID", "functools.partial", "typing.Any",
    *(f"datetime.{name}" for name in ("datetime", "timedelta", "timezone", "date")),
    *(f"builtins.{name}" for name in ("bool", "dict", "float", "frozenset", "int", "list", "range", "slice", "str", "tuple")),
    *(f"pathlib.{kind}" for kind in ("Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
    *(f"pathlib._local.{kind}" for kind in ("Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{name}" for name in ("ndarray", "dtype", "bool_", "float16", "float32", "float64", "int32", "int64", "str_")),
    *(f"numpy.dtypes.{name}DType" for name in ("Bool", "Float16", "Float32", "Float64", "Int32", "Int64", "UInt8", "Str")),
    *(f"numpy.random.{name}" for name in ("_mt19937.MT19937", "_pcg64.PCG64")),
    *(f"numpy.random._pickle.__{name}_ctor" for name in ("bit_generator", "generator", "randomstate")),
    *(f"numpy.random.bit_generator.{name}" for name in ("SeedSequence", "__pyx_unpickle_SeedSequence")),
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata", "omegaconf.nodes.AnyNode", "omegaconf.nodes.StringNode", "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.FloatNode", "omegaconf.nodes.BooleanNode", "mmengine.logging.history_buffer.HistoryBuffer",
)  # fmt: skip
"""Types that hold settings, numbers, texts and paths. None of them is imported: each is read as nothing."""
DICTIONARIES = (
    "collections.defaultdict", "lightning.fabric.utilities.data.AttributeDict", "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict", "easydict.EasyDict", "yacs.config.CfgNode", "addict.addict.Dict",
    "mmengine.config.config.ConfigDict", "vissl.utils.hydra_config.AttrDict",
)  # fmt: skip
"""Types that are dictionaries. None of them is imported: each is read as an OrderedDict."""
LISTS = ("collections.deque",)


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, in the file's order; dictionaries inside one another are joined by dots.

    The tensors lie in the mapped file until they are copied, so a large file takes little memory. UsageError when there is no
    such file; DataError when it is damaged, holds a type that is not inert, or no tensors.
    """
    if not path.is_file():
        raise UsageError(
            f"{path} is {'a folder' if path.is_dir() else 'not there'}; give a file of weights ({', '.join(SUFFIXES)})."
        )
    with path.open("rb") as file:
        beginning = file.read(64)
    if beginning[8:9] == b"{":
        found = _safetensors(path)
    elif beginning[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        found = dict(_flat(_torch(path, is_zip=beginning[:2] == b"PK"), Counter()))
    else:
        begins = beginning.lstrip()
        what = next((told for start, told in NOT_WEIGHTS if (begins.startswith(start) if start else not begins)), "")
        raise DataError(f"{path} is no file of weights: {what or 'neither safetensors nor what torch.save writes'}.")
    if not found:
        raise DataError(f"{path} holds no tensors.")
    return found


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors: names, types, shapes and numbers."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        ready = tensor.detach().contiguous().cpu()
        found.update(f"{name} {ready.dtype} {tuple(ready.shape)}\n".encode())
        found.update(ready.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(str(path), framework="pt") as file:
            names = file.offset_keys() if hasattr(file, "offset_keys") else file.keys()
            return {name: file.get_tensor(name) for name in names}
    except MemoryError:
        raise
    except Exception as error:  # safetensors has no common base for what a damaged file raises
        raise DataError(f"{path} is damaged: {_reason(error)}.") from error


def _torch(path: Path, is_zip: bool) -> Any:
    if is_zip:
        _check_zip(path)
    try:
        with _only_inert(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # torch raises whatever a damaged file makes Python raise
        if out_of_memory(error):
            raise
        unknown = _unknown_types(path) or re.findall(r"GLOBAL (\S+)", str(error))
        if unknown:
            raise DataError(
                f"{path} holds {', '.join(unknown[:5])}, which could run a program when it is read, and is refused; save the "
                "network's state_dict() alone."
            ) from error
        if re.search("Unsupported operand|Can only|Trying to call", str(error)):
            raise DataError(
                f"{path} is pickled in a way that is not read, since it could run a program; save the network's state_dict() "
                "alone, by torch.save without a pickle_protocol."
            ) from error
        raise DataError(f"{path} is damaged: {_reason(error)}.") from error


@contextmanager
def _only_inert() -> Iterator[None]:
    """Let torch read inert types inside the block, and none that a library allowed in this process."""
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    for kind, those in ((_Nothing, INERT), (_Dictionary, DICTIONARIES), (_List, LISTS)):
        torch.serialization.add_safe_globals([(kind, name) for name in those])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed)


def _check_zip(path: Path) -> None:
    """Raise DataError for a zip that was changed after torch wrote it; neither torch nor a memory map compares its checksums.

    They are 0 where torch was told to write none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise DataError(
                    f"{path} was compressed by another program than torch; unpack it and save its state_dict() again."
                )
            changed = archive.testzip() if any(part.CRC for part in parts) else None
    except (OSError, ValueError, NotImplementedError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged: {_reason(error)}.") from error
    if changed:
        raise DataError(f"{path} is damaged: the checksum of {changed} in it is wrong.")


def _unknown_types(path: Path) -> list[str]:
    """Return the types in a file that are not read, by name; none where torch cannot tell."""
    try:
        with _only_inert():
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:
        return []


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


def _flat(value: Any, entered: Counter[int], name: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield each dense tensor of dictionaries and lists inside one another, with its names joined by dots."""
    if isinstance(value, Tensor):
        if value.layout == torch.strided and not value.is_quantized and not value.is_meta:
            yield name, value.detach()
    elif isinstance(value, dict | list | tuple) and depth < DEEPEST and entered[id(value)] < OFTEN:
        entered[id(value)] += 1
        for key, inner in dict.items(value) if isinstance(value, dict) else enumerate(value):
            yield from _flat(inner, entered, f"{name}.{key}" if name else str(key), depth + 1)
