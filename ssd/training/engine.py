"""Several processes: accelerate's engines, set up for networks of which a batch uses only its route.

DistributedDataParallel searches every step for the parameters that the route leaves unused; FSDP version 2 shards stage
by stage and needs no search. All processes take the same route in a step, so all have gradients for the same
parameters, and parameters that no batch of a step used keep no gradient.
"""

from __future__ import annotations

import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import (
    DistributedType,
    FullyShardedDataParallelPlugin,
    GradientAccumulationPlugin,
    gather_object,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from tqdm.auto import tqdm

from flexi_unet import FlexiUNet2DModel

from ..commands.errors import TrainingStopped, UsageError
from ..operators.sizes import Size
from ..sampling.compiling import compile_network
from .run_config import RunConfig, images_per_batch

LOST_CONNECTION = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "NCCL error")
"""How the libraries below PyTorch say that another process is gone; they raise plain RuntimeErrors."""


def make_accelerator(config: RunConfig) -> Accelerator:
    """Processes, precision, gradient accumulation and trackers, as `config` and the launcher say."""
    check_tracker(config.report_to)
    # Before processes meet: one that refuses and ends while another one still connects would leave that a traceback.
    images_per_batch(config, int(os.environ.get("WORLD_SIZE", "1")))
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    precision = config.mixed_precision if config.mixed_precision != "auto" else ("bf16" if bf16 else "no")
    accelerator = Accelerator(
        mixed_precision=precision,
        log_with=None if config.report_to == "none" else config.report_to,
        project_dir=config.out,
        # These two have become settings of the run (`launcher`): accelerate must not heed them a second time.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        dynamo_backend="no",
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=config.has_routes, gradient_as_bucket_view=True)
        ],
    )
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # accelerate shards on accelerators alone; PyTorch can on CPUs too, which is how the tests run it.
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        accelerator.state.distributed_type = DistributedType.FSDP
    _check_engine(accelerator, config)
    # The stages hand on views of their inputs, and nothing in the network changes a tensor in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    images_per_batch(config, accelerator.num_processes)
    if accelerator.device.type == "cpu":
        cores = len(os.sched_getaffinity(0)) // accelerator.num_processes
        torch.set_num_threads(config.cpu_threads or max(1, cores))
    torch.set_float32_matmul_precision("high")  # TF32 where there is
    return accelerator


def check_tracker(name: str) -> None:
    """Raise a `UsageError` for a tracker that accelerate does not know, or whose package is missing."""
    known, available = list(LOGGER_TYPE_TO_CLASS), [str(tracker) for tracker in get_available_trackers()]
    if name in ("none", *available):
        return
    others = f"one of {', '.join([*available, 'none'])}, for which all is there"
    if name not in known:
        raise UsageError(f"--report_to {name} is unknown: use {others}, or another one of {', '.join(known)}.")
    raise UsageError(f"--report_to {name} needs its package: pip install {name}. Or use {others}.")


def _check_engine(accelerator: Accelerator, config: RunConfig) -> None:
    """Refuse what cannot train a network by routes."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise UsageError(
            "DeepSpeed is not supported: launch with configs/accelerate/multi_gpu.yaml, or with "
            "configs/accelerate/fsdp2.yaml to shard the network."
        )
    if accelerator.distributed_type != DistributedType.FSDP:
        return
    if not accelerator.is_fsdp2:
        raise UsageError(
            "FSDP version 1 is not supported: set fsdp_version: 2 in the launch file, as configs/accelerate/fsdp2.yaml "
            "does."
        )
    if config.unsharded:
        raise UsageError(
            f"{config.unsharded} cannot be sharded by FSDP: launch with configs/accelerate/multi_gpu.yaml."
        )
    if config.compile or accelerator.mixed_precision == "fp16":
        given = "--compile" if config.compile else "--mixed_precision fp16"
        raise UsageError(
            f"{given} does not work with FSDP: leave it out, use --mixed_precision bf16, or launch with "
            "configs/accelerate/multi_gpu.yaml."
        )


def check_agreement(accelerator: Accelerator, facts: dict[str, Any], problem: str | None = None) -> None:
    """Raise one `UsageError` on all processes if any has a problem, or if they disagree about the run.

    Parameters
    ----------
    accelerator : Accelerator
    facts : dict
        What must be the same everywhere, by names that people understand.
    problem : str, optional
        What this process found wrong.
    """
    everyone = gather_object([(facts, problem)])
    for _, found in everyone:
        if found is not None:
            raise UsageError(found)
    for rank, (theirs, _) in enumerate(everyone):
        differing = [name for name, value in everyone[0][0].items() if theirs.get(name) != value]
        if differing:
            name = differing[0]
            raise UsageError(
                f"The processes disagree about {name}: {everyone[0][0][name]!r} on process 0, {theirs.get(name)!r} on "
                f"process {rank}. All need the same files, settings and --out."
            )


def summed(accelerator: Accelerator, counts: dict[str, int]) -> dict[str, int]:
    """Counts of all processes together, by name."""
    total: Counter[str] = Counter()
    for own in gather_object([counts]):
        total.update(own)
    return dict(total)


@contextmanager
def end_with_the_others(accelerator: Accelerator) -> Iterator[None]:
    """One line, not a traceback, where a process ends because another one is gone."""
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        lost = isinstance(error, dist.DistError) or any(words in str(error) for words in LOST_CONNECTION)
        if accelerator.num_processes == 1 or not lost:
            raise
        raise TrainingStopped(
            f"Process {accelerator.process_index} ends because another process is gone: look for its message above. "
            "Continue with --resume."
        ) from error


def share_weights(unet: torch.nn.Module) -> None:
    """Give all processes the weights of process 0."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for tensor in unet.state_dict().values():
            dist.broadcast(tensor, 0)


def freeze_unused(unet: torch.nn.Module, num_levels: int) -> None:
    """With one level no route passes Flexi-UNet's adapters: without gradients, no engine waits for theirs."""
    if num_levels == 1 and isinstance(unet, FlexiUNet2DModel):
        unet.entry_adapters.requires_grad_(False)
        unet.exit_adapters.requires_grad_(False)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor put together of its shards, if there are any; all processes must call this in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """A whole tensor divided as `other` is."""
    if not isinstance(other, DTensor) or tensor.ndim == 0:
        return tensor
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)


def announce_compiling(network: torch.nn.Module, unet: torch.nn.Module) -> Callable[..., Any]:
    """`network`, whose `unet` is compiled; writes how long the first call of every route took."""
    compile_network(unet)
    seen = set()

    def call(x: torch.Tensor, t: torch.Tensor, *, output_size: Size, **inputs: Any) -> Any:
        route = (x.shape, output_size)
        start = time.perf_counter()
        result = network(x, t, output_size=output_size, **inputs)
        if route not in seen:
            seen.add(route)
            seconds = time.perf_counter() - start
            tqdm.write(f"compiled {tuple(x.shape[-2:])} -> {output_size} in {seconds:.1f} s")
        return result

    return call
