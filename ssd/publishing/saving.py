"""Saving a pipeline into a folder, and loading it again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from diffusers.utils import logging

from ..commands.errors import UsageError
from ..commands.files import whole_folder, write_text
from ..pipeline_ssd import SSDPipeline

PIPELINE_PARTS = ("unet", "scheduler", "model_index.json")


def save_pipeline(pipeline: SSDPipeline, out: Path, card: str | None = None) -> None:
    """Write `pipeline` into `out` in `save_pretrained` format, replacing an earlier one there.

    Parameters
    ----------
    pipeline : SSDPipeline
    out : pathlib.Path
    card : str, optional
        Text of the model card, README.md.
    """
    out.mkdir(parents=True, exist_ok=True)
    with whole_folder(out / ".pipeline") as saved:
        pipeline.save_pretrained(saved)
    for part in PIPELINE_PARTS:
        if (out / part).is_dir():
            shutil.rmtree(out / part)
        os.replace(out / ".pipeline" / part, out / part)
    shutil.rmtree(out / ".pipeline")
    if card is not None:
        write_text(out / "README.md", card)


def load_pipeline(model: str, device: str | None = None, dtype: str = "float32") -> SSDPipeline:
    """Load a saved pipeline.

    Parameters
    ----------
    model : str
        A folder that `save_pipeline` wrote.
    device : str, optional
        Default: the accelerator if there is one, else the CPU.
    dtype : str
        Name of the weights' torch dtype, such as "bfloat16".

    Raises
    ------
    UsageError
        When `model` is not a complete SSDPipeline, or the device cannot be used.
    """
    folder = Path(model)
    if not (folder / "model_index.json").is_file():
        raise UsageError(
            f"--model {model} is not a pipeline: give a folder with model_index.json, such as a finished run's --out."
        )
    logging.disable_progress_bar()  # of the loading, which takes a moment
    try:
        # Only when needed: newer versions of diffusers warn about the name torch_dtype, older ones know no other.
        chosen = {} if dtype == "float32" else {"torch_dtype": getattr(torch, dtype)}
        pipeline = SSDPipeline.from_pretrained(folder, **chosen)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"--model {model} cannot be loaded as an SSDPipeline: {error}") from error
    finally:
        logging.enable_progress_bar()
    if device is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = accelerator.type if accelerator is not None else "cpu"
    try:
        return pipeline.to(device)
    except RuntimeError as error:
        raise UsageError(f"--device {device} cannot be used: {str(error).splitlines()[0]}") from error
