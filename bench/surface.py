"""Distances between the surfaces of found and true masks, by MONAI, which an optional dependency group installs."""

from __future__ import annotations

import math
import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import UsageError
from bench.metrics import PADDING, VOID

PERCENTILE = 95
INSTALL = "pip install 'pretext-bench[medical]'"


def require() -> None:
    """Raise UsageError, saying what to install, where MONAI is missing."""
    try:
        version("monai")  # to import it takes seconds
    except PackageNotFoundError as error:
        raise UsageError(f"hd95 needs MONAI, which is not installed: {INSTALL}.") from error


def _distance() -> Any:
    """Return MONAI's `compute_hausdorff_distance`; UsageError where MONAI is missing or does not load."""
    require()
    try:
        from monai.metrics import compute_hausdorff_distance
    except ImportError as error:
        raise UsageError(f"hd95 needs MONAI, which does not load ({error}): {INSTALL}.") from error
    return compute_hausdorff_distance


def surface_distances(found: NDArray[np.uint8], truth: NDArray[np.uint8], classes: int) -> NDArray[np.float32]:
    """Return the 95th percentile Hausdorff distance of each image and class, float32 (N, C), as a share of the image's diagonal.

    `found` and `truth` are masks (N, H, W), 0 the background and the classes from 1 to C. A mask's edge is its pixels that
    have a neighbour outside of it, up, down, left or right, or lie at the border of the array. The distance is the larger of two
    percentiles: of the distances from each pixel of the found edge to the nearest of the true one, and the other way round. It is
    nan where the truth shows nothing of the class, and 1 where nothing was found of what it shows. Pixels that are void in the
    truth are background in both. Padding beside the image is no part of its diagonal.

    Raises UsageError where MONAI is missing.
    """
    distance = _distance()
    inside = truth != PADDING
    scored = inside & (truth != VOID)
    found, truth = np.where(scored, found, 0), np.where(scored, truth, 0)
    shares = np.full((len(truth), classes), np.nan, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 calls a function of its own in a way that it deprecated
        for image, (ours, real, of_image) in enumerate(zip(found, truth, inside, strict=True)):
            diagonal = math.hypot(*(of_image.any(axis=axis).sum() for axis in (0, 1)))
            for c in np.intersect1d(real, np.arange(1, classes + 1)).tolist():
                masks = [(mask == c)[None, None] for mask in (ours, real)]
                apart = float(distance(*masks, include_background=True, percentile=PERCENTILE)) if masks[0].any() else diagonal
                shares[image, c - 1] = apart / diagonal
    return shares
