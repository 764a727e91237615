"""Averaging gradients over processes, with routes that use only a part of the network.

Not DistributedDataParallel: with gradient accumulation over batches of different routes, its reducer skips the
parameters that the last batch does not use and leaves their accumulated gradients unaveraged, and without
accumulation it needs a search of the graph in every step. All processes share the routes, so all have gradients for
the same parameters: one average per optimizer step is exact, cannot hang, and leaves unused parameters without a
gradient, so that the optimizer passes them over.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist

BUCKET_BYTES = 32 * 2**20


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes; without several processes nothing happens.

    Gradients travel in flat buckets, all under way at once.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    pending = []
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        pending.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
    for bucket, flat, work in pending:
        work.wait()
        flat /= dist.get_world_size()
        for gradient, mean in zip(bucket, flat.split([g.numel() for g in bucket])):
            gradient.copy_(mean.view_as(gradient))


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is set on any process."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return flag
    tensor = torch.tensor([float(flag)], device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return bool(tensor.item())


def _buckets(gradients: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    buckets: list[list[torch.Tensor]] = []
    size = 0
    for gradient in gradients:
        if not buckets or size > BUCKET_BYTES or gradient.dtype != buckets[-1][0].dtype:
            buckets.append([])
            size = 0
        buckets[-1].append(gradient)
        size += gradient.numel() * gradient.element_size()
    return buckets
