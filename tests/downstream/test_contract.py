"""What every downstream task must hold to, under every protocol."""

import pytest
import torch

from bench import metrics, registry
from bench.contract import Downstream
from bench.experiment.finetuning import Model
from bench.models.trunk import make_trunk

PAIRS = [
    (name, protocol) for name in registry.summaries("downstreams") for protocol in registry.load("downstreams", name).protocols
]
CLASSES = ("a", "b", "c")


def make(name: str, protocol: str, trunk: str = "unet:depth=5,width=8") -> tuple[Downstream, Model]:
    torch.manual_seed(0)
    plugin = registry.load("downstreams", name)
    task = plugin(plugin.protocols[protocol].with_changes({"head_width": 16}, protocol), len(CLASSES))
    made = make_trunk(trunk)
    return task, Model(made, task.head(made, 32), task)


def batch_for(task: Downstream) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)
    if task.data == "labels":
        return {"images": images, "target": torch.randint(-1, 2, (4, 3), generator=generator).to(torch.int8)}
    if task.data == "boxes":
        target = torch.tensor([[[0.0, 2, 2, 20, 30, 0], [2.0, 8, 4, 30, 16, 1]]]).repeat(4, 1, 1)
        sizes = torch.full((4, 2), 32)
        return {"images": images, "target": target, "truth": target, "original": sizes, "content": sizes}
    target = torch.randint(0, 4, (4, 32, 32), generator=generator).to(torch.uint8)
    target[:, :3] = 255
    return {"images": images, "target": target}


@pytest.mark.parametrize("trunk", ["unet:depth=5,width=8", "timm:resnet10t,preprocessing=rgb"])
@pytest.mark.parametrize(("name", "protocol"), PAIRS)
def test_loss_and_metrics_are_finite(name: str, protocol: str, trunk: str) -> None:
    task, model = make(name, protocol, trunk)
    batch = batch_for(task)
    model.set_mode("all")
    loss = task.loss(model(batch), batch["target"])
    loss.backward()
    assert torch.isfinite(loss)
    model.set_mode("nothing")
    with torch.no_grad():
        kept = {key: value.numpy() for key, value in task.predictions(model(batch), batch).items()}
    for metric in task.protocol.metrics:
        assert 0 <= metrics.compute(metric, kept, CLASSES, CLASSES) <= 1


@pytest.mark.parametrize(("name", "protocol"), PAIRS)
def test_a_frozen_trunk_stays_bit_equal_with_its_buffers_while_the_head_learns(name: str, protocol: str) -> None:
    task, model = make(name, protocol)
    batch = batch_for(task)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    model.set_mode("head")
    optimizer = torch.optim.Adam(model.head.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        task.loss(model(batch), batch["target"]).backward()
        optimizer.step()
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed and all(key.startswith("head.") for key in changed)


def test_nothing_but_void_costs_nothing() -> None:
    task, model = make("voc_seg", "standard")
    batch = batch_for(task)
    batch["target"].fill_(255)
    loss = task.loss(model(batch), batch["target"])
    assert loss.item() == 0
    task, model = make("voc_seg", "paper")
    assert task.loss(model(batch), batch["target"]).item() > 0
    batch["target"].fill_(254)
    assert task.loss(model(batch), batch["target"]).item() == 0


def test_difficult_objects_are_positives_for_the_paper_and_nothing_for_the_field() -> None:
    output = torch.tensor([[2.0, -1.0, 0.5]])
    target = torch.tensor([[1, -1, 0]], dtype=torch.int8)
    softplus = torch.nn.functional.softplus
    paper, _ = make("voc_cls", "paper")
    standard, _ = make("voc_cls", "standard")
    terms = [softplus(torch.tensor(-2.0)), softplus(torch.tensor(1.0)), softplus(torch.tensor(0.5))]
    assert paper.loss(output, target).item() == pytest.approx((sum(terms) / 3).item())
    assert standard.loss(output, target).item() == pytest.approx(((terms[0] + terms[2]) / 2).item())


def test_confusion_counts_every_pixel_once_with_void_in_its_own_row() -> None:
    task, model = make("voc_seg", "demo")
    batch = batch_for(task)
    model.set_mode("nothing")
    with torch.no_grad():
        output = model(batch)
    confusion = task.predictions(output, batch)["confusion"]
    found = output.argmax(dim=1)
    assert confusion.shape == (4, 5, 4) and confusion.dtype == torch.int32
    for image in range(4):
        for row, value in enumerate([0, 1, 2, 3, 255]):
            for column in range(4):
                pixels = (batch["target"][image] == value) & (found[image] == column)
                assert confusion[image, row, column] == pixels.sum()


def test_the_original_resolution_is_scored_without_its_padding() -> None:
    task, _ = make("voc_seg", "standard")
    output = torch.zeros(2, 4, 32, 32)
    output[0, 1, :, :16] = 1  # class 1 on the left half of the content
    output[1, 2] = 1
    truth = torch.full((2, 128, 128), 254, dtype=torch.uint8)
    truth[0, :50, :100], truth[1, :20, :30] = 1, 2
    batch = {"truth": truth, "content": torch.tensor([[16, 32], [20, 30]]), "original": torch.tensor([[50, 100], [20, 30]])}
    confusion = task.predictions(output, batch)["confusion"]
    assert confusion[0].sum() == 50 * 100 and confusion[1].sum() == 20 * 30
    assert confusion[0, 1, 1] == pytest.approx(50 * 50, abs=50 * 2)
    assert confusion[1, 2, 2] == 600


def test_the_papers_schedules_are_the_papers() -> None:
    for name, scratch, frozen, batch in (("voc_cls", 4, 3, 32), ("voc_seg", 6, 1, 16)):
        paper = registry.load("downstreams", name).protocols["paper"]
        assert paper.batch_size == batch
        (whole,) = paper.schedules["one-phase"]
        first, second = paper.schedules["two-phase"]
        assert (whole.epochs, whole.lr) == (scratch, 3e-4)
        assert (first.train, first.epochs, first.lr) == ("head", frozen, 3e-4)
        assert (second.train, second.epochs, second.lr) == ("all", scratch - frozen, 5e-5)


def test_the_papers_classifier_ends_in_4096_4096_20() -> None:
    plugin = registry.load("downstreams", "voc_cls")
    trunk = make_trunk("unet:depth=5,width=64")
    head = plugin(plugin.protocols["paper"], 20).head(trunk, 32)
    assert [part.out_features for part in head if isinstance(part, torch.nn.Linear)] == [4096, 4096, 20]
    assert head[0].in_features == 512
