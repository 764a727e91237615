"""SSDInpaintPipeline: what is behind a mask is drawn anew, and everything else stays.

Shape letters: B batch, C channels, H W full resolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput

from ..process.known_pixels import KnownPixels
from .components import check_scale_space
from .editing import EditingPipeline
from .pictures import Pictures, read_masks, read_pictures

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .denoising_pipeline import DenoisingOptions


class SSDInpaintPipeline(EditingPipeline):
    """Pictures of which a part is drawn anew, from pure noise, at every size (`ssd.process.known_pixels`).

    Examples
    --------
    >>> from flexi_unet import FlexiUNet2DModel
    >>> from ssd import SSDScheduler
    >>> unet = FlexiUNet2DModel(sample_size=16, block_out_channels=(32, 32))
    >>> pipe = SSDInpaintPipeline(unet, SSDScheduler(sample_size=16, num_levels=2))
    >>> pipe.set_progress_bar_config(disable=True)
    >>> image, mask = torch.full((1, 3, 16, 16), 0.25), torch.zeros(1, 1, 16, 16)
    >>> mask[..., 4:9, 4:9] = 1
    >>> result = pipe(image, mask, num_inference_steps=6, output_type="pt").images
    >>> bool((result[:, :, :4] == 0.25).all()), bool((result[:, :, 4:9, 4:9] == 0.25).any())
    (True, False)
    """

    @torch.no_grad()
    def __call__(
        self,
        image: Pictures,
        mask_image: Pictures,
        *,
        resampling_steps: int = 1,
        batch_size: int | None = None,
        **options: Unpack[DenoisingOptions],
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw what is white in the mask anew.

        Parameters
        ----------
        image : PIL picture, array, tensor, or a list of them
            See `read_pictures`. One of another size than the model's is resized, bicubic, and cut to its shape; a
            warning says so.
        mask_image : PIL picture, array, tensor, or a list of them
            White (1) where the picture is drawn anew, black (0) where it stays; from the middle between them on it is
            white. One for each picture, or one for all; resized as pictures are.
        resampling_steps : int
            How often every step is taken, with a step back into the noise in between (arXiv:2201.09865): the new part
            then fits the old one better, for as many times the cost. 1 is off.
        batch_size : int, optional
            The number of results, if there is a single picture. Default: one for each picture.
        **options
            As of `SSDPipeline`, but for `latents`.

        Returns
        -------
        ImagePipelineOutput or tuple
            `.images` as `output_type` says; where the mask is black they are the picture's pixels, bit for bit as 8-bit
            pictures.

        Raises
        ------
        TypeError
            For what is not a picture, and for schedulers other than `SSDScheduler`.
        ValueError
            For an argument that does not fit the model, the schedule or the others.
        """
        scheduler = check_scale_space(self.scheduler, type(self).__name__)
        if resampling_steps < 1:
            raise ValueError(f"resampling_steps must be at least 1, got {resampling_steps}.")
        pictures = read_pictures(image, self.unet.config.in_channels)
        x_0 = self._batch(pictures, scheduler.resolutions[0], batch_size, "the model's size")
        masks = read_masks(mask_image, scheduler.resolutions[0])
        if len(masks) not in (1, len(x_0)):
            raise ValueError(f"mask_image must be one mask, or one for each of {len(x_0)} pictures, got {len(masks)}.")
        unknown = masks.expand(len(x_0), -1, -1, -1).to(x_0.device)
        denoising = self._prepare(len(x_0), **options)
        known = KnownPixels(scheduler.process, x_0, 1 - unknown)
        first = denoising.chain[0]
        noise = self._noise(x_0.new_empty(*x_0.shape[:2], *scheduler.size_at(first)), denoising)
        latents = known.first_state(first, noise)
        return denoising.output(denoising.run(latents, known=known, resampling_steps=resampling_steps))
