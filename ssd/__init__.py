"""Scale Space Diffusion: `from ssd import SSDPipeline, SSDScheduler, ScaleSpaceProcess`."""

import diffusers

from .pipeline_ssd import SSDPipeline
from .process import ScaleSpaceProcess
from .scheduling_ssd import SSDScheduler

# `DiffusionPipeline.from_pretrained` looks pipeline classes up by name inside diffusers.
diffusers.SSDPipeline = SSDPipeline

__all__ = ["SSDPipeline", "SSDScheduler", "ScaleSpaceProcess"]
__version__ = "0.1.0"
