"""The protocols of the tasks in this folder, and what they share: schedules, settings of the authors' code, small protocols.

They stand apart from their tasks, and this file does not import torch, so that the protocols are listed in an instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.protocol import Phase, Protocol, Schedule

Stretch = tuple[int, float]
"""Epochs and learning rate."""


def schedules(one_phase: Stretch, head: Stretch, everything: Stretch, frozen: Stretch) -> dict[Schedule, tuple[Phase, ...]]:
    """Return the three schedules by name, from the epochs and the learning rate of each phase.

    one-phase trains all at once; two-phase trains the `head` on a frozen trunk, then `everything`; frozen trains the head only.
    """

    def phase(train: str, stretch: Stretch) -> Phase:
        return Phase.model_validate({"train": train, "epochs": stretch[0], "lr": stretch[1]})

    return {
        "one-phase": (phase("all", one_phase),),
        "two-phase": (phase("head", head), phase("all", everything)),
        "frozen": (phase("head", frozen),),
    }


AUTHORS_CODE: dict[str, Any] = {
    "interpolation": "nearest",
    "statistics": "batch",
    "evaluate_one_by_one": True,
}
"""The settings in which the released notebooks differ from the paper's text."""

SMALL: dict[str, Any] = {
    "size": 64,
    "trunk": "unet:width=16",
    "split_scheme": "official",
    "fit": ("train", "val"),
    "resize": "squash",
}
"""The settings of small and quick protocols: 64 px, a narrow trunk, the data set's own split lists."""
DEMO_SUMMARY = "small and quick, for the embedded synthetic data and for first looks"

VOC_CLS_PAPER = Protocol(
    summary="the paper's text: all annotated VOC 2012 images 70/20/10, squashed to 256 px, lightness only",
    split_scheme="paper-70-20-10",
    resize="squash",
    batch_size=32,
    schedules=schedules(one_phase=(4, 3e-4), head=(3, 3e-4), everything=(1, 5e-5), frozen=(4, 3e-4)),
    difficult="positive",
    metrics=("acc_keras", "map_voc", "map_voc07", "f1_macro", "acc_subset"),
)
VOC_CLS_PAPER_CODE = VOC_CLS_PAPER.with_changes(
    {
        "summary": "the authors' notebooks: as the text, but batch statistics and dropout always on, nearest-neighbour resize",
        **AUTHORS_CODE,
    },
    "paper-code",
)
VOC_CLS_STANDARD = Protocol(
    summary="the field's: VOC 2007 trainval -> test or VOC 2012 train -> val, multilabel mAP, difficult objects not judged",
    split_scheme="official",
    fit=("train", "val"),
    resize="squash",
    augmentation="flip",
    batch_size=32,
    schedules=schedules(one_phase=(30, 3e-4), head=(10, 3e-4), everything=(20, 5e-5), frozen=(30, 3e-4)),
    difficult="ignore",
    metrics=("map_voc", "map_voc07", "f1_macro", "acc_subset", "acc_keras"),
)
VOC_CLS_DEMO = Protocol(
    summary=DEMO_SUMMARY,
    batch_size=32,
    schedules=schedules(one_phase=(16, 5e-4), head=(8, 5e-4), everything=(8, 5e-4), frozen=(16, 5e-4)),
    difficult="ignore",
    head_width=512,
    metrics=("acc_keras", "map_voc", "map_voc07", "f1_macro", "acc_subset"),
    **SMALL,
)
VOC_CLS_FEW_CORES = VOC_CLS_DEMO.with_changes(
    {
        "summary": "photographs on a few cores: the paper's schedule with four times the epochs at 64 px, official split scheme",
        "schedules": schedules(one_phase=(16, 5e-4), head=(12, 5e-4), everything=(4, 2e-4), frozen=(16, 5e-4)),
        "metrics": ("map_voc", "acc_keras", "map_voc07", "f1_macro", "acc_subset"),
    },
    "small",
)

VOC_SEG_PAPER = Protocol(
    summary="the paper's text: all VOC 2012 masks 70/20/10, trained on random 256 px crops, tested on whole images in tiles of "
    "that size; void as background and rates from the code",
    split_scheme="paper-70-20-10",
    resize="crop",
    augmentation="crop",
    batch_size=16,
    schedules=schedules(one_phase=(6, 3e-4), head=(1, 3e-4), everything=(5, 5e-5), frozen=(6, 3e-4)),
    void="background",
    evaluate_on="whole",
    metrics=("miou_paper", "miou_voc", "pixel_acc"),
)
VOC_SEG_PAPER_CODE = VOC_SEG_PAPER.with_changes(
    {
        "summary": "the authors' notebooks: nearest-neighbour resize to 256 px, void as background, batch statistics, one by one",
        **AUTHORS_CODE,
        "resize": "squash",
        "augmentation": "none",
        "evaluate_on": "input",
    },
    "paper-code",
)
VOC_SEG_STANDARD = Protocol(
    summary="the field's: VOC 2012 train -> val at 512 px, scaled and flipped, void ignored, scored at the original resolution",
    size=512,
    split_scheme="official",
    fit=("train", "val"),
    resize="letterbox",
    augmentation="scale",
    batch_size=16,
    schedules=schedules(one_phase=(50, 3e-4), head=(5, 3e-4), everything=(45, 5e-5), frozen=(50, 3e-4)),
    metrics=("miou_voc", "pixel_acc", "miou_paper"),
)
VOC_SEG_DEMO = Protocol(
    summary=DEMO_SUMMARY,
    batch_size=16,
    schedules=schedules(one_phase=(18, 3e-3), head=(3, 2e-3), everything=(15, 3e-3), frozen=(18, 2e-3)),
    lr_schedule="cosine",  # at a constant rate scores differ by the seed of fine-tuning: docs/getting-started.md
    metrics=("miou_voc", "miou_paper", "pixel_acc"),
    **SMALL,
)
VOC_SEG_FEW_CORES = VOC_SEG_DEMO.with_changes(
    {
        "summary": "photographs on a few cores: the paper's schedule at 64 px, official split scheme, void ignored",
        "schedules": schedules(one_phase=(6, 1e-3), head=(1, 2e-3), everything=(5, 1e-3), frozen=(6, 2e-3)),
        "lr_schedule": "constant",
    },
    "small",
)

BINARY = VOC_SEG_STANDARD.with_changes(
    {
        "summary": "masks of one class or a few, as in medical images: at 256 px, flipped, scored at the original resolution by "
        "Dice, IoU without background and the 95th percentile of the Hausdorff distance",
        "size": 256,
        "split_scheme": "own",
        "augmentation": "flip",
        "batch_size": 8,
        "schedules": schedules(one_phase=(40, 3e-4), head=(5, 1e-3), everything=(35, 3e-4), frozen=(40, 1e-3)),
        "lr_schedule": "cosine",
        "metrics": ("dice", "iou_fg", "hd95"),
    },
    "binary",
)
VOC_DET_STANDARD = Protocol(
    summary="the field's: VOC 2007 and 2012 trainval -> VOC 2007 test at 512 px, 24,000 steps of 16 images by SGD, the rate "
    "falls at 18,000 and 22,000 (He et al. 2020); difficult objects not judged",
    size=512,
    split_scheme="official",
    fit=("train", "val"),
    resize="letterbox",
    augmentation="flip",
    batch_size=16,
    schedules=schedules(one_phase=(24, 0.02), head=(4, 0.02), everything=(20, 0.02), frozen=(24, 0.02)),
    most_steps=24_000,
    optimizer="sgd",
    weight_decay=1e-4,
    lr_schedule="step",
    lr_drops=(0.75, 11 / 12),
    warmup_epochs=0.1,
    difficult="ignore",
    head_width=1024,
    metrics=("ap50_voc07", "ap50_voc", "ap_coco"),
    space={"head": (2e-3, 0.1), "all": (2e-3, 0.1)},
)
VOC_DET_DEMO = Protocol(
    summary=DEMO_SUMMARY,
    batch_size=8,
    schedules=schedules(one_phase=(8, 1e-3), head=(2, 1e-3), everything=(6, 1e-3), frozen=(8, 1e-3)),
    lr_schedule="cosine",
    difficult="ignore",
    head_width=256,
    pyramid_width=64,
    anchor_scale=3,
    proposals=32,
    metrics=("ap50_voc", "ap50_voc07", "ap_coco"),
    **SMALL,
)
VOC_DET_FEW_CORES = VOC_DET_DEMO.with_changes(
    {
        "summary": "photographs on a few cores: Faster R-CNN with narrow layers at 64 px, official split scheme",
        "schedules": schedules(one_phase=(30, 5e-4), head=(6, 1e-3), everything=(24, 5e-4), frozen=(30, 1e-3)),
        "augmentation": "flip",
        "proposals": 64,
    },
    "small",
)


def _on_any_data(protocols: Mapping[str, Protocol], **more: Any) -> dict[str, Protocol]:
    """Return protocols for data of any layout: instead of official lists they take the data set's own splits."""
    return {
        name: one.with_changes(
            {
                **({"split_scheme": "own"} if one.split_scheme == "official" else {}),
                "summary": f"as on VOC: {one.summary.replace('official split scheme', 'own splits')}",
                **more,
            },
            name,
        )
        for name, one in protocols.items()
        if name != "paper-code"
    }


OF_VOC: Mapping[str, Mapping[str, Protocol]] = {
    "voc_cls": {
        "paper": VOC_CLS_PAPER,
        "paper-code": VOC_CLS_PAPER_CODE,
        "standard": VOC_CLS_STANDARD,
        "small": VOC_CLS_FEW_CORES,
        "demo": VOC_CLS_DEMO,
    },
    "voc_seg": {
        "paper": VOC_SEG_PAPER,
        "paper-code": VOC_SEG_PAPER_CODE,
        "standard": VOC_SEG_STANDARD,
        "small": VOC_SEG_FEW_CORES,
        "demo": VOC_SEG_DEMO,
    },
    "voc_det": {"standard": VOC_DET_STANDARD, "small": VOC_DET_FEW_CORES, "demo": VOC_DET_DEMO},
}
PROTOCOLS: Mapping[str, Mapping[str, Protocol]] = {
    **OF_VOC,
    "multilabel": _on_any_data(OF_VOC["voc_cls"]),
    "classes": _on_any_data(OF_VOC["voc_cls"], metrics=("acc_top1", "acc_class", "map_voc")),
    "segmentation": {**_on_any_data(OF_VOC["voc_seg"]), "binary": BINARY},
    "detection": _on_any_data(OF_VOC["voc_det"]),
}
"""The protocols by task and name."""
