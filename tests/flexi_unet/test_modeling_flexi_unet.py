"""Flexi-UNet as a module: shapes, adapters, unused parts, saving, precision."""

import copy
from itertools import pairwise

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D

from flexi_unet import FlexiUNet2DModel
from flexi_unet.flops import count_gflops
from flexi_unet.residual_block import ResidualBlock
from ssd.operators import haar

from ..numerics import network_rounding, plain_attention, random_walk, relative_error

ARCHITECTURES = [{"decoder_exit": "early"}, {"decoder_exit": "full"}, {"patch_size": 2}, {"downsample_type": "average"}]


def small_unet(**changes) -> FlexiUNet2DModel:
    torch.manual_seed(0)
    settings = {"sample_size": 16, "block_out_channels": (32, 64, 64), "attention_resolutions": (8,)} | changes
    unet = FlexiUNet2DModel(**settings)
    for parameter in unet.parameters():  # the zero start would hide differences
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    return unet.eval()


def in_float64(unet: FlexiUNet2DModel, x: torch.Tensor, timestep, output: int | None = None) -> torch.Tensor:
    """The network's output without rounding errors that matter."""
    return copy.deepcopy(unet).double()(x.double(), timestep, output_size=output).sample


@pytest.mark.parametrize("changes", ARCHITECTURES)
@pytest.mark.parametrize(("size", "output"), [(16, 16), (8, 16), (8, 8), (4, 16), (4, 8), (4, 4)])
def test_every_route_has_the_output_size(size: int, output: int, changes: dict) -> None:
    unet = small_unet(**changes)
    result = unet(torch.randn(2, 3, size, size), torch.tensor([3, 7]), output_size=output)
    assert result.sample.shape == (2, 3, output, output)
    assert isinstance(unet(torch.randn(1, 3, size, size), 3, output_size=output, return_dict=False), tuple)


def test_non_square_sizes_and_layers_per_stage() -> None:
    unet = small_unet(sample_size=(24, 16), layers_per_block=(1, 2, 3))
    assert unet(torch.randn(1, 3, 6, 4), 5, output_size=(12, 8)).sample.shape == (1, 3, 12, 8)
    assert [len(block.resnets) for block in unet.up_blocks] == [4, 3, 1]


def used_parameters(unet: FlexiUNet2DModel, size: int, output: int) -> set[str]:
    unet.zero_grad()
    unet(torch.randn(1, 3, size, size), 5, output_size=output).sample.sum().backward()
    return {name for name, parameter in unet.named_parameters() if parameter.grad is not None}


def test_a_resolution_uses_only_its_own_part() -> None:
    unet = small_unet()
    coarse, fine = used_parameters(unet, 4, 4), used_parameters(unet, 16, 16)
    assert not any(name.startswith(("down_blocks.0", "down_blocks.1", "up_blocks.1", "up_blocks.2")) for name in coarse)
    assert {"entry_adapters.64.weight", "exit_adapters.64.weight"} <= coarse
    assert not any("adapters" in name for name in fine)


@pytest.mark.parametrize("changes", ARCHITECTURES)
def test_no_parameter_is_dead(changes: dict) -> None:
    unet = small_unet(**changes)
    routes = [(4, 4), (4, 8), (8, 8), (8, 16), (16, 16)]
    used = set().union(*(used_parameters(unet, size, output) for size, output in routes))
    assert used == {name for name, _ in unet.named_parameters()}


def test_towards_full_size_the_input_is_upsampled() -> None:
    unet, x = small_unet(), torch.randn(1, 3, 8, 8)
    upsampled = torch.nn.functional.interpolate(x, size=(16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(unet(x, 5, output_size=16).sample, unet(upsampled, 5).sample)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "output", "entry", "exit_"), [(15, 16, 16, 16), (9, 10, 16, 16), (7, 8, 8, 8),
                                                                (3, 4, 4, 4), (2, 3, 4, 4), (4, 6, 4, 8)])  # fmt: skip
def test_sizes_between_stages_are_resized(size: int, output: int, entry: int, exit_: int, dtype: torch.dtype) -> None:
    unet, x = small_unet().to(dtype), torch.randn(2, 3, size, size).to(dtype)
    with plain_attention():
        found = unet(x, 5, output_size=output).sample
        enlarged = torch.nn.functional.interpolate(x, size=(entry, entry), mode="bilinear") if entry != size else x
        at_stages = unet(enlarged, 5, output_size=exit_).sample
    expected = at_stages.float()
    if exit_ != output:
        expected = torch.nn.functional.interpolate(expected, size=(output, output), mode="bilinear", antialias=True)
    assert torch.equal(found, expected.to(dtype))
    assert unet.working_sizes((size, size), (output, output)) == ((entry, entry), (exit_, exit_))


def test_gradual_downsizing_of_other_aspect_ratios() -> None:
    unet = small_unet(sample_size=(24, 16))
    sizes = [(side, round(side * 16 / 24)) for side in range(1, 25)]
    for size, output_size in pairwise(sizes):
        assert unet(torch.randn(1, 3, *size), 5, output_size=output_size).sample.shape == (1, 3, *output_size)


def test_a_new_network_predicts_zero() -> None:
    unet = FlexiUNet2DModel(sample_size=8, block_out_channels=(32, 32))
    assert unet(torch.randn(1, 3, 8, 8), 1).sample.abs().max() == 0


@pytest.mark.parametrize("timestep", [7, 7.0, torch.tensor(7), torch.tensor([7]), torch.tensor([7, 7])])
def test_forms_of_timesteps_agree(timestep) -> None:
    unet, x = small_unet(), torch.randn(2, 3, 8, 8)
    exact = in_float64(unet, x, torch.tensor([7, 7]))
    assert relative_error(unet(x, timestep).sample, exact) < network_rounding(unet)


def test_class_labels() -> None:
    unet, x = small_unet(num_class_embeds=5), torch.randn(2, 3, 8, 8)
    one, other = (unet(x, 3, class_labels=torch.tensor(labels)).sample for labels in ([0, 1], [0, 2]))
    assert relative_error(one[0], other[0]) < network_rounding(unet)
    assert relative_error(one[1], other[1]) > 0.01
    assert torch.equal(unet(x, 3, torch.tensor([0, 1])).sample, one)  # third by position, as in UNet2DModel
    with pytest.raises(ValueError, match="is class-conditional, but no class_labels"):
        unet(x, 3)
    with pytest.raises(ValueError, match="has no class embeddings, but class_labels"):
        small_unet()(x, 3, class_labels=torch.tensor([0, 1]))


def test_output_size_is_given_by_name() -> None:
    with pytest.raises(TypeError, match="positional arguments"):
        small_unet()(torch.zeros(1, 3, 8, 8), 5, None, True, 16)


def test_save_and_load(tmp_path) -> None:
    unet, x = small_unet(layers_per_block=(1, 1, 2)), torch.randn(2, 3, 8, 8)
    unet.save_pretrained(tmp_path)
    again = FlexiUNet2DModel.from_pretrained(tmp_path)
    assert torch.equal(again(x, 5, output_size=16).sample, unet(x, 5, output_size=16).sample)
    half = FlexiUNet2DModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    with plain_attention():
        assert half(x.bfloat16(), 5).sample.dtype == torch.bfloat16


@pytest.mark.parametrize("time_embeddings", [1, 3])
@pytest.mark.parametrize("widths", [(32, 32), (32, 64), (96, 64)])
def test_residual_block_equals_that_of_diffusers(widths: tuple[int, int], time_embeddings: int) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(*widths, temb_channels=16, groups=16, eps=1e-5, dropout=0.0).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(3, widths[0], 6, 4, dtype=torch.float64)
    temb = torch.randn(time_embeddings, 16, dtype=torch.float64)
    results = []
    for forward in (ResidualBlock.forward, ResnetBlock2D.forward):
        inputs = [x.clone().requires_grad_(), temb.clone().requires_grad_()]
        output = forward(block, *inputs)
        gradients = torch.autograd.grad(output.square().sum(), [*inputs, *block.parameters()])
        results.append([output, *gradients])
    for ours, theirs in zip(*results):
        assert relative_error(ours, theirs) < 1e-12


@pytest.mark.parametrize("timestep", [500, torch.tensor([3, 700])])
@pytest.mark.parametrize(("size", "output"), [(16, 16), (8, 16), (4, 8)])
def test_channels_last_changes_nothing(size: int, output: int, timestep) -> None:
    unet, x = small_unet(), torch.randn(2, 3, size, size)
    exact = in_float64(unet, x, timestep, output)
    plain = unet(x, timestep, output_size=output).sample
    channels_last = unet.to(memory_format=torch.channels_last)(x, timestep, output_size=output).sample
    for found in (plain, channels_last):
        assert relative_error(found, exact) < network_rounding(unet)


@pytest.mark.parametrize(("size", "output"), [(16, 16), (8, 16), (4, 8)])
def test_autocast_and_half_precision_are_near(size: int, output: int) -> None:
    unet, x, t = small_unet(), torch.randn(2, 3, size, size), torch.tensor([3, 700])
    exact = in_float64(unet, x, t, output)
    with plain_attention():
        with torch.autocast("cpu", torch.bfloat16):
            mixed = unet(x, t, output_size=output).sample
        half = unet.to(torch.bfloat16)(x.bfloat16(), t, output_size=output).sample
    assert half.dtype == torch.bfloat16
    for found in (mixed, half):
        assert relative_error(found, exact) < network_rounding(unet, torch.bfloat16)


def test_gradient_checkpointing_changes_nothing() -> None:
    unet, x = small_unet(), torch.randn(2, 3, 8, 8)
    plain = torch.autograd.grad(unet(x, 5).sample.sum(), unet.conv_in.weight)[0]
    unet.enable_gradient_checkpointing()
    checkpointed = torch.autograd.grad(unet(x, 5).sample.sum(), unet.conv_in.weight)[0]
    torch.testing.assert_close(checkpointed, plain)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_size": 18}, "divisible by 4: got 18 x 18"),
        ({"block_out_channels": (32, 48, 64)}, "divisible by norm_num_groups=32, got 48"),
        ({"layers_per_block": (1, 2)}, r"one per stage \(3\)"),
        ({"layers_per_block": 0}, "at least 1"),
        ({"block_out_channels": ()}, "must be positive widths"),
        ({"block_out_channels": (32, -64, 64)}, "must be positive widths"),
        ({"norm_num_groups": 0}, "must be at least 1, got 4 and 0"),
        ({"decoder_exit": "late"}, "one of early, full, got 'late'"),
        ({"downsample_type": "max"}, "downsample_type must be one of conv, average, got 'max'"),
        ({"patch_size": 0}, "patch_size must be at least 1, got 0"),
        ({"patch_size": 3}, r"divisible by patch_size\^2 = 9, got 32"),
        ({"block_out_channels": (64, 64, 64), "patch_size": 8}, "4 x 4 pixels, which patch_size=8 does not divide"),
        ({"num_attention_heads": 5}, "divisible by num_attention_heads=5, got 64"),
    ],
)
def test_impossible_networks_are_explained(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_unet(**changes)


def test_names_of_classes_survive_saving(tmp_path) -> None:
    names = {label: f"class {label}" for label in range(12)}
    unet = FlexiUNet2DModel(16, block_out_channels=(32, 32), num_class_embeds=13, id2label=names)
    unet.save_pretrained(tmp_path)
    loaded = FlexiUNet2DModel.from_pretrained(tmp_path)
    assert loaded.config.id2label == unet.config.id2label == names
    assert loaded.class_names == unet.class_names == [f"class {label}" for label in range(12)]
    assert FlexiUNet2DModel(16, block_out_channels=(32, 32)).class_names is None


@pytest.mark.parametrize(
    ("names", "embeddings", "message"),
    [
        ({0: "a"}, None, "has none"),
        ({0: "a", 1: "b", 2: "c"}, 3, r"classes 0\.\.1 of num_class_embeds=3"),
        ({0: "a", 2: "b"}, 3, r"for \[0, 2\]"),
        ({0: "a", "0": "b"}, 3, "must name"),
        ({"x": "a"}, 2, "mapping of integers"),
        (["a", "b"], 3, "mapping of integers"),
        ({0: 5}, 2, "must be texts"),
    ],
)
def test_wrong_names_of_classes(names, embeddings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlexiUNet2DModel(16, block_out_channels=(32, 32), num_class_embeds=embeddings, id2label=names)


def test_averages_have_no_weights_and_no_arithmetic_worth_counting(tmp_path) -> None:
    convolutions, averages = (small_unet(downsample_type=kind) for kind in ("conv", "average"))
    surplus = convolutions.state_dict().keys() - averages.state_dict().keys()
    assert averages.state_dict().keys() < convolutions.state_dict().keys()
    assert all("samplers" in name for name in surplus)
    x = torch.randn(2, 64, 8, 4)
    pooled = averages.down_blocks[1].downsamplers[0](x)
    assert relative_error(pooled, haar.pool(x.double())) < random_walk(torch.float32, 4)
    assert torch.equal(averages.up_blocks[0].upsamplers[0](pooled), haar.embed(pooled))
    widths = [(width, 2 * 9 * width * width) for width in (32, 64, 64)]  # of a 3x3 convolution, per pixel
    down = sum(cost * (16 >> stage + 1) ** 2 for stage, (_, cost) in enumerate(widths[:2]))
    up = sum(cost * (16 >> stage - 1) ** 2 for stage, (_, cost) in enumerate(widths) if stage > 0)
    costs = [count_gflops(unet, (16, 16), (16, 16)) for unet in (convolutions, averages)]
    assert costs[0] - costs[1] == pytest.approx((down + up) / 1e9, rel=1e-9)
    averages.save_pretrained(tmp_path)
    loaded, image = FlexiUNet2DModel.from_pretrained(tmp_path), torch.randn(1, 3, 16, 16)
    assert loaded.config.downsample_type == "average"
    torch.testing.assert_close(loaded(image, 5).sample, averages(image, 5).sample)
