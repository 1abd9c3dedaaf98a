"""Reads the tensors of a file that others saved, and executes nothing: safetensors, and torch's files by `weights_only=True`.

Checkpoints often hold more than tensors: the arguments of the program, NumPy scalars, paths. Those types are listed here and read
as nothing. A file with any other type is refused by the type's name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from bench.errors import DataError, UsageError, out_of_memory

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")
"""How files of weights end: `.pth.tar` is usual too."""
DEEPEST = 12
"""The most dictionaries inside one another."""


class _Nothing(dict[Any, Any]):
    """What an inert type is read as: it takes everything, and keeps and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        return


INERT = (
    "argparse.Namespace", "types.SimpleNamespace", "collections.defaultdict", "collections.deque", "datetime.datetime",
    "datetime.timedelta", "datetime.date", "uuid.UUID", "functools.partial", "typing.Any", "builtins.complex", "builtins.slice",
    *(f"pathlib.{kind}" for kind in ("Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
    *(f"pathlib._local.{kind}" for kind in ("Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{name}" for name in ("ndarray", "dtype", "bool_", "float16", "float32", "float64", "int32", "int64", "str_")),
    *(f"numpy.dtypes.{name}DType" for name in ("Bool", "Float16", "Float32", "Float64", "Int32", "Int64", "UInt8", "Str")),
    "_codecs.encode",
    "lightning.fabric.utilities.data.AttributeDict", "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict", "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata", "omegaconf.nodes.AnyNode", "omegaconf.nodes.StringNode", "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.FloatNode", "omegaconf.nodes.BooleanNode", "easydict.EasyDict", "yacs.config.CfgNode",
    "addict.addict.Dict", "mmengine.config.config.ConfigDict", "mmengine.logging.history_buffer.HistoryBuffer",
    "vissl.utils.hydra_config.AttrDict",
)  # fmt: skip
"""Types that hold settings, numbers, texts and paths. None of them is imported: each is read as nothing."""


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
        beginning = file.read(9)
    if beginning[8:] == b"{":
        found = _safetensors(path)
    elif beginning[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        found = dict(_flat(_torch(path, mapped=beginning[:2] == b"PK")))
    else:
        raise DataError(f"{path} is no file of weights: neither safetensors nor what torch.save writes.")
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


def _torch(path: Path, mapped: bool) -> Any:
    inert: list[Any] = [(_Nothing, name) for name in INERT]
    try:
        with torch.serialization.safe_globals(inert):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises whatever a damaged file makes Python raise
        if out_of_memory(error):
            raise
        unknown = _unknown_types(path, inert)
        if unknown:
            raise DataError(
                f"{path} holds {', '.join(unknown[:5])}, which could run a program when it is read, and is refused; save the "
                "network's state_dict() alone."
            ) from error
        raise DataError(f"{path} is damaged: {_reason(error)}.") from error


def _unknown_types(path: Path, inert: list[Any]) -> list[str]:
    """Return the types in a file that are not read, by name; none where torch cannot tell."""
    try:
        with torch.serialization.safe_globals(inert):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:
        return []


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


def _flat(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor of dictionaries inside one another, with its names joined by dots."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping) and depth < DEEPEST:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key), depth + 1)
