"""The networks of Scale Space Diffusion: `from flexi_unet import FlexiUNet2DModel, ResizedUNet2DModel`."""

from .modeling_flexi_unet import FlexiUNet2DModel
from .modeling_resized_unet import ResizedUNet2DModel

__all__ = ["FlexiUNet2DModel", "Network", "ResizedUNet2DModel"]

Network = FlexiUNet2DModel | ResizedUNet2DModel
"""Either of them; both have `stage_sizes`, `working_sizes`, `class_names` and `forward(.., output_size=None)`."""
