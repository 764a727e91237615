"""SSDPipeline: unconditional and class-conditional sampling with Scale Space Diffusion.

Shape letters: B batch, C channels, H W full resolution, h w the size of the current state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput

# Imported by their modules' names, which `from_pretrained` resolves when it reads model_index.json.
from flexi_unet.modeling_flexi_unet import FlexiUNet2DModel
from flexi_unet.modeling_resized_unet import ResizedUNet2DModel

from .operators.placing import to_device
from .pipelines.faults import FirstFaults
from .pipelines.groups import images_per_call, predict_in_groups
from .pipelines.guidance import GuidedNetwork, check_labels
from .pipelines.initial_state import Generators, check_generators, initial_state
from .pipelines.samplers import default_steps
from .pipelines.staged_pipeline import StagedPipeline
from .scheduling_blurring import BlurringScheduler
from .scheduling_corrective_noise import CorrectiveNoiseScheduler
from .scheduling_ssd import SSDScheduler

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


class SSDPipeline(StagedPipeline):
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
    >>> unet = FlexiUNet2DModel(sample_size=16, block_out_channels=(32, 32))
    >>> pipe = SSDPipeline(unet, SSDScheduler(sample_size=16, num_levels=2))
    >>> pipe.set_progress_bar_config(disable=True)
    >>> pipe(batch_size=2, num_inference_steps=3, output_type="pt").images.shape
    torch.Size([2, 3, 16, 16])
    """

    model_cpu_offload_seq = "unet"
    _callback_tensor_inputs = ["latents", "pred_original_sample"]  # noqa: RUF012 (diffusers reads a list)
    _num_timesteps: int | None = None
    _interrupt = False
    _faults: FirstFaults | None = None

    def __init__(
        self,
        unet: FlexiUNet2DModel | ResizedUNet2DModel | UNet2DModel,
        scheduler: SSDScheduler | BlurringScheduler | CorrectiveNoiseScheduler,
    ) -> None:
        super().__init__()
        _check_components(unet, scheduler)
        self.register_modules(unet=unet, scheduler=scheduler)
        self.image_processor = VaeImageProcessor(vae_scale_factor=1)

    @property
    def num_timesteps(self) -> int | None:
        """The number of steps of the last call; None before the first."""
        return self._num_timesteps

    def first_fault(self) -> tuple[int, int] | None:
        """Of the last call, the first image whose prediction was not finite: (its place in the batch, the timestep).

        None if all were finite. It waits for the device once; the call itself never does, and clips infinity to white.
        """
        fault = self._faults.first() if self._faults else None
        return None if fault is None else (fault[0], int(self.scheduler.timesteps[fault[1]]))

    @property
    def interrupt(self) -> bool:
        """Whether the last call was told to stop: a callback sets `pipeline._interrupt = True`, as in diffusers.

        The remaining steps are then skipped, and the state x_s is returned as it is: noisy, and at the size of its
        level. With the remaining timesteps it can be continued:
        `pipeline(timesteps=rest, latents=state, ..)`, where `state` was returned with `output_type="latent"`. With
        second order the first of these steps is of first order, since the earlier predictions are gone.
        """
        return self._interrupt

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        *,
        num_inference_steps: int | None = None,
        eta: float = 1.0,
        generator: Generators = None,
        latents: torch.Tensor | None = None,
        class_labels: Sequence[int] | torch.Tensor | None = None,
        guidance_scale: float = 1.0,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any] | None] | None = None,
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
            B integers, for class-conditional models. The last class embedding stands for "no class": it is accepted,
            and samples without a class.
        guidance_scale : float
            Classifier-free guidance: unconditional + scale * (conditional - unconditional); 1 is off.
        output_type : {"pil", "np", "pt", "latent"}
            PIL images; float arrays (B, H, W, C) in [0, 1]; tensors (B, C, H, W) in [0, 1]; tensors as the
            process leaves them, about [-1, 1].
        return_dict : bool
            Whether to return an `ImagePipelineOutput` rather than a tuple.
        callback_on_step_end : callable, optional
            Called as (pipeline, step index, timestep, tensors) after every step. It may return new `latents`, and
            stop the sampling by `pipeline._interrupt = True`, see `interrupt`.
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
        _check_components(self.unet, self.scheduler)
        self._check_inputs(batch_size, output_type, callback_on_step_end_tensor_inputs)
        check_generators(generator, batch_size)
        self.scheduler.process.check_eta(eta)
        labels = check_labels(self.unet, class_labels, batch_size, guidance_scale)
        limits = images_per_call(self.scheduler.resolutions, batch_size, max_batch_size_per_level)
        if timesteps is None and num_inference_steps is None:
            num_inference_steps = default_steps(self.scheduler)
        self.scheduler.set_timesteps(num_inference_steps, timesteps=timesteps, switches=switches)
        chain = self.scheduler.timesteps.tolist()  # plain integers: the loop never waits for the device
        self._num_timesteps, self._interrupt = len(chain), False

        device = self._execution_device
        self._faults = faults = FirstFaults(batch_size, len(chain), device)
        timesteps_on_device = to_device(self.scheduler.timesteps, device)
        network = GuidedNetwork(self.unet, None if labels is None else to_device(labels, device), guidance_scale)
        shape = (batch_size, self.unet.config.in_channels, *self.scheduler.size_at(chain[0]))
        latents = initial_state(shape, generator, latents, device)

        for index, t in enumerate(self.progress_bar(chain)):
            if self.interrupt:
                continue
            output_size = self.scheduler.prediction_size(t)
            timestep = timesteps_on_device[index : index + 1]
            network_input = self.scheduler.scale_model_input(latents, t)
            prediction = predict_in_groups(network, network_input, timestep, output_size, limits[output_size])
            faults.note(index, prediction)
            latents, pred_original_sample = self.scheduler.step(
                prediction, t, latents, eta=eta, generator=generator, return_dict=False
            )
            if callback_on_step_end is not None:
                tensors = {"latents": latents, "pred_original_sample": pred_original_sample}
                wanted = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
                latents = (callback_on_step_end(self, index, t, wanted) or {}).get("latents", latents)

        images = self.image_processor.postprocess(latents, output_type=output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _check_inputs(self, batch_size: int, output_type: str, callback_inputs: Sequence[str]) -> None:
        """Raise a ValueError for arguments that do not fit."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}, got {output_type!r}.")
        unknown = [name for name in callback_inputs if name not in self._callback_tensor_inputs]
        if unknown:
            allowed = ", ".join(self._callback_tensor_inputs)
            raise ValueError(f"callback_on_step_end_tensor_inputs may hold {allowed}, got {unknown}.")


def _check_components(unet: Any, scheduler: Any) -> None:
    """Raise an error with the way out unless the scheduler is ours and fits the network.

    They are known by what they can do: in a self-contained folder (`ssd.publishing.self_contained`) every class has a
    file of its own, and no file has the classes of another.
    """
    if not hasattr(scheduler, "prediction_size"):
        raise TypeError(
            f"SSDPipeline needs an SSDScheduler, got {type(scheduler).__name__}, which never resizes: keep the "
            "pipeline's own scheduler, and call the pipeline with eta=0 for DDIM's steps or eta=1 for DDPM's."
        )
    if unet.config.in_channels != unet.config.out_channels:
        raise ValueError(
            f"The network predicts {unet.config.out_channels} channels for images of {unet.config.in_channels}: "
            "SSDPipeline needs one that predicts images, and nothing else."
        )
    sizes, name = scheduler.resolutions, type(unet).__name__
    if len(sizes) > 1 and not hasattr(unet, "working_sizes"):
        raise ValueError(
            f"A {name} cannot enlarge an image, and this scheduler has {len(sizes)} levels: use a FlexiUNet2DModel, a "
            "ResizedUNet2DModel, or SSDScheduler(num_levels=1)."
        )
    side = unet.config.sample_size
    full = sizes[0] if side is None else (side, side) if isinstance(side, int) else (side[0], side[1])
    if sizes[0] != full:
        raise ValueError(
            f"The scheduler's images are {sizes[0][0]} x {sizes[0][1]} and the network's {full[0]} x {full[1]}: build "
            f"the scheduler with sample_size={full}."
        )
