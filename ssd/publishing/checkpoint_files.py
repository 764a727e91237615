"""Reading a checkpoint file of unknown origin: tensors only, no code of the file is run."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file


def read_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], int | None]:
    """Tensors of a checkpoint file by name, and the training step if the file holds it; no code of the file is run.

    Parameters
    ----------
    path : str or Path
        A `.safetensors` file, or what `torch.save` wrote of a state dict or of {"model": state dict, "step": int}.

    Raises
    ------
    FileNotFoundError
    ValueError
        For a damaged file, a pickle that could run code, or content that is not a state dict.
    """
    path = Path(path)
    if not path.is_file():
        problem = "is a folder: give the checkpoint file in it" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {problem}.")
    content = _load_safetensors(path) if path.suffix == ".safetensors" else _load_pickle(path)
    step = content.get("step") if isinstance(content, dict) else None
    weights = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    ):
        raise ValueError(
            f"{path} does not hold a state dict: expected tensors by name, or "
            "{'model': tensors by name, 'step': number}."
        )
    return weights, step if isinstance(step, int) else None


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error}): fetch it again.") from error


def _load_pickle(path: Path) -> Any:
    """What `torch.save` wrote, tensors and plain containers only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; a file that matters fails below
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        problem = (
            f"loading it could run code (it asks for {wanted[1]}, not only for tensors)"
            if wanted
            else "it is damaged, it is not a checkpoint of torch.save, or loading it could run code"
        )
        raise ValueError(
            f"{path} is refused: {problem}. If you trust its source, re-save it where it was made with "
            'torch.save({"model": model.state_dict(), "step": int(step)}, path).'
        ) from error
    except Exception as error:  # a damaged file fails in many ways: RuntimeError, EOFError, KeyError, ..
        raise ValueError(f"{path} is damaged, cut short or not a checkpoint of torch.save: fetch it again.") from error
