"""Very deep variational autoencoders, with or without weight sharing: `from vdvae import VDVAEModel`."""

from .modeling_vdvae import ElboTerms, VDVAEModel

__all__ = ["ElboTerms", "VDVAEModel"]
