"""What the network does after its weights were loaded."""

from __future__ import annotations

from typing import Any

MEMORY_ALIGNMENT = 64
"""Bytes to which PyTorch aligns CPU tensors of its own."""


def aligned(result: Any) -> Any:
    """The result of `from_pretrained`, with unaligned weights copied to where arithmetic is reproducible.

    safetensors maps tensors at any offset of the file, and on unaligned memory the CPU's vector kernels round
    differently: without the copy a loaded network would give other last digits than the one that was saved.
    """
    model = result[0] if isinstance(result, tuple) else result
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.data_ptr() % MEMORY_ALIGNMENT:
            parameter.data = parameter.data.clone()
    return result
