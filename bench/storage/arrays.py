"""The predictions of a run as the bytes of a compressed .npz, packed and unpacked without pickles."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def pack_predictions(predictions: dict[str, NDArray[Any]], ids: Iterable[str]) -> bytes:
    """Return predictions and their images' ids (under `ids`) as the bytes of a compressed .npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, ids=np.array(list(ids)), **predictions)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack(content: bytes, most: int) -> dict[str, NDArray[Any]]:
    """Return the arrays in an .npz, given as bytes; ValueError for other bytes, and for more than `most` unpacked bytes."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > most:
            raise ValueError(f"it unpacks to {size:,} bytes, but at most {most:,} are allowed")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # numpy, zipfile and zlib have no common base for what they raise
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("it holds something that is no array")
    return arrays
