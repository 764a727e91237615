"""Averaging gradients over processes: ours against DistributedDataParallel with find_unused_parameters, in one run.

    accelerate launch --config_file configs/accelerate/cpu_2_processes.yaml benchmarks/gradient_averaging.py

Both train the routes of three levels in turn. Without `find_unused_parameters` DistributedDataParallel stops at the
second step, since every route leaves parameters unused.
"""

from __future__ import annotations

import copy
import statistics
import time

import torch
from accelerate import Accelerator
from torch.nn.parallel import DistributedDataParallel

from flexi_unet import FlexiUNet2DModel
from ssd.training.distributed import average_gradients

ROUTES = [(16, 16), (16, 16), (8, 8), (8, 16), (4, 4), (4, 8)]
ROUNDS = 8


def main() -> None:
    accelerator = Accelerator()
    torch.manual_seed(0)
    ours = FlexiUNet2DModel(16, block_out_channels=(32, 64, 64), attention_resolutions=(8, 4)).to(accelerator.device)
    theirs = DistributedDataParallel(copy.deepcopy(ours), find_unused_parameters=True)
    times: dict[str, list[float]] = {"average_gradients": [], "DistributedDataParallel": []}
    for _ in range(ROUNDS):
        times["average_gradients"].append(one_round(ours, ours, accelerator, average=True))
        times["DistributedDataParallel"].append(one_round(theirs, theirs.module, accelerator, average=False))
    for one, other in zip(ours.parameters(), theirs.module.parameters()):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-3)
    if accelerator.is_main_process:
        medians = {name: statistics.median(values[1:]) for name, values in times.items()}
        for name, seconds in medians.items():
            print(f"{name:26} {1e3 * seconds / len(ROUTES):8.2f} ms per step")
        print(
            f"ours / DistributedDataParallel: {medians['average_gradients'] / medians['DistributedDataParallel']:.3f}"
        )


def one_round(network: torch.nn.Module, unet: torch.nn.Module, accelerator: Accelerator, average: bool) -> float:
    """Seconds for one step of every route."""
    start = time.perf_counter()
    for size, output in ROUTES:
        generator = torch.Generator().manual_seed(accelerator.process_index)
        x = torch.randn(8, 3, size, size, generator=generator).to(accelerator.device)
        unet.zero_grad(set_to_none=True)
        network(x, 5, output_size=output).sample.sub(1).square().mean().backward()
        if average:
            average_gradients(unet.parameters())
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
