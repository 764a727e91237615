"""SSDPipeline: unconditional and class-conditional sampling with Scale Space Diffusion.

Shape letters: B batch, C channels, H W full resolution, h w the size of the current state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput

from .pipelines.denoising import Callback
from .pipelines.denoising_pipeline import DenoisingPipeline
from .pipelines.guidance import Labels
from .pipelines.initial_state import Generators, initial_state


class SSDPipeline(DenoisingPipeline):
    """Images from noise, coarse to fine.

    Parameters
    ----------
    unet : FlexiUNet2DModel, ResizedUNet2DModel or UNet2DModel
        A `UNet2DModel` cannot enlarge an image, so it needs a scheduler of one level.
    scheduler : SSDScheduler, BlurringScheduler or CorrectiveNoiseScheduler
        Its `sample_size` must be the network's.

    Attributes
    ----------
    image_processor : VaeImageProcessor
        Turns tensors in [-1, 1] into the output types.

    Raises
    ------
    TypeError
        When the scheduler is not one of ours.
    ValueError
        When the network and the scheduler do not fit.

    Examples
    --------
    >>> from flexi_unet import FlexiUNet2DModel
    >>> from ssd import SSDScheduler
    >>> unet = FlexiUNet2DModel(sample_size=16, block_out_channels=(32, 32))
    >>> pipe = SSDPipeline(unet, SSDScheduler(sample_size=16, num_levels=2))
    >>> pipe.set_progress_bar_config(disable=True)
    >>> pipe(batch_size=2, num_inference_steps=3, output_type="pt").images.shape
    torch.Size([2, 3, 16, 16])
    """

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        *,
        num_inference_steps: int | None = None,
        eta: float = 1.0,
        generator: Generators = None,
        latents: torch.Tensor | None = None,
        class_labels: Labels = None,
        guidance_scale: float = 1.0,
        guidance_start: float = 0.0,
        guidance_end: float = 1.0,
        guide: ModelMixin | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        timesteps: Sequence[int] | None = None,
        switches: Sequence[int] | None = None,
        max_batch_size_per_level: int | Sequence[int] | None = None,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Sample images.

        Parameters
        ----------
        batch_size : int
            B, the number of images; the other arguments are given by name.
        num_inference_steps : int, optional
            The number of steps, at least the number of levels. Default: 20 with second order, at least 3 per level;
            100 with first order.
        eta : float
            In [0, 1]: 1 is ancestral sampling, 0 DDIM's deterministic step within a level.
        generator : optional
            One generator, or a list or tuple of B: then every image depends on its own generator alone.
        latents : torch.Tensor, optional
            The state x_t at the first timestep, (B, C, h, w), instead of noise.
        class_labels : optional
            B classes, for class-conditional models, or one for all images: numbers, or names where the network's
            configuration has them (`class_names`). The number of "no class" (`no_class_label` in the configuration) is
            accepted, too, and samples without a class.
        guidance_scale : float
            The strength of guidance, away from the same network without a class (classifier-free guidance), or from
            `guide`; 1 is off. Guided steps cost two calls of a network.
        guidance_start, guidance_end : float
            The part of the chain that is guided, as shares of its steps: 0 is the first step, from noise, 1 the end.
            Guidance in the middle alone can keep more variety (arXiv:2404.07724).
        guide : ModelMixin, optional
            A weaker network for the same task, such as one of an earlier checkpoint, away from which guidance leads
            (autoguidance, arXiv:2406.02507), with classes or without. It must be on the pipeline's device, and predict
            what the pipeline's network does, for the same process.
        output_type : {"pil", "np", "pt", "latent"}
            PIL images; float arrays (B, H, W, C) in [0, 1]; tensors (B, C, H, W) in [0, 1]; tensors as the
            process leaves them, about [-1, 1].
        return_dict : bool
            Whether to return an `ImagePipelineOutput` rather than a tuple.
        callback_on_step_end : callable, optional
            Called as (pipeline, step index, timestep, tensors) after every step. It may return new `latents`, and
            stop the sampling by `pipeline._interrupt = True`, see `interrupt`. diffusers' `PipelineCallback` objects
            are welcome; their `tensor_inputs` count.
        callback_on_step_end_tensor_inputs : sequence of str
            Which of "latents" (x_s) and "pred_original_sample" (prediction of D_s x_0) it receives.
        timesteps : sequence of int, optional
            An explicit descending list instead of `num_inference_steps`.
        switches : sequence of int, optional
            The first timestep of every coarser level, for this call: earlier ones are faster. A model that was trained
            with `switch_jitter` takes any within `scheduler.switch_bands`, others their own alone.
        max_batch_size_per_level : int or sequence of int, optional
            Images per call of the network where the batch is larger: one number for every level, fine to coarse;
            or one number n for the full resolution, and n 4^l at level l, which has as many pixels. Default: the whole
            batch at once. It changes speed and memory, not the images (but for the rounding of last bits, see
            docs/performance.md).

        Returns
        -------
        ImagePipelineOutput or tuple
            `.images` as `output_type` says.

        Raises
        ------
        TypeError
            When `scheduler` was replaced by one of diffusers.
        ValueError
            For an argument that does not fit the model, the schedule or the others.
        """
        denoising = self._prepare(
            batch_size,
            num_inference_steps=num_inference_steps,
            eta=eta,
            generator=generator,
            class_labels=class_labels,
            guidance_scale=guidance_scale,
            guidance_start=guidance_start,
            guidance_end=guidance_end,
            guide=guide,
            output_type=output_type,
            return_dict=return_dict,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
            timesteps=timesteps,
            switches=switches,
            max_batch_size_per_level=max_batch_size_per_level,
        )
        shape = (batch_size, self.unet.config.in_channels, *self.scheduler.size_at(denoising.chain[0]))
        return denoising.output(denoising.run(initial_state(shape, generator, latents, self._execution_device)))
