"""Pipelines of diffusers' DDPM and DDIM as an `SSDPipeline` of one level: public checkpoints as baselines.

With one level the process is DDPM's (docs/maths.md), so that the network stays as it is and the settings of the
scheduler are renamed. Over the same timesteps the steps are the same: of `DDPMScheduler` with eta = 1, of
`DDIMScheduler` with eta = 0, whose direction is taken from the clipped prediction (`use_clipped_model_output`). The
scheduler has first order and even timesteps; diffusers' own ones, where fewer than all are wanted, can be given as
`timesteps`, as long as they end in 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler, DDPMScheduler, DiffusionPipeline, UNet2DModel

from ..pipeline_ssd import SSDPipeline
from ..pipelines.samplers import SAMPLERS
from ..pipelines.saved_files import INDEX, read_object
from ..process.noise import BETA_SCHEDULES
from ..scheduling_ssd import SSDScheduler

DDPM_PIPELINES = ("DDPMPipeline", "DDIMPipeline")
SCHEDULERS = {"DDPMScheduler": DDPMScheduler, "DDIMScheduler": DDIMScheduler}

SAME_SETTINGS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "prediction_type",
    "clip_sample",
    "clip_sample_range",
)
"""What diffusers and `SSDScheduler` call by the same names."""

VARIANCES = {"fixed_small": "fixed_small", "fixed_small_log": "fixed_small", "fixed_large": "fixed_large"}
"""diffusers' variance types that there are here; the logarithm is another way to compute the same."""

ABSENT = {"trained_betas": None, "thresholding": False, "rescale_betas_zero_snr": False, "set_alpha_to_one": True}
"""Settings that must have these values: `SSDScheduler` has nothing like the others."""


def from_ddpm(model: str | Path | DiffusionPipeline) -> SSDPipeline:
    """A pipeline of diffusers' DDPM or DDIM as an `SSDPipeline`, with the same network.

    Parameters
    ----------
    model : str, pathlib.Path or DiffusionPipeline
        A folder of a `DDPMPipeline` or a `DDIMPipeline`, the name of one on the Hub, or a pipeline.

    Raises
    ------
    ValueError
        For a network or a setting of the scheduler that there is not here: one sentence.

    Examples
    --------
    >>> from diffusers import DDPMPipeline
    >>> blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "norm_num_groups": 4}
    >>> unet = UNet2DModel(8, block_out_channels=(8,), **blocks)
    >>> from_ddpm(DDPMPipeline(unet, DDPMScheduler(variance_type="fixed_large"))).scheduler.config.variance_type
    'fixed_large'
    """
    if not isinstance(model, DiffusionPipeline):
        model = DiffusionPipeline.from_pretrained(model, use_safetensors=True)
    parts = model.components
    if not isinstance(parts.get("unet"), UNet2DModel):
        raise ValueError(f"A {type(model).__name__} has no UNet2DModel, which a pipeline of DDPM consists of.")
    return SSDPipeline(parts["unet"], scheduler_from_ddpm(parts["scheduler"], parts["unet"].config.sample_size))


def scheduler_from_ddpm(theirs: Any, sample_size: int | list[int] | tuple[int, int] | None) -> SSDScheduler:
    """The `SSDScheduler` of one level that steps as a `DDPMScheduler` or a `DDIMScheduler` does.

    Parameters
    ----------
    theirs : DDPMScheduler or DDIMScheduler
    sample_size : int or (height, width)
        Of the network.

    Raises
    ------
    ValueError
        For another scheduler, or a setting that there is not here.
    """
    if type(theirs).__name__ not in SCHEDULERS:
        raise ValueError(
            f"The steps of a {type(theirs).__name__} are not those of DDPM: give the pipeline a DDPMScheduler first, "
            "pipeline.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)."
        )
    if sample_size is None:
        raise ValueError("The network does not say its sample_size, which the process needs.")
    config = theirs.config
    _check_settings(config)
    return SSDScheduler(
        **{name: config[name] for name in SAME_SETTINGS},
        variance_type=VARIANCES[config.get("variance_type", "fixed_small")],
        sample_size=sample_size if isinstance(sample_size, int) else (sample_size[0], sample_size[1]),
        num_levels=1,
        **SAMPLERS["paper"],
    )


def is_ddpm(folder: Path) -> bool:
    """Whether a folder is of a pipeline that `from_ddpm` takes."""
    return (folder / INDEX).is_file() and read_object(folder, INDEX).get("_class_name") in DDPM_PIPELINES


def part_of_ddpm(folder: Path, part: str) -> str:
    """The folder of a part below that of a pipeline; in old ones all files are together, "."."""
    return part if (folder / part).is_dir() else "."


def read_ddpm_scheduler(folder: Path, network: Mapping[str, Any]) -> SSDScheduler:
    """The scheduler of a folder of diffusers, converted for the network with this configuration.

    Raises
    ------
    ValueError
        For a damaged file, another scheduler, or a setting that there is not here.
    """
    name = f"{part_of_ddpm(folder, 'scheduler')}/scheduler_config.json"
    settings = read_object(folder, name)
    kind = settings.get("_class_name")
    if kind not in SCHEDULERS:
        raise ValueError(f"{name} names the class {kind!r} instead of one of {', '.join(SCHEDULERS)}.")
    try:
        theirs = SCHEDULERS[kind].from_config(settings)
    except Exception as error:  # settings of unknown origin fail in many ways
        raise ValueError(f"{name} does not describe a process: {error}") from error
    return scheduler_from_ddpm(theirs, network.get("sample_size"))


def _check_settings(config: Mapping[str, Any]) -> None:
    """Raise a ValueError for a setting that there is not here."""
    for name, only in ABSENT.items():
        if config.get(name, only) != only:
            raise ValueError(f"The scheduler has {name}={config[name]!r}, and SSDScheduler knows no other than {only}.")
    for name, allowed in (("variance_type", tuple(VARIANCES)), ("beta_schedule", BETA_SCHEDULES)):
        if config.get(name, allowed[0]) not in allowed:
            raise ValueError(
                f"The scheduler has {name}={config[name]!r}, and SSDScheduler knows only {', '.join(allowed)}."
            )
