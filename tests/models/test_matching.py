"""Weights of others in a trunk: the right network of a checkpoint is found in whatever wraps it, and a wrong one is refused."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from torch import Tensor, nn

from bench.contract import Trunk
from bench.errors import BenchError, DataError, UsageError
from bench.models import batch_norm, matching, weights_file
from bench.models.trunk import TrunkName, make_trunk
from tests.models.checkpoints import STYLES, State, behind, headless
from tests.models.test_names import ENCODERS

RESNET = "timm:resnet18,preprocessing=rgb"


def values(model: nn.Module, seed: int) -> State:
    """Return a network's state with numbers of its own, half of a batch norm's statistics included."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(tensor.shape, generator=generator) + 0.5 if tensor.is_floating_point() else tensor.clone()
        for name, tensor in model.state_dict().items()
    }


def matched_with(tensors: Mapping[str, Tensor], trunk: str = RESNET, **options: Any) -> matching.Matched:
    """Return the match with a trunk after its check, as a command makes it."""
    made, name = make_trunk(trunk), TrunkName.parse(trunk)
    partial = options.pop("partial", False)
    found = matching.match(tensors, made, name, **options)
    matching.check(found, tensors, made, name, "--init a: a.pth", partial)
    return found


def refused(tensors: Mapping[str, Tensor], trunk: str = RESNET, kind: type[BenchError] = DataError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        matched_with(tensors, trunk, **options)
    return str(caught.value)


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return found.keys() <= expected.keys() and all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.fixture(scope="module")
def right() -> State:
    return values(timm.create_model("resnet18"), 1)


@pytest.fixture(scope="module")
def wrong() -> State:
    """Give the other network of a checkpoint, of the same size."""
    return values(timm.create_model("resnet18"), 2)


@pytest.mark.parametrize("style", STYLES)
def test_the_network_that_authors_evaluate_is_loaded_whole_and_the_other_by_its_name(
    tmp_path: Path, right: State, wrong: State, style: str
) -> None:
    wrap, part, other = STYLES[style]
    torch.save(wrap(right, wrong), tmp_path / "a.pth")
    tensors = weights_file.read(tmp_path / "a.pth")
    found = matched_with(tensors)
    assert (found.part, found.share, found.missing, found.others) == (part, 1.0, (), (other,) if other else ())
    assert len(found.encoder) == found.wanted and same(found.encoder, right) and not same(found.encoder, wrong)
    assert found.lines()[0].startswith(f"loaded {found.wanted} of {found.wanted} tensors (100 % of the encoder's parameters)")
    if other:
        assert f"{other} would fit as well; choose with ,part=NAME behind the source" in found.lines()[-1]
        for wanted in (other, other.split(".")[-1] if "backbone" not in style else other):
            if wanted not in part:
                assert same(matched_with(tensors, part=wanted).encoder, wrong)


def test_a_part_of_dino_is_chosen_by_its_first_word(right: State, wrong: State) -> None:
    tensors = behind("student.module.backbone.", right) | behind("teacher.backbone.", wrong)
    assert same(matched_with(tensors, part="student").encoder, right)
    assert same(matched_with(tensors, part="teacher").encoder, wrong)
    assert refused(tensors, kind=UsageError, part="pupil") == "no tensor of the file is below 'pupil'."


def test_tensors_without_counters_and_in_half_precision_are_loaded(right: State) -> None:
    some = {name: tensor.half() for name, tensor in right.items() if not name.endswith("num_batches_tracked")}
    found = matched_with(some)
    assert found.share == 1 and found.missing == ()
    assert all(tensor.dtype == torch.float32 and torch.equal(tensor.half(), some[name]) for name, tensor in found.encoder.items())


def test_what_was_matched_does_not_change_with_the_file(tmp_path: Path, right: State) -> None:
    """A file is mapped into memory: what is loaded hours later was copied when its digest was taken."""
    torch.save(right, tmp_path / "a.pth")
    tensors = weights_file.read(tmp_path / "a.pth")
    found = matched_with(tensors)
    assert not {tensor.untyped_storage().data_ptr() for tensor in tensors.values()} & {
        tensor.untyped_storage().data_ptr() for tensor in found.encoder.values()
    }


def test_quantized_numbers_are_no_weights(right: State) -> None:
    small = {name: tensor.to(torch.int8) if tensor.ndim == 4 else tensor for name, tensor in right.items()}
    said = refused(small)
    assert "Missing: conv1.weight" in said
    only_first = {**right, "conv1.weight": right["conv1.weight"].to(torch.int8)}
    assert "conv1.weight (int8 (64, 3, 7, 7) in the file, float32 (64, 3, 7, 7) in the trunk)" in refused(only_first)


def test_too_little_is_refused_with_the_first_ten_of_each_kind_and_partial_allows_it(right: State) -> None:
    few = {name: tensor for name, tensor in right.items() if not name.startswith("layer4")}
    few |= {f"strange.{place}": torch.rand(3) for place in range(25)}
    said = refused(few)
    assert re.search(
        r"a.pth fills 2[0-9.]+ % of the parameters of timm:resnet18,preprocessing=rgb's encoder, and 99 % is the", said
    )
    missing, left = re.findall(r"(?:Missing|Left over in the file): (.*?)\.(?= Left|$)", said)
    assert len(missing.split(", ")) == 10 and missing.startswith("layer4.0.conv1.weight") and missing.endswith(" more")
    assert len(left.split(", ")) == 10 and "strange.0" in left and left.endswith("and 17 more")
    found = matched_with(few, partial=True)
    assert found.share < 0.3 and same(found.encoder, right)
    assert refused({"strange": torch.rand(3)}, partial=True).startswith("--init a: a.pth fills 0 %")


def test_a_deeper_network_with_the_same_names_is_refused() -> None:
    """All names and shapes of ResNet-18 are in a ResNet-34."""
    deeper = values(timm.create_model("resnet34"), 1)
    for tensors in (deeper, behind("backbone.", headless(deeper))):
        assert matched_with(tensors, partial=True).share == 1
        said = refused(tensors)
        assert "it goes on with " in said and "layer1.2" in said and "as a deeper network; choose its own trunk" in said
    assert matched_with(deeper, "timm:resnet34,preprocessing=rgb").beyond == ()


@pytest.mark.parametrize("how", ["name", "order"])
def test_a_deeper_vision_transformer_is_refused(how: Any) -> None:
    """By order its next block's norm has the shape of the encoder's last norm."""
    trunk = "timm:vit_tiny_patch16_224,img_size=32,preprocessing=rgb"
    plain = values(timm.create_model("vit_tiny_patch16_224", img_size=32), 1)
    assert matched_with(plain, trunk, how=how).share == 1
    deeper = values(timm.create_model("vit_tiny_patch16_224", img_size=32, depth=13), 1)
    assert "it goes on with blocks.12" in refused(deeper, trunk, how=how)


@pytest.mark.parametrize("channels", [4, 12])
def test_a_first_convolution_of_other_channels_is_refused_though_it_is_few_parameters(right: State, channels: int) -> None:
    other = {**right, "conv1.weight": torch.rand(64, channels, 7, 7)}
    said = refused(other)
    assert f"conv1.weight (float32 (64, {channels}, 7, 7) in the file, float32 (64, 3, 7, 7) in the trunk)" in said
    del other["conv1.weight"]
    assert "it lacks the first convolution, conv1.weight" in refused(other)
    assert 0.99 < matched_with(other, partial=True).share < 1


def test_colour_under_a_lightness_trunk_is_refused_with_the_trunk_that_takes_it(right: State) -> None:
    said = refused(behind("backbone.", right), "timm:resnet18", UsageError)
    assert "was trained on colour (3 channels), and the trunk timm:resnet18 takes lightness; give --trunk " in said
    hint = said.rpartition("--trunk ")[2].rstrip(".")
    assert matched_with(behind("backbone.", right), hint).share == 1
    grey = values(timm.create_model("resnet18", in_chans=1), 1)
    said = refused(grey, kind=UsageError)
    assert matched_with(grey, said.rpartition("--trunk ")[2].rstrip(".")).share == 1


def test_by_order_the_tensors_are_to_the_bit_those_by_name(right: State) -> None:
    foreign = {f"net.part{place // 40}.{place}": tensor for place, tensor in enumerate(right.values())}
    assert "Its shapes are those of the encoder in the same order: --match order takes them so." in refused(foreign)
    by_order, by_name = matched_with(foreign, how="order"), matched_with(right)
    assert by_order.encoder.keys() == by_name.encoder.keys() and same(by_order.encoder, by_name.encoder)
    half = {name: tensor.to(torch.int8) if tensor.ndim == 4 else tensor for name, tensor in foreign.items()}
    assert "do not have the shapes of" in refused(half, how="order")
    without = {name: tensor for name, tensor in foreign.items() if tensor.ndim}
    assert len(without) < len(foreign) and by_order.wanted - len(matched_with(without, how="order").encoder) == 20


def test_order_is_refused_when_one_shape_differs_or_two_places_are_swapped(right: State) -> None:
    foreign = {f"x{place}": tensor for place, tensor in enumerate(right.values())}
    for changed in (foreign | {"x60": torch.rand(7)}, dict(reversed(foreign.items())), dict(list(foreign.items())[1:])):
        assert "do not have the shapes of" in refused(changed, how="order")
        assert "--match order" not in refused(changed)


def test_by_order_a_bias_is_never_taken_for_a_weight(right: State) -> None:
    """Tensors that are listed by name have a norm's bias before its weight: all shapes agree."""
    named = {f"x{place:03}.{name.rpartition('.')[2]}": tensor for place, (name, tensor) in enumerate(right.items())}
    assert matched_with(named, how="order").share == 1
    swap = {"weight": "bias", "bias": "weight"}
    swapped = {re.sub(r"\w+$", lambda word: swap.get(word[0], word[0]), n) if t.ndim == 1 else n: t for n, t in named.items()}
    assert "do not have the shapes of" in refused(swapped, how="order")


def test_batch_norms_whose_statistics_were_loaded_are_not_measured_anew(right: State) -> None:
    zero = {name: torch.zeros_like(tensor) if name.endswith("num_batches_tracked") else tensor for name, tensor in right.items()}
    lacking = {name: tensor for name, tensor in right.items() if "running_" not in name and "tracked" not in name}
    for tensors, never in ((zero, 0), (lacking, 20)):
        trunk = make_trunk(RESNET)
        matching.load(matched_with(tensors), trunk)
        assert sum(norm in set(trunk.down.modules()) for norm in batch_norm.never_used(trunk)) == never
        assert same(
            {name: tensor for name, tensor in trunk.down.state_dict().items() if "tracked" not in name and name in tensors}, right
        )


def test_an_untrained_networks_batch_norms_are_measured() -> None:
    trunk = make_trunk(RESNET)
    matching.load(matched_with(timm.create_model("resnet18").state_dict()), trunk)
    assert sum(norm in set(trunk.down.modules()) for norm in batch_norm.never_used(trunk)) == 20


def loaded(tensors: Mapping[str, Tensor], trunk: str) -> tuple[matching.Matched, Trunk]:
    made, found = make_trunk(trunk), matched_with(tensors, trunk)
    matching.load(found, made)
    return found, made


@pytest.mark.parametrize("flat", [False, True])
def test_position_embeddings_of_another_size_are_resized_as_timm_does(flat: bool) -> None:
    state = values(timm.create_model("vit_tiny_patch16_224", img_size=64), 1)
    expected = resample_abs_pos_embed(state["pos_embed"], [2, 2], num_prefix_tokens=1)
    tensors = {**state, "pos_embed": state["pos_embed"][0]} if flat else state
    found, trunk = loaded(behind("teacher.backbone.", tensors), "timm:vit_tiny_patch16_224,img_size=32,preprocessing=rgb")
    assert found.share == 1 and [name.rpartition(".")[2] for name in found.resized] == ["pos_embed"]
    own = next(tensor for name, tensor in trunk.down.state_dict().items() if name.endswith("pos_embed"))
    torch.testing.assert_close(own, expected)
    assert any(line.startswith("resized: ") for line in found.lines())


def test_position_embeddings_that_cannot_be_resized_are_refused() -> None:
    state = values(timm.create_model("vit_tiny_patch16_224", img_size=32), 1)
    trunk = "timm:vit_tiny_patch16_224,img_size=32,preprocessing=rgb"
    assert "pos_embed (float32 (1, 7, 192) in the file" in refused({**state, "pos_embed": torch.rand(1, 7, 192)}, trunk)
    other_patch = {**state, "patch_embed.proj.weight": torch.rand(192, 3, 8, 8)}
    matched = matched_with(other_patch, trunk, partial=True)
    assert any("patch_embed.proj.weight" in one for one in matched.other_shapes)


@pytest.mark.integration
def test_tables_of_relative_positions_are_resized_as_timm_does() -> None:
    name = "swin_tiny_patch4_window7_224"
    state = values(timm.create_model(name), 1)
    found, trunk = loaded(state, f"timm:{name},img_size=128,preprocessing=rgb")
    tables = {own: tensor for own, tensor in trunk.down.state_dict().items() if own.endswith("bias_table")}
    assert found.share == 1 and found.resized and set(found.resized) <= set(tables)
    for own in found.resized:
        window = trunk.down.get_submodule(own.rpartition(".")[0]).window_size
        theirs = state[re.sub(r"layers_(\d)", r"layers.\1", own)]
        torch.testing.assert_close(tables[own], resize_rel_pos_bias_table(theirs, window, tuple(tables[own].shape)))


def test_axes_of_size_one_may_be_more_or_fewer() -> None:
    """torchvision's ConvNeXt has its scales as (C, 1, 1)."""
    state = values(timm.create_model("convnext_atto"), 1)
    scaled = {name: tensor[:, None, None] if name.endswith("gamma") else tensor for name, tensor in state.items()}
    found, trunk = loaded(scaled, "timm:convnext_atto,preprocessing=rgb")
    gammas = {name: tensor for name, tensor in trunk.down.state_dict().items() if name.endswith("gamma")}
    assert found.share == 1 and found.resized == () and gammas
    assert all(torch.equal(tensor, state[name.replace("stages_", "stages.")]) for name, tensor in gammas.items())


@pytest.mark.integration
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_networks_own_weights_are_taken_whole(encoder: str) -> None:
    with torch.device("meta"):
        whole = timm.create_model(encoder)
    found = matched_with(whole.state_dict(), f"timm:{encoder},preprocessing=rgb")
    assert (found.share, found.missing, found.other_shapes, found.beyond) == (1.0, (), (), ())


def test_names_of_many_words_take_no_time() -> None:
    assert "fills 0 %" in refused({"a." * 200_000: torch.rand(1)})
