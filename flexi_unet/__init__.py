"""The networks of Scale Space Diffusion: `from flexi_unet import FlexiUNet2DModel`."""

from .modeling_flexi_unet import FlexiUNet2DModel
from .modeling_resized_unet import ResizedUNet2DModel

__all__ = ["FlexiUNet2DModel", "ResizedUNet2DModel"]
