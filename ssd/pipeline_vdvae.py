"""VDVAEPipeline: images from a hierarchical variational autoencoder, in one pass from coarse to fine.

Shape letters: B batch, C channels, S the image's side, N grey levels of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput

# Imported by its module's name, which `from_pretrained` resolves when it reads model_index.json.
from vdvae.modeling_vdvae import VDVAEModel
from vdvae.noise import Generators
from vdvae.top_down import TopDownOutput

from .pipelines.staged_pipeline import StagedPipeline

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


class VDVAEPipeline(StagedPipeline):
    """Images of VDVAE or WS-VDVAE.

    Parameters
    ----------
    vdvae : VDVAEModel

    Examples
    --------
    >>> pipe = VDVAEPipeline(VDVAEModel(8, 1, "8x1,8d2,4x1", "4x1,8m4", width=8, latent_channels=2, num_mixtures=2))
    >>> generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    >>> pipe(2, temperature=[0.7, 1.0], generator=generators, output_type="pt").images.shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(self, vdvae: VDVAEModel) -> None:
        super().__init__()
        self.register_modules(vdvae=vdvae)
        self.image_processor = VaeImageProcessor(vae_scale_factor=1)

    @property
    def resolutions(self) -> list[int]:
        """The sides of the top-down pass's states, coarse to fine."""
        return sorted({spec.resolution for spec in self.vdvae.cells})

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        *,
        temperature: float | Sequence[float] = 1.0,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Sample images.

        Parameters
        ----------
        batch_size : int
            B, the number of images; the other arguments are given by name.
        temperature : float or sequence of float
            The factor of the prior's scale, at least 0: one number, or one for each of `resolutions`, coarse to fine.
            The likelihood of the pixels is always sampled as it is.
        generator : optional
            One generator, or a list or tuple of B: then every image depends on its own generator alone.
        output_type : {"pil", "np", "pt", "latent"}
            PIL images; float arrays (B, S, S, C) in [0, 1]; tensors (B, C, S, S) in [0, 1]; tensors in [-1, 1].
        return_dict : bool
            Whether to return an `ImagePipelineOutput` rather than a tuple.

        Returns
        -------
        ImagePipelineOutput or tuple
            `.images` as `output_type` says.

        Raises
        ------
        ValueError
            For an argument that does not fit the model or the others.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}, got {output_type!r}.")
        images = self.pixels(self.top_down(batch_size, temperature, generator), generator)
        images = self.image_processor.postprocess(images, output_type=output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    @torch.no_grad()
    def top_down(
        self, batch_size: int, temperature: float | Sequence[float] = 1.0, generator: Generators = None
    ) -> TopDownOutput:
        """The pass from the prior, with the state after every cell: the first half of a call."""
        temperatures = self.temperatures_of_cells(temperature)
        return self.vdvae.decode(
            batch_size=batch_size, temperature=temperatures, generator=generator, return_states=True
        )

    @torch.no_grad()
    def pixels(self, out: TopDownOutput, generator: Generators = None) -> torch.Tensor:
        """Pixels (B, C, S, S), float32 in [-1, 1], drawn from the likelihood: the second half of a call."""
        return from_grey_levels(self.vdvae.sample_images(out, generator=generator), grey_levels(self.vdvae))

    def temperatures_of_cells(self, temperature: float | Sequence[float]) -> list[float]:
        """The temperature of every cell applied.

        Raises
        ------
        ValueError
            For numbers below 0, or not one for each of `resolutions`.
        """
        sides = self.resolutions
        values = [float(temperature)] * len(sides) if isinstance(temperature, (int, float)) else list(temperature)
        if len(values) != len(sides):
            raise ValueError(
                f"temperature needs one number, or one for each of the resolutions {', '.join(map(str, sides))}; got "
                f"{len(values)}."
            )
        if not all(value >= 0 for value in values):
            raise ValueError(f"temperature must be at least 0, got {temperature}.")
        of_side = dict(zip(sides, values))
        return [float(of_side[spec.resolution]) for spec in self.vdvae.cells]


def grey_levels(model: VDVAEModel) -> int:
    """N, the grey levels of a model's images."""
    return int(model.config.input_levels or model.config.levels)


def to_grey_levels(x: torch.Tensor, levels: int) -> torch.Tensor:
    """Numbers in [-1, 1] -> the nearest of the integers 0..levels-1, int64.

    Examples
    --------
    >>> to_grey_levels(torch.tensor([-1.0, 0.0, 1.0]), 17)
    tensor([ 0,  8, 16])
    """
    return ((x.clamp(-1, 1) + 1) * ((levels - 1) / 2)).round().long()


def from_grey_levels(images: torch.Tensor, levels: int) -> torch.Tensor:
    """Integers 0..levels-1 -> float32 in [-1, 1]; `to_grey_levels` gives the same integers back."""
    return images.float() * (2 / (levels - 1)) - 1
