"""The audit of weights: fine under the normalisation of their training, warned under another, in wrong places and when dead."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from bench.contract import Preprocessing, Trunk
from bench.initialisation import USUAL
from bench.models import audit, batch_norm
from bench.models.trunk import make_trunk
from tests.benchmarks.audit import shuffled

Batches = list[Tensor]


def normalised(trunk: Trunk, name: str) -> Trunk:
    trunk.preprocessing = Preprocessing("rgb", *USUAL[name])
    return trunk


@pytest.fixture(scope="module")
def batches() -> Batches:
    """Give images with coarse and fine structure and the mean of photographs, of which each differs in colour and contrast."""
    generator = torch.Generator().manual_seed(0)
    coarse, middle, fine = (
        interpolate(torch.randn(32, 3, side, side, generator=generator), 64, mode="bilinear") for side in (2, 8, 64)
    )
    contrast = torch.rand(32, 1, 1, 1, generator=generator) * 50 + 20
    return list(torch.split((115 + contrast * (coarse + 0.5 * middle + 0.2 * fine)).clamp(0, 255).to(torch.uint8), 16))


def trained(batches: Batches, name: str) -> Trunk:
    """Return a network whose batch norms have the statistics of these images under a normalisation."""
    torch.manual_seed(0)
    trunk = normalised(make_trunk("timm:resnet10t,preprocessing=rgb"), name)
    norms = [part for part in trunk.down.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:  # timm's last norm of a block begins at zero
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.2)
    batch_norm.measure(trunk, norms, lambda images: trunk.encode(trunk.preprocessing(images)), batches)
    return trunk.eval()


def judged(trunk: Trunk, batches: Batches, drawn: bool = False) -> tuple[dict[str, Any], str]:
    found = audit.measure(trunk, batches)
    return found, audit.problem(trunk, batches, found, drawn)


@pytest.mark.parametrize("own", ["half", "imagenet"])
def test_a_network_is_fine_under_its_own_normalisation_and_warned_under_the_other(batches: Batches, own: str) -> None:
    trunk = trained(batches, own)
    found, said = judged(trunk, batches)
    assert said == "" and found["first_shift"] < 0.2 and found["first_scale"] < 1.1 and found["cosine"] < 0.99
    other = normalised(trunk, "imagenet" if own == "half" else "half")
    mean, std = other.preprocessing.mean.clone(), other.preprocessing.std.clone()
    found, said = judged(other, batches)
    assert said.startswith("the images are not normalised as in the weights' training") and said.endswith(
        f"; normalize={own} fits"
    )
    assert found["first_scale"] > 1.6
    assert torch.equal(other.preprocessing.mean, mean) and torch.equal(other.preprocessing.std, std)
    assert judged(other, batches, drawn=True)[1] == ""


def test_images_without_a_normalisation_are_warned_of(batches: Batches) -> None:
    trunk = trained(batches, "half")
    assert "not normalised as in the weights' training" in judged(normalised(trunk, "unit"), batches)[1]


def test_images_unlike_any_usual_normalisation_name_none(batches: Batches) -> None:
    trunk = trained(batches, "half")
    found, said = judged(trunk, [200 - images // 3 for images in batches])
    assert found["first_scale"] > 2 and "not normalised as in the weights' training" in said and "normalize=" not in said


def test_tensors_in_each_others_places_are_warned_of(batches: Batches) -> None:
    trunk = trained(batches, "half")
    trunk.down.load_state_dict(shuffled(trunk.down.state_dict()))
    found, said = judged(trunk, batches)
    assert said != "" and (found["shift"] > audit.MOST_SHIFT or found["scale"] > audit.MOST_SCALE or found["cosine"] > 0.999)


def test_a_batch_norm_deep_inside_that_does_not_fit_is_named(batches: Batches) -> None:
    trunk = trained(batches, "half")
    name, norm = [one for one in trunk.down.named_modules() if isinstance(one[1], nn.BatchNorm2d)][5]
    norm.running_var *= 9
    found, said = judged(trunk, batches)
    assert (found["layer"], round(found["scale"], 1)) == (name, 3.0)
    assert f"the batch norm {name} expects" in said and said.endswith("tensors may lie in wrong places")


def silent(trunk: Trunk) -> None:
    """Make the features the same for all images."""
    last = [part for part in trunk.down.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in last:
        nn.init.zeros_(norm.weight)
        nn.init.constant_(norm.bias, 0.3)


def broken(trunk: Trunk) -> None:
    next(trunk.down.parameters()).data[0] = float("nan")


@pytest.mark.parametrize(
    ("change", "told"), [(silent, "a dead network: the features of two images"), (broken, "its features are not finite numbers")]
)
@pytest.mark.parametrize("drawn", [False, True])
def test_a_dead_and_a_broken_network_are_warned_of(
    batches: Batches, change: Callable[[Trunk], None], told: str, drawn: bool
) -> None:
    trunk = trained(batches, "half")
    change(trunk)
    assert judged(trunk, batches, drawn)[1].startswith(told)


def test_an_encoder_without_batch_norms_is_judged_by_its_features_alone(batches: Batches) -> None:
    trunk = make_trunk("timm:test_vit,img_size=64,preprocessing=rgb")
    found, said = judged(trunk, batches)
    assert set(found) == {"cosine"} and said == ""
    with torch.no_grad():
        for parameter in trunk.down.parameters():
            parameter.fill_(0.1)
    assert judged(trunk, batches)[1].startswith("a dead network")


def test_batch_norms_that_were_never_trained_are_not_compared(batches: Batches) -> None:
    trunk = normalised(make_trunk("timm:resnet10t,preprocessing=rgb"), "half")
    assert set(audit.measure(trunk, batches)) == {"cosine"}


def test_one_image_cannot_be_compared_and_is_no_problem(batches: Batches) -> None:
    trunk = trained(batches, "half")
    one = [batches[0][:1]]
    found = audit.measure(trunk, one)
    assert found["cosine"] is None and "not finite" not in audit.problem(trunk, one, found)


def test_the_audit_changes_nothing_in_the_network(batches: Batches) -> None:
    trunk = trained(batches, "half").train()
    before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    judged(normalised(trunk, "imagenet"), batches)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trunk.state_dict().items() if not name.startswith("preproc"))
    assert trunk.training and not any(part._forward_pre_hooks for part in trunk.modules())
