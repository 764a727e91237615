"""SSDImageToImagePipeline: a picture goes back into the noise, and is drawn anew from there.

Shape letters: B batch, C channels, H W full resolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput

from ..process.consistency import SmallPicture
from .components import check_scale_space
from .editing import EditingPipeline, HeldPicture
from .levels import checked_level, last_of_level, place_of_strength
from .pictures import Pictures, read_pictures

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .denoising_pipeline import DenoisingOptions


class SSDImageToImagePipeline(EditingPipeline):
    """Pictures drawn anew: with as much of them as their noisy state has, at a share of the chain or at a level.

    "Redraw from a level" keeps what a picture is at that level's size, such as 8 x 8 pixels, and gives it new details:
    variations. With `consistency` the small picture is kept exactly, else as far as the level's last state knows it,
    which is little where levels change early.

    Examples
    --------
    >>> from flexi_unet import FlexiUNet2DModel
    >>> from ssd import SSDScheduler
    >>> unet = FlexiUNet2DModel(sample_size=16, block_out_channels=(32, 32))
    >>> pipe = SSDImageToImagePipeline(unet, SSDScheduler(sample_size=16, num_levels=2))
    >>> pipe.set_progress_bar_config(disable=True)
    >>> pipe(torch.zeros(1, 3, 16, 16), level=1, batch_size=2, num_inference_steps=6, output_type="pt").images.shape
    torch.Size([2, 3, 16, 16])
    """

    @torch.no_grad()
    def __call__(
        self,
        image: Pictures,
        *,
        strength: float | None = None,
        level: int | None = None,
        consistency: bool | None = None,
        batch_size: int | None = None,
        **options: Unpack[DenoisingOptions],
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw pictures anew; give exactly one of `strength` and `level`.

        Parameters
        ----------
        image : PIL picture, array, tensor, or a list of them
            See `read_pictures`. One of another size than the model's is resized, bicubic, and cut to its shape; a
            warning says so.
        strength : float, optional
            In [0, 1], the share of the chain that is left, as in diffusers: 0 is the picture itself, 1 the whole chain,
            from next to pure noise.
        level : int, optional
            Redraw from this level's last state, 0 the finest.
        consistency : bool, optional
            Whether the result, downsampled to the size of the state with which it begins, is the picture, downsampled
            alike: to 1e-3 with output_type="latent" (see `SSDSuperResolutionPipeline`). Not at level 0, where it would
            be the picture itself. Default: with a coarser `level`, and not with a `strength`, as in diffusers.
        batch_size : int, optional
            The number of results, if there is a single picture. Default: one for each picture.
        **options
            As of `SSDPipeline`, but for `latents`. `num_inference_steps` counts the whole chain, from noise.

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
        if (strength is None) == (level is None):
            raise ValueError(f"Give exactly one of strength and level, got {strength} and {level}.")
        if level is not None:
            checked_level(scheduler, level)
        pictures = read_pictures(image, self.unet.config.in_channels)
        x_0 = self._batch(pictures, scheduler.resolutions[0], batch_size, "the model's size")
        denoising = self._prepare(len(x_0), **options)
        chain = denoising.chain
        if level is not None:
            place = last_of_level(scheduler, chain, level)
        else:
            place = place_of_strength(len(chain), strength or 0.0)
        entry = scheduler.process.level(chain[place] if place < len(chain) else -1)
        consistency = bool(level) if consistency is None else consistency
        if consistency and entry == 0:
            raise ValueError(
                "With consistency the picture would stay as it is, since the chain begins at full resolution: give a "
                "coarser level, or more strength."
            )
        if place == len(chain):
            return denoising.output(denoising.run(x_0, place))
        small = SmallPicture.of(scheduler.process, x_0, entry)
        latents = small.state(chain[place], self._noise(small.picture, denoising))
        return denoising.output(denoising.run(latents, place, HeldPicture(small) if consistency else None))
