"""Views made on a CPU: each step for the images that take it, in parts that stay in its cache.

Operations on a few images are too short to be shared by threads: each would wait for the slowest. Parts of the batch are shared
instead, so results do not depend on the number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.views import blur, colour, crop

if TYPE_CHECKING:
    from bench.views import Drawn

PART, THREAD = 1 << 20, 1 << 19
"""Values of views that are made together at most, and those for which a further thread is worth its handing over."""


def make(images: Tensor, drawn: Drawn, size: int, radius: int, threshold: float) -> Tensor:
    """Return the views that were drawn of uint8 images (N, 3, H, W): float32 (N, 3, size, size) in [0, 1].

    `radius`: the blur's, in pixels; `threshold`: above it solarize inverts.
    """
    # torch resamples bytes several times as fast with the channels last, which is also how packs hold them.
    pixels = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    views = torch.empty((len(images), 3, size, size))
    weights, hue_places = colour.blend_weights(drawn.factors, drawn.order), colour.hue_places(drawn.order)
    flips, greys = drawn.flips.tolist(), drawn.greys.tolist()

    def crop_and_colour(rows: Tensor) -> None:
        made = crop.one_by_one(pixels, drawn.boxes, rows, size)
        if drawn.jitters[rows[0]]:
            made = colour.jitter(made, weights[rows], drawn.factors[rows, colour.HUE], int(hue_places[rows[0]]))
        for row, view in zip(rows.tolist(), made, strict=True):  # several times as fast as index_copy_
            shown = colour.grey(view[None])[0] if greys[row] else view
            views[row] = shown.flip(2) if flips[row] else shown

    def blurred(rows: Tensor) -> None:
        for row, view in zip(rows.tolist(), blur.gaussian_blur(views[rows], drawn.sigmas[rows], radius), strict=True):
            views[row] = view

    def solarized(rows: Tensor) -> None:
        for row in rows.tolist():
            views[row] = colour.solarize(views[row], threshold)

    threads = max(1, views.numel() // THREAD)
    alike = torch.where(drawn.jitters, hue_places, 4)
    groups = torch.split(alike.argsort(stable=True), alike.bincount(minlength=5).tolist())
    together = max(1, PART // (3 * size**2))
    share(crop_and_colour, [part for rows in groups for part in torch.split(rows, together)], threads)
    by_sigma = drawn.sigmas.argsort(stable=True)
    if radius:
        share(blurred, torch.split(by_sigma[drawn.sigmas[by_sigma] > 0], blur.TOGETHER), threads)
    share(solarized, torch.split(drawn.solarized.nonzero()[:, 0], together), threads)
    return views


def share(work: Callable[[Tensor], None], parts: Sequence[Tensor], most: int) -> None:
    """Call `work` for every part that is not empty, without gradients, in as many threads as torch computes in, or `most`."""
    parts = [part for part in parts if len(part)]
    threads = torch.get_num_threads()
    if threads == 1:
        for part in parts:
            work(part)
        return
    left, in_inference = iter(parts), torch.is_inference_mode_enabled()

    def alone() -> None:
        with torch.inference_mode(in_inference), torch.no_grad():  # settings of each thread
            for part in left:
                work(part)

    for running in [_threads(threads).submit(alone) for _ in range(min(threads, len(parts), most))]:
        running.result()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """Return threads whose operations are not shared with further threads."""
    pool = ThreadPoolExecutor(count, "views", initializer=_compute_alone)
    started = Barrier(count)
    for _ in pool.map(lambda _: started.wait(), range(count)):
        pass
    torch.set_num_threads(count)  # the threads also set what torch takes for threads to come
    return pool


def _compute_alone() -> None:
    torch.get_num_threads()  # a thread that is asked for the first time takes the number of the others, whatever was set before
    torch.set_num_threads(1)


os.register_at_fork(after_in_child=_threads.cache_clear)
