"""Work split over processes by the global number of an image, and results put together again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, gather_object

from ..commands.errors import UsageError
from ..commands.lock import hold_folder
from .statistics import FeatureStatistics, empty_sums

T = TypeVar("T")
Block = list[range]
"""Consecutive batches of image numbers that one process measures, and whose sums are added as one."""

MAX_BATCHES_PER_BLOCK = 16
BLOCKS_WANTED = 64


def start_processes(device: str | None) -> PartialState:
    """The processes that `accelerate launch` started, or this one alone; waits at most a day for a slow one."""
    cpu = device == "cpu" or not torch.accelerator.is_available()
    state = PartialState(cpu=cpu, timeout=timedelta(days=1))
    launched = any(name.startswith("ACCELERATE_") for name in os.environ)
    if cpu and launched:  # the launcher's default is one thread
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // state.num_processes))
    return state


def end_processes() -> None:
    """Close the connection between processes, if there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def hold_together(folder: Path | None, state: PartialState) -> Iterator[str | None]:
    """`hold_folder` for all processes of a run: the main one holds, and all are refused together.

    Yields the note of `hold_folder`, on the main process; None is no folder, and nothing is held.
    """
    with ExitStack() as stack:
        note, refusal = None, ""
        if folder is not None and state.is_main_process:
            try:
                note = stack.enter_context(hold_folder(folder))
            except UsageError as error:
                refusal = str(error)
        refusals = gather_list([refusal], state)
        if any(refusals):
            raise UsageError(max(refusals))
        yield note


def work_blocks(count: int, batch_size: int) -> list[Block]:
    """Image numbers 0 .. count - 1 in blocks of batches; the same whatever the number of processes.

    Batches of the same images on every run make features, which are rounded differently in batches of another
    length, the same to the last bit.
    """
    batches = [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    length = min(MAX_BATCHES_PER_BLOCK, max(1, len(batches) // BLOCKS_WANTED))
    return [batches[start : start + length] for start in range(0, len(batches), length)]


def share(work: Sequence[T], state: PartialState) -> list[T]:
    """The part of this process: every W-th piece."""
    return list(work[state.process_index :: state.num_processes])


def merge_statistics(statistics: FeatureStatistics, state: PartialState) -> FeatureStatistics:
    """The sums of all processes, added in the order of their ranks, on every process."""
    if state.num_processes == 1:
        return statistics
    counts = gather_list([(statistics.count, statistics.num_features)], state)
    num_features = max(number for _, number in counts)
    # NCCL sends tensors of the GPU only.
    device = state.device if state.device.type == "cuda" else torch.device("cpu")
    merged = FeatureStatistics()
    for rank, (count, _) in enumerate(counts):  # one after another: at D = 2048 each is 64 MB
        own = statistics.sums if rank == state.process_index and count else empty_sums(num_features)
        received = broadcast(torch.from_numpy(own).to(device), from_process=rank)
        merged.add_sums(count, received.cpu().numpy())
    return merged


def gather_list(items: list[Any], state: PartialState) -> list[Any]:
    """The items of all processes, on every process."""
    return list(gather_object(items)) if state.num_processes > 1 else items
