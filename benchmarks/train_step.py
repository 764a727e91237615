"""One training step: against diffusers' UNet2DModel, per route, in bfloat16, by prediction, and with checkpointing.

python benchmarks/train_step.py
python benchmarks/train_step.py --base 16 --batch_size 2 --pairs 3
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from measuring import DEVICE, Row, four_stages, paired, random_weights, read_settings, same_unet2d, table
from torch import nn
from torch.profiler import ProfilerActivity, profile

from flexi_unet import FlexiUNet2DModel
from flexi_unet.flops import count_gflops
from ssd import SSDScheduler
from ssd.commands.errors import exit_on_usage_error
from ssd.process.losses import denoising_loss, training_pair

MEMORY_BATCH = 16
"""Large enough for activations to outweigh gradients, as in real training."""


@dataclass
class TrainStepBenchmark:
    """Settings of the benchmark.

    Parameters
    ----------
    res : int
        Full resolution.
    batch_size : int
        Images per step.
    base : int
        Width of the finest stage; the others are 2, 3 and 4 times wider.
    pairs : int
        Alternating measurements; the median ratio is reported.
    """

    res: int = 64
    batch_size: int = 4
    base: int = 32
    pairs: int = 5


def main() -> None:
    with exit_on_usage_error(ValueError):
        settings = read_settings(TrainStepBenchmark, __doc__)
        rows = measure(settings)
    print(table(rows))


def measure(settings: TrainStepBenchmark) -> list[Row]:
    unet = four_stages(settings.res, settings.base, "full").train()
    return [
        against_unet2d(unet, settings),
        *coarse_routes(unet, settings),
        bfloat16(unet, settings),
        preconditioned(unet, settings),
        *checkpointing(settings),
    ]


def step(network: nn.Module, size: int, batch_size: int, **arguments: object) -> Callable[[], None]:
    """Forward and backward pass on images of `size`."""
    x = torch.randn(batch_size, 3, size, size, device=DEVICE)
    t = torch.full((batch_size,), 500, device=DEVICE)

    def run() -> None:
        network.zero_grad(set_to_none=True)
        network(x, t, **arguments).sample.square().mean().backward()

    return run


def against_unet2d(unet: FlexiUNet2DModel, settings: TrainStepBenchmark) -> Row:
    """Throughput on the finest route / UNet2DModel's, at equal GFLOPs."""
    theirs = random_weights(same_unet2d(unet)).train().to(DEVICE)
    ratio, slow, fast = paired(
        step(theirs, settings.res, settings.batch_size),
        step(unet, settings.res, settings.batch_size),
        5 * settings.pairs,
    )
    what = f"training step, float32, {settings.res} pixels, batch {settings.batch_size}: throughput"
    return Row(what, "UNet2DModel of the same widths", ratio, ">= 1.0", f"{fast:.2f} s, {slow:.2f} s")


def coarse_routes(unet: FlexiUNet2DModel, settings: TrainStepBenchmark) -> list[Row]:
    """GFLOPs per second of each coarser route / the finest's."""
    sizes = [height for height, _ in unet.stage_sizes]
    finest = step(unet, sizes[0], settings.batch_size)
    base_cost = count_gflops(unet, (sizes[0], sizes[0]), (sizes[0], sizes[0]))
    rows = []
    for size in sizes[1:]:
        cost = count_gflops(unet, (size, size), (size, size))
        ratio, _, fast = paired(finest, step(unet, size, settings.batch_size), settings.pairs)
        speed = 3 * cost * settings.batch_size / fast  # the backward pass costs about twice the forward one
        what = f"GFLOPs per second of the {size} pixel route"
        rows.append(Row(what, "the finest route", ratio * cost / base_cost, note=f"about {speed:.0f}"))
    return rows


def bfloat16(unet: FlexiUNet2DModel, settings: TrainStepBenchmark) -> Row:
    """float32 step / bfloat16 autocast step."""
    plain = step(unet, settings.res, settings.batch_size)

    def mixed() -> None:
        with torch.autocast(DEVICE, torch.bfloat16):
            plain()

    ratio, slow, fast = paired(plain, mixed, settings.pairs)
    # torch tells AMX only through a private function; without it a CPU has no matrix units for bfloat16.
    amx = DEVICE == "cuda" or torch.cpu._is_amx_tile_supported()
    note = f"{slow:.2f} s, {fast:.2f} s" + ("" if amx else "; this CPU has no AMX, the target does not apply")
    return Row("training step, bfloat16 autocast: throughput", "float32", ratio, ">= 1.8" if amx else "", note)


def preconditioned(unet: FlexiUNet2DModel, settings: TrainStepBenchmark) -> Row:
    """A step of the preconditioned prediction / of the clean image: states, targets, network, loss, gradients."""
    ratio, slow, fast = paired(
        loss_step(unet, settings, "preconditioned"), loss_step(unet, settings, "sample"), 5 * settings.pairs
    )
    what = "training step with its states, targets and loss, preconditioned prediction: seconds"
    return Row(what, "of the clean image", ratio, "<= 1.03", f"{slow:.2f} s, {fast:.2f} s")


def loss_step(unet: FlexiUNet2DModel, settings: TrainStepBenchmark, prediction_type: str) -> Callable[[], None]:
    """What training does with a batch of the finest level, but for the optimizer."""
    scheduler = SSDScheduler(
        sample_size=settings.res,
        num_levels=3,
        prediction_type=prediction_type,
        data_moments={"mean": [0.0] * 3, "variances": [0.3] * 3},
    )
    process, t = scheduler.process, torch.full((settings.batch_size,), 100)
    x_0, noise = (torch.randn(settings.batch_size, 3, settings.res, settings.res, device=DEVICE) for _ in range(2))

    def run() -> None:
        unet.zero_grad(set_to_none=True)
        x_t, target = training_pair(process, x_0, t, noise, prediction_type)
        output = unet(x_t, t.to(DEVICE), output_size=target.shape[-2:]).sample
        denoising_loss(process, output, target, t, prediction_type).mean().backward()

    return run


def checkpointing(settings: TrainStepBenchmark) -> list[Row]:
    """Peak memory of a training step with gradient checkpointing / without."""
    peaks = [peak_bytes(settings, enabled) for enabled in (True, False)]
    what = f"peak of PyTorch's memory in a training step, batch {MEMORY_BATCH}, with gradient checkpointing"
    rows = [Row(what, "without", peaks[0] / peaks[1], "<= 0.5", mebibytes(peaks))]
    if DEVICE == "cpu":
        whole = [median(process_peaks(settings, enabled)) for enabled in (True, False)]
        what = "the same of the whole process, with oneDNN's buffers and holes in the heap"
        rows.append(Row(what, "without", whole[0] / whole[1], "<= 0.5", mebibytes(whole)))
    return rows


def mebibytes(values: Sequence[float]) -> str:
    return ", ".join(f"{value / 2**20:.0f} MiB" for value in values)


def checkpointed_step(settings: TrainStepBenchmark, enabled: bool) -> Callable[[], None]:
    unet = four_stages(settings.res, settings.base, "full").train()
    if enabled:
        unet.enable_gradient_checkpointing()
    step(unet, settings.res // 8, 1)()  # what libraries set up once
    unet.zero_grad(set_to_none=True)
    return step(unet, settings.res, MEMORY_BATCH)


def peak_bytes(settings: TrainStepBenchmark, checkpointing: bool) -> float:
    """How much a training step adds at its peak to what PyTorch has allocated: activations and gradients."""
    run = checkpointed_step(settings, checkpointing)
    if DEVICE == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    with TemporaryDirectory() as folder:
        recorded.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
    changes = [(event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]"]
    return max(accumulate(change for _, change in sorted(changes, key=lambda item: item[0])))


def process_peaks(settings: TrainStepBenchmark, checkpointing: bool) -> list[int]:
    """How much a training step adds at its peak to the memory of a new process, three times."""
    peaks = []
    for _ in range(3):
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            peaks.append(pool.submit(process_peak, settings, checkpointing).result())
    return peaks


def process_peak(settings: TrainStepBenchmark, checkpointing: bool) -> int:
    """The same of this process."""
    run = checkpointed_step(settings, checkpointing)
    before = resident_bytes("VmRSS")
    run()
    return resident_bytes("VmHWM") - before


def resident_bytes(field: str) -> int:
    """Memory of this process now (VmRSS) or at most so far (VmHWM). Linux only; getrusage counts the parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
