"""Flexi-UNet, the network of Scale Space Diffusion: `from flexi_unet import FlexiUNet2DModel`."""

from .modeling_flexi_unet import FlexiUNet2DModel

__all__ = ["FlexiUNet2DModel"]
