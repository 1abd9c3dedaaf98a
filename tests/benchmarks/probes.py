"""How long the probes of a trunk take on features that are there, and how long lightly's kNN and linear evaluation take.

As large as a data set of 2,492 images to fit and 445 to score, 20 classes, 512 channels; features are synthetic. From JPEG, both
sides read the same files for the same random network: lightly's code once for kNN and once an epoch for the linear classifier,
ours once, as a run does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from bench import metrics
from bench.data import packs
from bench.data.dataset import decode
from bench.probe import make
from bench.probes.diagnostics import diagnostics
from bench.probes.features import Features, Images
from bench.probes.knn import knn
from bench.probes.logistic import linear
from bench.probes.lowshot import low_shot
from bench.probes.sgd import linear_sgd
from bench.probes.svm import svm
from tests.benchmarks.common import Figure, photographs, ratio, seconds

TRAIN, VAL, TEST, CLASSES, CHANNELS = 2242, 250, 445, 20, 512
NAMES = tuple(map(str, range(CLASSES)))
JPEGS, SIZE, BATCH = 600, 64, 128


def judge(scores: NDArray[np.float32], labels: NDArray[np.int8]) -> float:
    """Return VOC's mean average precision."""
    return metrics.compute("map_voc", {"scores": scores, "labels": labels}, NAMES, NAMES)


def features() -> Features:
    """Return synthetic features of one level that show the labels a little, through a ReLU as those of networks."""
    random = np.random.default_rng(0)
    directions = random.normal(size=(CLASSES, CHANNELS))

    def images(count: int) -> Images:
        labels = (random.random((count, CLASSES)) < 0.08).astype(np.int8)
        raw = labels @ directions * 0.12 + random.normal(size=(count, CHANNELS)) + 0.3
        return Images((torch.from_numpy(np.maximum(raw, 0).astype(np.float32)),), labels)

    return Features(images(TRAIN), images(VAL), images(TEST))


def measure() -> list[Figure]:
    """Measure each probe, and lightly's evaluations where lightly is installed."""
    found = features()
    works: dict[str, Callable[[], object]] = {
        "kNN": lambda: knn(make("knn", {}), found, judge),
        "linear": lambda: linear(make("linear", {}), found, judge),
        "low-shot": lambda: low_shot(make("lowshot", {}), found, np.ones(CLASSES, bool), 0),
        "diagnostics": lambda: diagnostics(found.fit.levels[0][:1024], found.fit.levels[0][1024:2048]),
    }
    times = {name: seconds(work) for name, work in works.items()}
    made = [Figure(name, taken, "s") for name, taken in times.items()]
    made.append(Figure("kNN, linear, low-shot and diagnostics of one trunk", sum(times.values()), "s", "at most 8"))
    made.append(
        Figure("26 linear heads by SGD, fitted twice", seconds(lambda: linear_sgd(make("linear-sgd", {}), found, judge, 0)), "s")
    )
    made.append(Figure("SVM, 11 costs, 3 folds", seconds(lambda: svm(make("svm", {}), found, judge)), "s", "at most 30"))
    return [*made, *_beside_lightly(found, times)]


def _beside_lightly(found: Features, times: dict[str, float]) -> list[Figure]:
    try:
        from lightly.utils import benchmarking  # noqa: F401
    except ImportError:
        return [Figure("lightly is not installed: not compared", float("nan"), "")]
    fit, test = found.fit, found.test
    labels = torch.from_numpy(fit.labels.argmax(axis=1)).long()
    bank = normalize(fit.levels[0], dim=1).T.contiguous()
    theirs = seconds(lambda: _lightly_knn(bank, labels, test.levels[0], CLASSES))
    one = make("knn", {"k": [200]})
    ours = seconds(lambda: knn(one, Features(fit, found.val, test), judge))
    head = seconds(lambda: _lightly_linear(nn.Identity(), [(fit.levels[0], labels)], len(fit), CHANNELS, CLASSES))
    return [
        Figure("lightly's kNN on these features, one label an image, one k", theirs, "s"),
        Figure("our kNN at one k, on val and on test, with their scores", ours, "s"),
        Figure("lightly's linear classifier on these features, two epochs, one rate", head, "s"),
        *_from_jpeg(),
    ]


def _from_jpeg() -> list[Figure]:
    """Measure both from JPEG files on, for a random ResNet-18."""
    import timm

    network = timm.create_model("resnet18", num_classes=0).eval()
    with tempfile.TemporaryDirectory() as name:
        paths = photographs(Path(name) / "images", JPEGS, 256, 192)
        labels = torch.arange(JPEGS) % 10

        def batches() -> list[tuple[Tensor, Tensor]]:
            rule = packs.PackRule(size=SIZE, resize="squash")
            images = torch.from_numpy(np.stack([packs.fit(decode(path), rule, SIZE)[0] for path in paths]))
            inputs = images.permute(0, 3, 1, 2).float() / 255
            return list(zip(torch.split(inputs, BATCH), torch.split(labels, BATCH), strict=True))

        def theirs_knn() -> None:
            with torch.no_grad():
                computed = torch.cat([network(images) for images, _ in batches()])
            _lightly_knn(normalize(computed, dim=1).T.contiguous(), labels, computed, 10)

        def ours(read: list[tuple[Tensor, Tensor]] | None = None) -> None:
            with torch.no_grad():
                computed = torch.cat([network(images) for images, _ in read or batches()])
            known = torch.nn.functional.one_hot(labels).numpy().astype(np.int8)
            parts = np.split(np.arange(JPEGS), [400, 450])
            split = Features(*(Images((computed[part],), known[part]) for part in parts))
            names = tuple(map(str, range(10)))
            own = lambda s, y: metrics.compute("map_voc", {"scores": s, "labels": y}, names, names)  # noqa: E731
            knn(make("knn", {}), split, own)
            linear(make("linear", {}), split, own)

        knn_time = seconds(theirs_knn)
        linear_time = seconds(lambda: _lightly_linear(network, batches, JPEGS, 512, 10))
        our_time = seconds(ours)
        packed = batches()
        packed_time = seconds(lambda: ours(packed))
    return [
        Figure(f"lightly's kNN from {JPEGS} JPEG files", knn_time, "s"),
        Figure("lightly's linear classifier from them, two epochs", linear_time, "s"),
        Figure("our kNN and linear from them, every k and penalty", our_time, "s"),
        Figure("the same for a further trunk, whose images are packed", packed_time, "s"),
        ratio("lightly's two over ours, images packed before", (knn_time + linear_time) / packed_time, 5),
        ratio("lightly's two over ours, from JPEG", (knn_time + linear_time) / our_time, 1),
    ]


def _lightly_knn(bank: Tensor, labels: Tensor, queries: Tensor, classes: int) -> None:
    from lightly.utils.benchmarking import knn_predict

    for some in torch.split(normalize(queries, dim=1), BATCH):
        knn_predict(some, bank, labels, classes, knn_k=min(200, bank.shape[1]))


def _lightly_linear(network: nn.Module, data: object, images: int, channels: int, classes: int) -> None:
    """Train lightly's linear classifier for two epochs; `data` are batches, or a function that reads them anew each epoch."""
    import logging
    import warnings

    from lightly.utils.benchmarking import LinearClassifier
    from pytorch_lightning import Trainer

    class Epochs(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
        def __iter__(self):  # type: ignore[no-untyped-def]
            read = data() if callable(data) else data
            for inputs, labels in read:
                yield from zip(torch.split(inputs, BATCH), torch.split(labels, BATCH), strict=True)

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    head = LinearClassifier(network, BATCH, feature_dim=channels, num_classes=classes, topk=(1,))
    trainer = Trainer(
        max_epochs=2, limit_train_batches=-(-images // BATCH), accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(head, torch.utils.data.DataLoader(Epochs(), batch_size=None))
