"""Watching copies to a device without one: the meta device stands for an accelerator."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ssd.operators import placing


class QueuedCopies(TorchDispatchMode):
    """Within it every copy between devices must be queued, from page-locked memory; their number is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = 0
        self.locked: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            source = args[-1]
            if source.device != result.device:
                assert (kwargs or {}).get("non_blocking"), f"{func} waits for the device"
                assert any(source is tensor for tensor in self.locked), f"{func} copies from ordinary memory"
                self.copies += 1
        return result


def watch_copies_to_meta(monkeypatch: Any) -> QueuedCopies:
    """The meta device plays an accelerator; page-locking, for which there must be one, is recorded instead."""
    copies = QueuedCopies()

    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        copies.locked.append(tensor)
        return tensor

    monkeypatch.setattr(placing, "PAGE_LOCKED_COPIES", frozenset({"meta"}))
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    return copies
