"""Loading of saved weights to where arithmetic is reproducible."""

from __future__ import annotations

from typing import Any

from torch import nn

MEMORY_ALIGNMENT = 64
"""Bytes to which PyTorch aligns CPU tensors of its own."""


class AlignedWeights:
    """What a network inherits before diffusers' `ModelMixin`, so that the loaded one computes as the saved one did."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a saved network (see diffusers' `ModelMixin`), with its weights where arithmetic is reproducible.

        safetensors maps tensors at any offset of the file, and on unaligned memory the CPU's vector kernels round
        differently: without the copy a loaded network would give other last digits than the one that was saved.
        """
        result = super().from_pretrained(*args, **kwargs)  # type: ignore[misc]
        _align(result[0] if isinstance(result, tuple) else result)
        return result


def _align(network: nn.Module) -> None:
    """Copy the parameters that lie at unaligned addresses of the CPU's memory."""
    for parameter in network.parameters():
        if parameter.device.type == "cpu" and parameter.data_ptr() % MEMORY_ALIGNMENT:
            parameter.data = parameter.data.clone()
