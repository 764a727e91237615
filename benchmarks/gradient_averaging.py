"""What an engine costs over the search for unused parameters, in one run of several processes.

    accelerate launch --config_file configs/accelerate/cpu_2_processes.yaml benchmarks/gradient_averaging.py

Compared are DistributedDataParallel as training uses it (`find_unused_parameters=True`, since every route leaves
parameters unused), and one average of all gradients after the backward pass, which needs no search but does not overlap
with it. Both train the routes of three levels in turn, and their gradients are compared.
"""

from __future__ import annotations

import copy
import statistics
import time

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch.nn.parallel import DistributedDataParallel

from flexi_unet import FlexiUNet2DModel

ROUTES = [(16, 16), (16, 16), (8, 8), (8, 16), (4, 4), (4, 8)]
ROUNDS = 8


def main() -> None:
    accelerator = Accelerator()
    torch.manual_seed(0)
    after = FlexiUNet2DModel(16, block_out_channels=(32, 64, 64), attention_resolutions=(8, 4)).to(accelerator.device)
    ddp = DistributedDataParallel(copy.deepcopy(after), find_unused_parameters=True, gradient_as_bucket_view=True)
    times: dict[str, list[float]] = {"DistributedDataParallel": [], "one average afterwards": []}
    for _ in range(ROUNDS):
        times["DistributedDataParallel"].append(one_round(ddp, ddp.module, accelerator, average=False))
        times["one average afterwards"].append(one_round(after, after, accelerator, average=True))
    for one, other in zip(after.parameters(), ddp.module.parameters()):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-3)
    if accelerator.is_main_process:
        medians = {name: statistics.median(values[1:]) for name, values in times.items()}
        for name, seconds in medians.items():
            print(f"{name:26} {1e3 * seconds / len(ROUTES):8.2f} ms per step")
        ratio = medians["DistributedDataParallel"] / medians["one average afterwards"]
        print(f"DistributedDataParallel / one average afterwards: {ratio:.3f}")
    accelerator.end_training()


def one_round(network: torch.nn.Module, unet: torch.nn.Module, accelerator: Accelerator, average: bool) -> float:
    """Seconds for one step of every route."""
    start = time.perf_counter()
    for size, output in ROUTES:
        generator = torch.Generator().manual_seed(accelerator.process_index)
        x = torch.randn(8, 3, size, size, generator=generator).to(accelerator.device)
        unet.zero_grad(set_to_none=True)
        network(x, 5, output_size=output).sample.sub(1).square().mean().backward()
        if average:
            average_gradients([p.grad for p in unet.parameters() if p.grad is not None])
    return time.perf_counter() - start


def average_gradients(gradients: list[torch.Tensor]) -> None:
    """Replace gradients by their means over the processes, in one message."""
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(mean.view_as(gradient))


if __name__ == "__main__":
    main()
