"""The bench from Python: `import bench`, then `bench.run(...)` and the others, with the command line's settings as keywords.

    bench.run(pretext=["random_init", "cgan_color"], downstream="voc_cls", init={"simclr": "simclr.pth,normalize=imagenet"})

A run that was interrupted, also by Ctrl-C in a notebook, goes on when the same call is made again; a finished one is returned.
Errors are those of `bench.errors`, with the sentences of the command line.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bench.cli.common import add, begin, check_places, in_use, use
from bench.cli.options import config_of, fields
from bench.cli.screen import Screen
from bench.config import RunConfig, names
from bench.errors import BenchError, Interrupted, UsageError, explained, unknown
from bench.record import Record, Tuning
from bench.registry import forget_plugins
from bench.training import openmp

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from bench.contract import Trunk
    from bench.experiment.session import Session

Folder = str | os.PathLike[str]
Plugins = Sequence[Folder] | Folder
TOGETHER = 64
"""How many images are embedded at once."""
T = TypeVar("T")


def run(*, out: Folder = "runs", plugin: Plugins = (), **options: Any) -> pd.DataFrame:
    """Run a grid as `bench run` does and return a data frame with a row for each run, in the order in which they are made.

    Keywords are the options of `bench run` with underscores; `init` and `set` also take dictionaries. Metrics are shares of 1 in
    columns of their own, by metric id and version. Raises BenchError with the command line's sentence, SomeFailed when some of
    several runs failed, and KeyboardInterrupt after Ctrl-C, with a checkpoint made.
    """

    def work(session: Session) -> list[Record]:
        from bench.experiment.grid import run_grid
        from bench.experiment.start import announce

        announce(session)
        return run_grid(session)

    return _frame([_line(record) for record in _in_session(options, out, plugin, work)])


def tune(*, trials: int, out: Folder = "runs", plugin: Plugins = (), **options: Any) -> pd.DataFrame:
    """Search learning rates as `bench tune` does and return a data frame with a row for each search and its chosen rates.

    `best_value` is the main metric on the validation split, a share of 1. `bench.run(tune=trials, ...)` uses what was found.
    """

    def work(session: Session) -> list[Tuning]:
        from bench.experiment.grid import tune_grid
        from bench.experiment.start import announce

        announce(session, runs=False)
        return tune_grid(session)

    found = _in_session({**options, "tune": trials}, out, plugin, work)
    return _frame(
        [{"study": t.study, "metric": t.metric, "best_value": t.best_value, **t.best, "trials": t.budget} for t in found]
    )


def report(
    out: Folder = "runs",
    *,
    metric: str | Sequence[str] = (),
    runs: str | Sequence[str] = (),
    baseline: str = "",
    selection: bool = False,
    sensitivity: bool = False,
    variation: bool = False,
) -> dict[str, pd.DataFrame]:
    """Return the tables of `bench report` as data frames by name (`results.frames.tables`); no file is written but the look."""
    from results import folder, frames
    from results.report import Wanted

    place = Path(out)
    wanted = Wanted(_texts(metric), _texts(runs), baseline, selection=selection, sensitivity=sensitivity, variation=variation)
    return frames.tables(folder.records_in(place), place, wanted)


def leaderboard(out: Folder = "runs") -> pd.DataFrame:
    """Return leaderboard.csv as a data frame: a line for each row and column of each table."""
    from results import frames

    return frames.leaderboard(Path(out))


def export(
    what: str, to: Folder, *, out: Folder = "runs", network: bool = False, license: str = "", plugin: Plugins = ()
) -> Path:
    """Write the trunk of a run, or with `network` its fine-tuned network, into a new folder as `bench export` does; return it.

    `what` is the id of a run or of a pretrained trunk, or the beginning of it. UsageError when there is none, or when the folder
    is not empty.
    """

    def work() -> Path:
        from bench.experiment import export as exporting

        add(_paths(plugin))
        use()
        exporting.export(exporting.choose(Path(out), what, network), Path(out), Path(to), license)
        return Path(to)

    return _told(work)


def load_trunk(folder: Folder) -> Trunk:
    """Return the trunk in a folder that `bench export` wrote, in eval mode on the CPU, with its preprocessing.

    UsageError for another folder; DataError when a file is damaged or was changed.
    """
    from bench.models import exported

    return exported.load_trunk(Path(folder))


def embed(
    trunk: Trunk, images: Iterable[Folder | Image | NDArray[np.uint8]] | Tensor | NDArray[np.uint8], *, size: int | None = None
) -> NDArray[np.float32]:
    """Return the trunk's features of images, its last encoder feature averaged over places: float32 (N, bottleneck_channels).

    `images` are files, PIL images, or uint8 arrays (H, W, 3) of sRGB; or all in one tensor (N, 3, H, W) or array (N, H, W, 3),
    uint8. Each is squashed to `size` x `size` pixels, bilinear; when left out, to the size that an exported trunk was trained at.
    The trunk computes where its weights are, in eval mode. UsageError for a size that does not fit, or where none is known.
    """
    import numpy as np
    import torch

    from bench.models.modes import inference

    if isinstance(images, str | os.PathLike) or not hasattr(images, "__iter__") or getattr(images, "ndim", 4) != 4:
        raise UsageError("bench.embed takes a list of images, or all in one tensor (N, 3, H, W); put a single one in a list.")
    each = list(images)
    side = size or getattr(trunk, "trained_at", 0)
    if not side:
        raise UsageError("bench.embed needs a size; this trunk does not say at which it was trained.")
    if side % trunk.stride:
        raise UsageError(f"this trunk takes sizes that are multiples of {trunk.stride}, but got {side}.")
    device = next(trunk.parameters()).device
    found = []
    with inference(trunk):
        for first in range(0, len(each), TOGETHER):
            batch = torch.stack([_pixels(one, side) for one in each[first : first + TOGETHER]]).to(device)
            found.append(trunk.encode(trunk.preprocessing(batch))[-1].float().mean(dim=(2, 3)).cpu())
    return torch.cat(found).numpy() if found else np.zeros((0, trunk.bottleneck_channels), dtype=np.float32)


def _pixels(image: Any, side: int) -> Tensor:
    """Return one image as uint8 (3, side, side)."""
    import numpy as np
    import torch
    from PIL import Image

    from bench.data.dataset import decode

    if isinstance(image, torch.Tensor):
        image = image.permute(1, 2, 0).cpu().numpy()
    if isinstance(image, str | os.PathLike):
        image = decode(Path(image))
    elif isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UsageError(f"an image is uint8 with three channels, but got {image.dtype} of shape {image.shape}.")
        image = Image.fromarray(image)
    squashed = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(squashed).copy()).permute(2, 0, 1)


def _in_session(options: Mapping[str, Any], out: Folder, plugin: Plugins, work: Callable[[Session], T]) -> T:
    """Open a session for the configuration that the keywords say, and return what `work` makes of it."""
    openmp.spin_less()  # of use where torch is not imported yet
    config, place = _config(options), Path(out)

    def in_session() -> T:
        with Screen() as screen:
            begin(_paths(plugin), place)
            check_places((*config.labelled_data, config.pretrain_data), config.storage)
            from bench.experiment.session import open_session

            return work(open_session(config, place, screen, command=("python",)))

    return _told(in_session)


def _told(work: Callable[[], T]) -> T:
    """Return what `work` makes, the folders that it uses claimed until then; every error is one of `bench.errors`."""
    forget_plugins()
    try:
        with in_use:
            return work()
    except Interrupted as error:
        if error.exit_code == 128 + signal.SIGINT:
            raise KeyboardInterrupt("stopped; the same call goes on from here.") from None
        raise SystemExit(error.exit_code) from None
    except BenchError:
        raise
    except Exception as error:
        told = explained(error)
        raise told from error


def _paths(plugin: Plugins) -> list[Path]:
    return [Path(one) for one in ([plugin] if isinstance(plugin, str | os.PathLike) else plugin)]


def _config(options: Mapping[str, Any]) -> RunConfig:
    known = [RunConfig.model_fields[name].alias or name for name in fields()]
    for name in options:
        if name not in known:
            raise unknown("keyword", name, known)
    given = {name: value for name, value in options.items() if value is not None}
    for name in ("init", "set"):
        value = given.get(name)
        if isinstance(value, Mapping):
            given[name] = tuple(f"{key}={_said(one)}" for key, one in value.items())
        elif isinstance(value, str):
            given[name] = (value,)
    return config_of({name: str(value) if isinstance(value, os.PathLike) else value for name, value in given.items()})


def _said(value: Any) -> str:
    return value if isinstance(value, str) else os.fspath(value) if isinstance(value, os.PathLike) else json.dumps(value)


def _texts(value: str | Sequence[str]) -> tuple[str, ...]:
    return names(value) if isinstance(value, str) else tuple(value)


def _line(record: Record) -> dict[str, Any]:
    job = record.job
    facts: dict[str, Any] = {
        "run_id": record.id,
        "row": record.pretext,
        "downstream": record.downstream,
        "schedule": job.schedule,
        "evaluation": job.evaluation,
    }
    facts |= {"transfer": job.transfer, "labels": job.labels, "seed": job.seed, "data": record.data.name}
    facts |= {"supervision": record.pretrain.supervision, "synthetic": record.data.synthetic}
    return {**facts, **{name: record.metrics[name] for name in record.metric_ids}, "seconds": record.cost.seconds}


def _frame(lines: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    import pandas

    return pandas.DataFrame(list(lines))


def _signature(function: Callable[..., Any], without: Sequence[str]) -> None:
    """Give a function the keywords of the configuration, so that an editor and a notebook list them."""
    own = [one for one in inspect.signature(function).parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    for name in fields(tuple(without)):
        alias = RunConfig.model_fields[name].alias or name
        own.append(inspect.Parameter(alias, inspect.Parameter.KEYWORD_ONLY, default=None))
    function.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]


_signature(run, ())
_signature(tune, ("seeds", "vary", "rates", "tune", "log"))
