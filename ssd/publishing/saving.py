"""Saving a pipeline into a folder, and loading it again."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import DiffusionPipeline, UNet2DModel
from diffusers.models.modeling_utils import ModelMixin
from safetensors.torch import load_file

from vdvae import VDVAEModel

from ..commands.errors import UsageError, is_disk_full
from ..commands.files import PART, flush_to_disk, whole_file, whole_folder, write_json, write_text
from ..pipeline_ssd import SSDPipeline
from ..pipeline_vdvae import VDVAEPipeline
from ..pipelines.hub import model_folder
from ..pipelines.saved_files import (
    AVERAGE,
    DIGESTS,
    INDEX,
    NETWORK_PARTS,
    by_our_modules,
    digests_of,
    is_checkpoint,
    pipeline_of,
)
from ..pipelines.staging import STAGED, complete_pipeline
from .ddpm import is_ddpm, part_of_ddpm, read_ddpm_scheduler
from .pipeline_files import build_scheduler, check_checkpoint, check_network, read_classes, read_object

PIPELINE_PARTS = (*NETWORK_PARTS, "scheduler", INDEX, DIGESTS, STAGED)
"""Everything in a folder that belongs to a saved pipeline."""

AnyPipeline = TypeVar("AnyPipeline", bound=DiffusionPipeline)
Placed = TypeVar("Placed", DiffusionPipeline, SSDPipeline, VDVAEPipeline, ModelMixin)


def save_pipeline(pipeline: DiffusionPipeline, out: Path, card: str | None = None) -> None:
    """Write `pipeline` into `out` in `save_pretrained` format, replacing an earlier one there as a whole.

    The new pipeline is written beside the old one and flushed. One rename, to `.next-pipeline`, then makes it the
    folder's pipeline: from there on `load_pipeline` and `SSDPipeline.from_pretrained` read it in that place, while its
    files are put where diffusers looks for them; a second rename ends that. A process that is killed at any moment
    leaves the old or the new pipeline, never a mixture, and the next save completes what it left. Only diffusers' own
    `DiffusionPipeline.from_pretrained`, which does not know `.next-pipeline`, sees a mixture after such a kill.

    Parameters
    ----------
    pipeline : SSDPipeline or VDVAEPipeline
    out : pathlib.Path
    card : str, optional
        Text of the model card, README.md, which changes together with the pipeline.

    Raises
    ------
    OSError
        When the disk is full: the earlier pipeline is still there.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        _put_in_place(out)
        with whole_folder(out / STAGED) as saved:
            pipeline.save_pretrained(saved)
            write_json(saved / DIGESTS, {"sha256": digests_of(saved)})
            if card is not None:
                write_text(saved / "README.md", card)
        _put_in_place(out)
    except Exception as error:
        if is_disk_full(error):  # safetensors' own exception tells neither the number nor the file
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"the pipeline in {out}") from error
        raise


def _put_in_place(out: Path) -> None:
    """Move the staged pipeline, if there is one, to its place; it stays whole until the last step."""
    staged = out / STAGED
    if not staged.is_dir():
        return
    for part in sorted(staged.iterdir()):
        if part.is_dir():
            with whole_folder(out / part.name) as folder:
                shutil.copytree(part, folder, copy_function=_link, dirs_exist_ok=True)
        else:
            with whole_file(out / part.name, sync=True) as file:
                _link(part, file)
    done = out / f"{PART}{os.getpid()}-pipeline"
    os.replace(staged, done)
    flush_to_disk(out)
    shutil.rmtree(done)


def _link(source: str | Path, target: str | Path) -> None:
    """Give a file a second name, or copy it where the file system has no links."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def load_pipeline(model: str, device: str | None = None, dtype: str = "float32") -> SSDPipeline:
    """Load a saved pipeline, after its files were checked.

    Parameters
    ----------
    model : str
        A folder that `save_pipeline` wrote, or the name of a model on the Hub, user/name. Of a checkpoint of a run,
        RUN/checkpoints/step_00001000, the averaged weights are loaded, with the run's scheduler. Pipelines of
        diffusers' DDPM and DDIM are taken for models of one level (`ssd.publishing.ddpm`).
    device : str, optional
        Default: the accelerator if there is one, else the CPU.
    dtype : str
        Name of the weights' torch dtype, such as "bfloat16".

    Raises
    ------
    UsageError
        When `model` is not a complete SSDPipeline, or the device cannot be used.
    """

    def build(folder: Path) -> SSDPipeline:
        if is_ddpm(folder):
            unet = _load_network(folder, UNet2DModel, part_of_ddpm(folder, "unet"), dtype)
            return SSDPipeline(unet, read_ddpm_scheduler(folder, unet.config))
        classes = read_classes(pipeline_of(folder))
        scheduler = build_scheduler(pipeline_of(folder), classes["scheduler"])
        return SSDPipeline(_load_network(folder, classes["unet"], dtype=dtype), scheduler)

    return _load(model, build, "an SSDPipeline", device)


def load_vdvae_pipeline(model: str, device: str | None = None) -> VDVAEPipeline:
    """Load a saved VDVAE, after its files were checked; arguments and errors as those of `load_pipeline`."""

    def build(folder: Path) -> VDVAEPipeline:
        network = read_classes(pipeline_of(folder), "VDVAEPipeline")["vdvae"]
        return VDVAEPipeline(_load_network(folder, network, "vdvae"))

    return _load(model, build, "a VDVAEPipeline", device)


def load_any_pipeline(model: str, device: str | None = None) -> SSDPipeline | VDVAEPipeline:
    """Load a saved pipeline of either kind, by the class that its index names; else as `load_pipeline`."""
    folder = pipeline_of(folder_of(model))
    index = by_our_modules(read_object(folder, INDEX)) if (folder / INDEX).is_file() else {}
    is_vdvae = index.get("_class_name") == VDVAEPipeline.__name__
    return load_vdvae_pipeline(model, device) if is_vdvae else load_pipeline(model, device)


def folder_of(model: str | Path, flag: str = "--model") -> Path:
    """Where the files of a model lie: a folder, or what was downloaded of user/name on the Hub.

    Raises
    ------
    UsageError
        When the Hub has no such model, or it cannot be reached.
    """
    try:
        return complete_pipeline(model_folder(model))
    except ValueError as error:
        raise UsageError(f"{flag} {error}") from error


def _load(model: str, build: Callable[[Path], AnyPipeline], what: str, device: str | None) -> AnyPipeline:
    """The pipeline in a folder on its device, with one line about anything that is wrong."""
    folder = folder_of(model)
    if not (pipeline_of(folder) / INDEX).is_file():
        raise UsageError(
            f"--model {model} is not a pipeline: give a folder with {INDEX}, such as a finished run's --out."
            if not is_checkpoint(folder)
            else f"--model {model} is a checkpoint, and the folder of its run has no pipeline, which says what network "
            "it is of: continue the run with --resume until it saves one."
        )
    try:
        pipeline = build(folder)
    except ValueError as error:
        raise UsageError(f"--model {model} cannot be loaded as {what}: {error}") from error
    return _on_device(pipeline, device)


def _on_device(model: Placed, device: str | None) -> Placed:
    """A pipeline or a network on a device, by default the accelerator if there is one."""
    if device is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = accelerator.type if accelerator is not None else "cpu"
    try:
        return model.to(device)
    except RuntimeError as error:
        raise UsageError(f"--device {device} cannot be used: {str(error).splitlines()[0]}") from error


def load_vdvae_network(model: str, device: str | None = None) -> VDVAEModel:
    """The network alone, in float32 and for inference, after its files were checked.

    Parameters
    ----------
    model : str
        A folder that `VDVAEModel.save_pretrained` wrote, or one of a pipeline that has it in `vdvae/`.
    device : str, optional
        Default: the accelerator if there is one, else the CPU.

    Raises
    ------
    UsageError
        For anything else, for damaged files, or a device that cannot be used.
    """
    whole = folder_of(model)
    part = next((name for name in ("vdvae", ".") if (whole / name / "config.json").is_file()), None)
    if part is None:
        raise UsageError(f"--model {model} is not a VDVAE: give a folder with config.json, or with vdvae/config.json.")
    try:
        network = _load_network(whole, VDVAEModel, part)
    except ValueError as error:
        raise UsageError(f"--model {model} cannot be loaded as a VDVAEModel: {error}") from error
    return _on_device(network, device).eval().requires_grad_(False)


def load_unet(model: str | Path, flag: str = "--init_from") -> ModelMixin:
    """The network of a saved SSDPipeline, in float32 on the CPU, after its files were checked.

    Parameters
    ----------
    model : str or pathlib.Path
        A folder that `save_pipeline` wrote.
    flag : str
        The flag that named it, for messages.

    Raises
    ------
    UsageError
        When the folder does not hold a network, or a damaged one.
    """
    return _load_alone(model, flag, "SSDPipeline", "unet")


def load_vdvae(model: str | Path, flag: str = "--init_from") -> ModelMixin:
    """The network of a saved VDVAEPipeline, as `load_unet` does it."""
    return _load_alone(model, flag, "VDVAEPipeline", "vdvae")


def _load_alone(model: str | Path, flag: str, pipeline: str, part: str) -> ModelMixin:
    folder = folder_of(model, flag)
    if not (folder / part).is_dir():
        raise UsageError(f"{flag} {model} is not a pipeline: give a folder with {INDEX} and {part}/.")
    try:
        return _load_network(folder, read_classes(folder, pipeline)[part], part)
    except ValueError as error:
        raise UsageError(f"{flag} {model} cannot be loaded: {error}") from error


def _load_network(folder: Path, network: type, part: str = "unet", dtype: str = "float32") -> ModelMixin:
    """A network from the part of a pipeline's folder, or from a checkpoint of a run, after its files were checked."""
    if is_checkpoint(folder):
        averaged = network.from_config(check_checkpoint(folder, network, part))  # type: ignore[attr-defined]
        averaged.load_state_dict(load_file(folder / AVERAGE))
        return averaged.eval().to(getattr(torch, dtype))
    check_network(folder, network, part)
    # Only when needed: newer versions of diffusers warn about the name torch_dtype, older ones know no other.
    chosen = {} if dtype == "float32" else {"torch_dtype": getattr(torch, dtype)}
    loaded = network.from_pretrained(folder / part, use_safetensors=True, local_files_only=True, **chosen)  # type: ignore[attr-defined]
    return loaded.float() if dtype == "float32" else loaded
