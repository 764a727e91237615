"""Scale Space Diffusion: `from ssd import SSDPipeline, SSDScheduler, ScaleSpaceProcess`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pipeline_ssd import SSDPipeline
    from .pipeline_vdvae import VDVAEPipeline
    from .pipelines.image_to_image import SSDImageToImagePipeline
    from .pipelines.inpaint import SSDInpaintPipeline
    from .pipelines.super_resolution import SSDSuperResolutionPipeline
    from .process.scale_space import ScaleSpaceProcess
    from .publishing.ddpm import from_ddpm
    from .publishing.push import push_pipeline
    from .scheduling_blurring import BlurringScheduler
    from .scheduling_corrective_noise import CorrectiveNoiseScheduler
    from .scheduling_ssd import SSDScheduler

__all__ = [
    "BlurringScheduler",
    "CorrectiveNoiseScheduler",
    "SSDImageToImagePipeline",
    "SSDInpaintPipeline",
    "SSDPipeline",
    "SSDScheduler",
    "SSDSuperResolutionPipeline",
    "ScaleSpaceProcess",
    "VDVAEPipeline",
    "from_ddpm",
    "push_pipeline",
]
__version__ = "0.2.0.dev0"

_MODULES = {
    "BlurringScheduler": "scheduling_blurring",
    "CorrectiveNoiseScheduler": "scheduling_corrective_noise",
    "SSDImageToImagePipeline": "pipelines.image_to_image",
    "SSDInpaintPipeline": "pipelines.inpaint",
    "SSDPipeline": "pipeline_ssd",
    "SSDScheduler": "scheduling_ssd",
    "SSDSuperResolutionPipeline": "pipelines.super_resolution",
    "ScaleSpaceProcess": "process",
    "VDVAEPipeline": "pipeline_vdvae",
    "from_ddpm": "publishing.ddpm",
    "push_pipeline": "publishing.push",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for (PEP 562), as diffusers does: `import ssd` takes no time."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    return globals()[name]
