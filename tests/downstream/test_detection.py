"""The detector beside torchvision's own Faster R-CNN, boxes from file to input and back, and which boxes teach."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead

from bench import registry
from bench.contract import Downstream, Trunk
from bench.data.batches import SplitData
from bench.data.packs import Manifest, Pack, PackRule
from bench.models.detector import maps_of, shapes_of
from bench.models.network import Model
from bench.models.trunk import make_trunk

SIZE, CLASSES = 64, 3
TRUNKS = ("unet:depth=6,width=8", "timm:resnet10t,preprocessing=rgb", "timm:vit_tiny_patch16_224,img_size=64,preprocessing=rgb")


def make(trunk: str, **changes: Any) -> tuple[Downstream, Model]:
    torch.manual_seed(0)
    plugin = registry.load("downstreams", "detection")
    settings = {"head_width": 16, "pyramid_width": 8, "proposals": 16, **changes}
    task = plugin(plugin.protocols["demo"].with_changes(settings, "demo"), CLASSES)
    made = make_trunk(trunk)
    return task, Model(made, task.head(made, SIZE), task)


def batch_of(count: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    target = torch.tensor([[[0, 4, 4, 30, 40, 0], [2, 20, 10, 60, 50, 0], [-1, 0, 0, 0, 0, 0]]]).repeat(count, 1, 1)
    return {"images": images, "target": target.float()}


class Wrapped(nn.Module):
    """A trunk with our detector's neck, as a backbone of torchvision."""

    def __init__(self, trunk: Trunk, neck: nn.Module, channels: int) -> None:
        super().__init__()
        self.trunk, self.neck, self.out_channels = trunk, neck, channels

    def forward(self, inputs: Tensor) -> OrderedDict[str, Tensor]:
        maps = maps_of(self.trunk, inputs, SIZE)
        if len(maps) == 1:
            return OrderedDict([("0", self.neck(maps[0]))])
        found: OrderedDict[str, Tensor] = self.neck(OrderedDict((str(place), one) for place, one in enumerate(maps)))
        return found


def torchvisions(model: Model) -> FasterRCNN:
    """Return torchvision's whole Faster R-CNN, transform included, with the weights of a model of ours."""
    head: Any = model.head
    channels = model.trunk.preprocessing.channels
    whole = FasterRCNN(
        Wrapped(model.trunk, head.neck, 8),
        rpn_anchor_generator=head.rpn.anchor_generator,
        box_roi_pool=head.roi_heads.box_roi_pool if len(head.shapes) > 1 else None,
        box_head=TwoMLPHead(8 * 49, 16),
        box_predictor=FastRCNNPredictor(16, CLASSES + 1),
        min_size=SIZE, max_size=SIZE, image_mean=[0.0] * channels, image_std=[1.0] * channels,
        rpn_post_nms_top_n_train=64, rpn_post_nms_top_n_test=32, box_batch_size_per_image=16, size_divisible=1,
    )  # fmt: skip
    whole.rpn.load_state_dict(head.rpn.state_dict())
    whole.roi_heads.load_state_dict(head.roi_heads.state_dict())
    whole.roi_heads.box_roi_pool = head.roi_heads.box_roi_pool
    whole.transform.torch_choice = lambda sizes: sizes[0]  # there is one; torchvision draws a random number for it
    return whole


@pytest.mark.parametrize("trunk", TRUNKS)
def test_losses_and_detections_are_those_of_torchvisions_faster_rcnn(trunk: str) -> None:
    task, model = make(trunk)
    whole, batch = torchvisions(model), batch_of()
    inputs = model.trunk.preprocessing(batch["images"])
    model.set_mode("all")
    whole.train()
    for dropout in (part for part in model.modules() if isinstance(part, nn.Dropout)):
        dropout.p = 0.0  # drawn before the proposals are, in another order
    targets = [{"boxes": rows[:2, 1:5], "labels": rows[:2, 0].long() + 1} for rows in batch["target"]]
    torch.manual_seed(5)
    ours = model(batch)
    torch.manual_seed(5)
    theirs = whole(list(inputs), targets)
    assert ours.keys() == theirs.keys() and len(ours) == 4
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name])
    torch.testing.assert_close(task.loss(ours, batch["target"]), sum(theirs.values()))
    model.set_mode("nothing")
    whole.eval()
    with torch.no_grad():
        found, expected = model(batch), whole(list(inputs))
    assert sum(len(one["scores"]) for one in expected) > 0
    for place, one in enumerate(expected):
        count = len(one["scores"])
        torch.testing.assert_close(found["boxes"][place, :count], one["boxes"])
        torch.testing.assert_close(found["confidences"][place, :count], one["scores"])
        assert (found["found"][place, :count] == one["labels"] - 1).all() and (found["found"][place, count:] == -1).all()


def test_torchvisions_usual_transform_would_normalise_a_second_time() -> None:
    """The check above can fail: with ImageNet's mean and deviation, torchvision's default, the same weights find other boxes."""
    _, model = make(TRUNKS[1])
    whole, batch = torchvisions(model), batch_of()
    whole.transform.image_mean, whole.transform.image_std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    model.set_mode("nothing")
    with torch.no_grad():
        found, twice = model(batch), whole.eval()(list(model.trunk.preprocessing(batch["images"])))
    assert not torch.allclose(found["confidences"][0, :5], twice[0]["scores"][:5])


def test_a_detector_reads_decoder_levels_of_a_unet_encoder_levels_of_a_pyramid_and_one_map_of_a_transformer() -> None:
    sides = [[shape[-1] for shape in shapes_of(make_trunk(name), SIZE)] for name in TRUNKS]
    assert sides == [[16, 8, 4, 2], [16, 8, 4, 2], [4]]
    plugin = registry.load("downstreams", "detection")
    assert plugin.is_dense(pyramid_decodes=True) and not plugin.is_dense(pyramid_decodes=False)
    unet = make_trunk(TRUNKS[0]).eval()
    inputs = torch.rand(1, 1, SIZE, SIZE)
    before = [one.clone() for one in maps_of(unet, inputs, SIZE)]
    unet.up.apply(lambda part: part.weight.data.zero_() if isinstance(part, nn.ConvTranspose2d) else None)
    assert all(not torch.equal(a, b) for a, b in zip(before, maps_of(unet, inputs, SIZE), strict=True))


def test_shapes_are_found_without_a_change_of_the_trunk() -> None:
    trunk = make_trunk(TRUNKS[1])
    before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    trunk.down.eval()
    shapes_of(trunk, SIZE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trunk.state_dict().items())
    assert trunk.training and not trunk.down.training and trunk.up.training


@pytest.mark.parametrize(("difficult", "flag", "teaches"), [("ignore", 1, False), ("positive", 1, True), ("positive", 2, False)])
def test_difficult_boxes_teach_where_the_protocol_says_so_and_crowds_never(difficult: str, flag: int, teaches: bool) -> None:
    _, model = make(TRUNKS[0], difficult=difficult)
    for dropout in (part for part in model.modules() if isinstance(part, nn.Dropout)):
        dropout.p = 0.0
    model.set_mode("all")
    losses = []
    for value in (0, flag):
        batch = batch_of()
        batch["target"][:, 1, 5] = value
        torch.manual_seed(0)
        losses.append(float(sum(model(batch).values())))
    assert (losses[0] == losses[1]) == teaches


def test_images_without_a_box_teach_the_background() -> None:
    task, model = make(TRUNKS[0])
    batch = batch_of()
    batch["target"][..., 0] = -1
    model.set_mode("all")
    loss = task.loss(model(batch), batch["target"])
    loss.backward()
    assert torch.isfinite(loss) and float(model(batch)["loss_box_reg"]) == 0


class _Kept:
    """Rows of a pack in memory."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def read(self, indices: Any) -> np.ndarray:
        return self.rows[list(indices)].copy()


def split_of(augmentation: str = "none", seed: int = 0, count: int = 40) -> SplitData:
    """Return images of 200x100 px, letterboxed at 64 px: white where their box is, black elsewhere."""
    images = np.zeros((count, SIZE, SIZE, 3), dtype=np.uint8)
    images[:, 8:16, 16:48] = 255
    rule = PackRule(size=SIZE, resize="letterbox")
    manifest = Manifest(
        dataset="d", fingerprint="f", subset="images", rule=rule, side=SIZE, ids=tuple(map(str, range(count))),
        content=((32, 64),) * count, original=((100, 200),) * count, sums={},
    )  # fmt: skip
    boxes = np.tile(np.array([[1, 50, 25, 150, 50, 0]], dtype=np.float32), (count, 1, 1))
    pack = Pack(Path(), manifest, _Kept(images), None, None)  # type: ignore[arg-type]
    return SplitData(pack, np.arange(count), None, False, augmentation, SIZE, seed, True, boxes)


def test_boxes_follow_their_image_to_the_input_and_back() -> None:
    batch = split_of()[0, np.arange(4)]
    assert batch["target"][0, 0].tolist() == [1, 16, 8, 48, 16, 0]
    assert batch["truth"][0, 0].tolist() == [1, 50, 25, 150, 50, 0]
    task = make(TRUNKS[0])[0]
    output = {"boxes": batch["target"][:, :, 1:5], "confidences": torch.ones(4, 1), "found": torch.ones(4, 1, dtype=torch.int16)}
    found = task.predictions(output, batch)
    assert torch.equal(found["boxes"][:, 0], batch["truth"][:, 0, 1:5]) and found["sizes"][0].tolist() == [100, 200]


def test_mirrored_images_have_mirrored_boxes() -> None:
    split = split_of("flip")
    split.boxes[:, 0, 1:5] = [25, 25, 100, 50]  # type: ignore[index]
    images = np.zeros((40, SIZE, SIZE, 3), dtype=np.uint8)
    images[:, 8:16, 8:32] = 255
    split.pack.images.rows = images  # type: ignore[misc]
    batch = split[0, np.arange(40)]
    mirrored = 0
    for image, target in zip(batch["images"], batch["target"], strict=True):
        left, top, right, bottom = (int(value) for value in target[0, 1:5])
        assert (image[:, top:bottom, left:right] == 255).all()
        assert int((image == 255).sum()) == 3 * (right - left) * (bottom - top)
        mirrored += left != 8
    assert 10 < mirrored < 30
    again = split[1, np.arange(40)]["target"]
    assert not torch.equal(again, batch["target"])
