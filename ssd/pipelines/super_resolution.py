"""SSDSuperResolutionPipeline: a small picture grows, from its own level of the chain.

Shape letters: B batch, C channels, h w the size of the level at which the picture enters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput

from ..process.consistency import SmallPicture
from .components import check_scale_space
from .editing import EditingPipeline, HeldPicture
from .levels import last_of_level, level_to_grow_from
from .pictures import SMALL, Pictures, read_pictures

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .denoising_pipeline import DenoisingOptions


class SSDSuperResolutionPipeline(EditingPipeline):
    """Small pictures grow to the full resolution.

    A picture y of a level is, in this process, all that the clean image is there. So the chain begins with the last
    state of that level, from which it grows,

        x_t = a_t D_t x_0 + sigma_t noise,    D_t x_0 = y

    and goes on as always. That state is mostly noise, which hides nearly all of y where levels change early; with
    `consistency`, the default, nothing of y is lost (`ssd.process.consistency`).
    Any `SSDPipeline` with several levels can do it: `from_pretrained` of its folder, or `from_pipe`.

    Examples
    --------
    >>> from flexi_unet import FlexiUNet2DModel
    >>> from ssd import SSDScheduler
    >>> unet = FlexiUNet2DModel(sample_size=16, block_out_channels=(32, 32))
    >>> pipe = SSDSuperResolutionPipeline(unet, SSDScheduler(sample_size=16, num_levels=2))
    >>> pipe.set_progress_bar_config(disable=True)
    >>> pipe(torch.zeros(1, 3, 8, 8), num_inference_steps=6, output_type="pt").images.shape
    torch.Size([1, 3, 16, 16])
    """

    @torch.no_grad()
    def __call__(
        self,
        image: Pictures,
        *,
        level: int | None = None,
        factor: float | None = None,
        consistency: bool = True,
        batch_size: int | None = None,
        **options: Unpack[DenoisingOptions],
    ) -> ImagePipelineOutput | tuple[Any]:
        """Let pictures grow.

        Parameters
        ----------
        image : PIL picture, array, tensor, or a list of them
            See `read_pictures`. One of another size than the level's is resized, antialiased and bilinear as the
            process does it, and cut to its shape; a warning says so.
        level : int, optional
            The level at which they enter, 1 for the second finest, and so on. Default: the nearest to the first
            picture's number of pixels.
        factor : float, optional
            How many times larger the result will be, instead of `level`.
        consistency : bool
            Whether the result, downsampled again as the process does, is the picture: to 1e-3 with
            output_type="latent". The other types clip at black and white. A picture that is sharper than the process's
            downsampling leaves any would need more: it becomes too sharp itself, and is met less well where it is
            clipped. `scheduler.process.degrade` makes small pictures as the process does.
        batch_size : int, optional
            The number of results, if there is a single picture. Default: one for each picture.
        **options
            As of `SSDPipeline`, but for `latents`. `num_inference_steps` counts the whole chain, from noise, of which
            the steps before the level are left out.

        Returns
        -------
        ImagePipelineOutput or tuple
            `.images` as `output_type` says.

        Raises
        ------
        TypeError
            For what is not a picture, and for schedulers other than `SSDScheduler`.
        ValueError
            For an argument that does not fit the model, the schedule or the others.
        """
        scheduler = check_scale_space(self.scheduler, type(self).__name__)
        pictures = read_pictures(image, self.unet.config.in_channels)
        height, width = pictures[0].shape[-2:]
        entry = level_to_grow_from(scheduler, (height, width), level, factor)
        y = self._batch(pictures, scheduler.resolutions[entry], batch_size, f"level {entry}", SMALL)
        denoising = self._prepare(len(y), **options)
        small = SmallPicture(scheduler.process, y, entry)
        place = last_of_level(scheduler, denoising.chain, entry)
        latents = small.state(denoising.chain[place], self._noise(y, denoising))
        return denoising.output(denoising.run(latents, place, HeldPicture(small) if consistency else None))
