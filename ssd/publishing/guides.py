"""The guide of autoguidance from a folder: a weaker model of the same process (`ssd.pipelines.guidance`)."""

from __future__ import annotations

from diffusers.models.modeling_utils import ModelMixin

from ..commands.errors import UsageError
from ..pipelines.denoising_pipeline import DenoisingPipeline
from ..pipelines.guidance import check_guide
from .saving import load_pipeline

OF_SAMPLING = frozenset(
    {
        "clip_sample",
        "clip_sample_range",
        "variance_type",
        "covariance",
        "solver_order",
        "timestep_spacing",
        "residual_covariance",
        "calibration",
    }
)
"""Settings of a scheduler that change how images are drawn, and not what a network predicts."""


def load_guide(model: str | None, pipeline: DenoisingPipeline) -> ModelMixin | None:
    """The network of a saved pipeline or of a checkpoint, on the device and in the dtype of the pipeline's network.

    Parameters
    ----------
    model : str or None
        As of `load_pipeline`; None gives None.
    pipeline : DenoisingPipeline
        Which it will guide.

    Raises
    ------
    UsageError
        When it cannot be loaded, or is of another task or process.
    """
    if model is None:
        return None
    try:
        loaded = load_pipeline(model, str(pipeline.device), str(pipeline.unet.dtype).removeprefix("torch."))
    except UsageError as error:
        raise UsageError(str(error).replace("--model", "--guide", 1)) from error
    try:
        check_guide(pipeline.unet, loaded.unet, pipeline.device)
        _check_process(pipeline, loaded)
    except ValueError as error:
        raise UsageError(f"--guide {model} does not fit this model: {error}") from error
    return loaded.unet


def _check_process(pipeline: DenoisingPipeline, guide: DenoisingPipeline) -> None:
    """Raise a ValueError that names the first setting in which the two processes differ."""
    own, other = (
        {"class": type(each.scheduler).__name__}
        | {k: v for k, v in each.scheduler.config.items() if not k.startswith("_") and k not in OF_SAMPLING}
        for each in (pipeline, guide)
    )
    differing = [name for name in own if own[name] != other.get(name)]
    if differing:
        name = differing[0]
        raise ValueError(f"its process has {name}={other.get(name)!r}, and this one {own[name]!r}.")
