"""What every choice in the network's forward pass is worth on this device.

python benchmarks/network.py
python benchmarks/network.py --base 16 --batch_size 2 --pairs 3
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from measuring import DEVICE, Row, four_stages, median_seconds, paired, read_settings, table
from train_step import step

from flexi_unet import FlexiUNet2DModel
from flexi_unet.residual_block import ResidualBlock, modulated_group_norm
from ssd import SSDScheduler
from ssd.commands.errors import exit_on_usage_error


@dataclass
class NetworkBenchmark:
    """Settings of the benchmark.

    Parameters
    ----------
    res : int
        Full resolution.
    batch_size : int
        Images per call.
    base : int
        Width of the finest stage; the others are 2, 3 and 4 times wider.
    pairs : int
        Alternating measurements; the median ratio is reported.
    """

    res: int = 64
    batch_size: int = 16
    base: int = 32
    pairs: int = 5


def main() -> None:
    with exit_on_usage_error(ValueError):
        settings = read_settings(NetworkBenchmark, __doc__)
        rows = measure(settings)
    print(table(rows))


def measure(settings: NetworkBenchmark) -> list[Row]:
    unet = four_stages(settings.res, settings.base, "early")
    return [
        *modulation(unet, settings),
        *channels_last(unet, settings),
        inference_mode(unet, settings),
        *zero_skips(unet, settings),
    ]


def forward(unet: FlexiUNet2DModel, size: int, batch_size: int) -> Callable[[], None]:
    """One call without gradients, at one timestep."""
    x, t = torch.randn(batch_size, 3, size, size, device=DEVICE), torch.tensor([500], device=DEVICE)

    def run() -> None:
        with torch.no_grad():
            unet(x, t)

    return run


def modulation(unet: FlexiUNet2DModel, settings: NetworkBenchmark) -> list[Row]:
    """diffusers' residual blocks / ours, whose timestep modulation is part of the group norm."""
    theirs = with_plain_blocks(unet)
    size, batch = settings.res, settings.batch_size
    passes = {
        "forward pass": (forward(theirs, size, batch), forward(unet, size, batch)),
        "training step": (step(theirs, size, batch), step(unet, size, batch)),
    }
    rows = []
    for name, (plain, ours) in passes.items():
        ratio, slow, fast = paired(plain, ours, settings.pairs)
        what = f"{name}, {size} pixels, batch {batch}: diffusers' residual blocks"
        rows.append(Row(what, "modulation inside the group norm", ratio, note=f"{slow:.3f} s, {fast:.3f} s"))
    return rows


def with_plain_blocks(unet: FlexiUNet2DModel) -> FlexiUNet2DModel:
    """A copy that computes its residual blocks as diffusers does."""
    plain = copy.deepcopy(unet)
    for module in plain.modules():
        if isinstance(module, ResidualBlock):
            module.__class__ = ResnetBlock2D
    return plain


def channels_last(unet: FlexiUNet2DModel, settings: NetworkBenchmark) -> list[Row]:
    """Channels first / channels last."""
    last = copy.deepcopy(unet).to(memory_format=torch.channels_last)
    rows = []
    for size in (settings.res, settings.res // 8):
        first, second = (forward(network, size, settings.batch_size) for network in (unet, last))
        ratio, slow, fast = paired(first, second, settings.pairs)
        note = f"{slow:.3f} s, {fast:.3f} s"
        rows.append(Row(f"forward pass, {size} pixels: channels first", "channels last", ratio, note=note))
    first, second = (step(network, settings.res, settings.batch_size) for network in (unet, last))
    ratio, slow, fast = paired(first, second, settings.pairs)
    note = f"{slow:.3f} s, {fast:.3f} s"
    return [*rows, Row(f"training step, {settings.res} pixels: channels first", "channels last", ratio, note=note)]


def inference_mode(unet: FlexiUNet2DModel, settings: NetworkBenchmark) -> Row:
    """torch.no_grad / torch.inference_mode, where calls are shortest."""
    size = settings.res // 8
    plain = forward(unet, size, settings.batch_size)

    def faster() -> None:
        with torch.inference_mode():
            plain()

    ratio, slow, fast = paired(plain, faster, 3 * settings.pairs)
    note = f"{1e3 * slow:.1f} ms, {1e3 * fast:.1f} ms"
    return Row(f"forward pass, {size} pixels: torch.no_grad", "torch.inference_mode", ratio, note=note)


def zero_skips(unet: FlexiUNet2DModel, settings: NetworkBenchmark) -> list[Row]:
    """Blocks above the entry stage get zeros for skips: what leaving the zeros out would save (it is not done)."""
    rows, saved = [], 0.0
    for entry in range(len(unet.stage_sizes) - 1, 1, -1):  # towards the full resolution there are no zeros
        size, output_size = unet.stage_sizes[entry], unet.stage_sizes[entry - 1]
        plain, cheaper = zero_skip_blocks(unet, entry, settings.batch_size)
        ratio, slow, fast = paired(plain, cheaper, 3 * settings.pairs)
        part = (slow - fast) / route_seconds(unet, size, output_size, settings)
        saved += slow - fast
        what = f"residual blocks with zeros for skips, {output_size[0]} pixels"
        note = f"{1e3 * slow:.1f} ms, {1e3 * fast:.1f} ms: {100 * part:.0f} % of the level change"
        rows.append(Row(what, "zeros left out, exactly", ratio, note=note))
    scheduler = SSDScheduler(sample_size=settings.res, num_levels=len(unet.stage_sizes))
    scheduler.set_timesteps(50)
    chain = [(t, scheduler.previous_timestep(t)) for t in scheduler.timesteps.tolist()]
    routes = Counter((scheduler.size_at(t), scheduler.size_at(s)) for t, s in chain)
    whole = sum(count * route_seconds(unet, *route, settings) for route, count in routes.items())
    note = f"{1e3 * saved:.0f} ms of {whole:.2f} s"
    left_out = "zeros left out in every level change"
    return [*rows, Row("50 sampling steps as they are", left_out, whole / (whole - saved), note=note)]


def zero_skip_blocks(
    unet: FlexiUNet2DModel, entry: int, batch_size: int
) -> tuple[Callable[[], object], Callable[[], object]]:
    """The blocks with zeros of the level change from stage `entry`: as they are, and without the zeros."""
    stage: Any = unet.up_blocks[-entry]
    temb = torch.randn(1, unet.time_embedding.linear_2.out_features, device=DEVICE)
    blocks = []
    for block, zeros in list(zip(stage.resnets, stage.skip_channels))[: unet.config.layers_per_block]:
        x = torch.randn(batch_size, block.in_channels - zeros, *unet.stage_sizes[entry - 1], device=DEVICE)
        blocks.append((block, x, zeros))

    def plain() -> list[torch.Tensor]:
        with torch.no_grad():
            return [block(F.pad(x, (0, 0, 0, 0, 0, zeros)), temb) for block, x, zeros in blocks]

    def cheaper() -> list[torch.Tensor]:
        with torch.no_grad():
            return [without_zeros(block, x, temb) for block, x, _ in blocks]

    torch.testing.assert_close(cheaper(), plain(), atol=1e-4, rtol=0)
    return plain, cheaper


def without_zeros(block: ResidualBlock, x: torch.Tensor, temb: torch.Tensor) -> torch.Tensor:
    """The same numbers without the channels of zeros.

    In groups of zeros alone the norm gives its bias, a constant picture, of which a 3 x 3 convolution takes only nine
    values: at corners, edges and inside. So only channels up to the last group that x reaches into are computed.
    """
    norm, conv = block.norm1, block.conv1
    width = norm.num_channels // norm.num_groups
    groups = -(-x.shape[1] // width)
    kept = groups * width
    hidden = F.pad(x, (0, 0, 0, 0, 0, kept - x.shape[1]))
    hidden = F.silu(F.group_norm(hidden, groups, norm.weight[:kept], norm.bias[:kept], norm.eps))
    hidden = F.conv2d(hidden, conv.weight[:, :kept], conv.bias, padding=1)
    constant = F.silu(norm.bias[kept:]).view(1, -1, 1, 1).expand(-1, -1, 3, 3)
    nine = F.conv2d(constant, conv.weight[:, kept:], padding=1)
    rows, columns = ([0, *[1] * (side - 2), 2] for side in x.shape[2:])
    hidden += nine[:, :, rows][..., columns]

    scale, shift = block.time_emb_proj(F.silu(temb)).chunk(2, dim=1)
    hidden = F.silu(modulated_group_norm(hidden, block.norm2, scale, shift))
    shortcut = F.conv2d(x, block.conv_shortcut.weight[:, : x.shape[1]], block.conv_shortcut.bias)
    return shortcut + block.conv2(hidden)


def route_seconds(
    unet: FlexiUNet2DModel, size: tuple[int, int], output_size: tuple[int, int], settings: NetworkBenchmark
) -> float:
    """Median seconds of a route without gradients."""
    x, t = torch.randn(settings.batch_size, 3, *size, device=DEVICE), torch.tensor([500], device=DEVICE)
    with torch.no_grad():
        return median_seconds(lambda: unet(x, t, output_size=output_size), settings.pairs)


if __name__ == "__main__":
    main()
