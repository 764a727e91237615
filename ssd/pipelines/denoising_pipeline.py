"""What the pipelines of this process have in common: their parts, their arguments, and what a call leaves behind.

Shape letters: B batch, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from diffusers.image_processor import VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

# Imported by their modules' names, which `from_pretrained` resolves when it reads model_index.json.
from flexi_unet.modeling_flexi_unet import FlexiUNet2DModel
from flexi_unet.modeling_resized_unet import ResizedUNet2DModel

from ..operators.placing import to_device
from ..process.posterior import Generators
from ..scheduling_blurring import BlurringScheduler
from ..scheduling_corrective_noise import CorrectiveNoiseScheduler
from ..scheduling_ssd import SSDScheduler
from .components import check_components
from .denoising import Callback, Denoising, guided_steps
from .faults import FirstFaults
from .groups import images_per_call
from .guidance import GuidedNetwork, Labels, check_guide, check_labels
from .initial_state import check_generators
from .samplers import default_steps
from .staged_pipeline import StagedPipeline

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


class DenoisingOptions(TypedDict, total=False):
    """The arguments that all pipelines share; `SSDPipeline.__call__` describes each."""

    num_inference_steps: int | None
    eta: float
    generator: Generators
    class_labels: Labels
    guidance_scale: float
    guidance_start: float
    guidance_end: float
    guide: ModelMixin | None
    output_type: str
    return_dict: bool
    callback_on_step_end: Callback | None
    callback_on_step_end_tensor_inputs: Sequence[str]
    timesteps: Sequence[int] | None
    switches: Sequence[int] | None
    max_batch_size_per_level: int | Sequence[int] | None


class DenoisingPipeline(StagedPipeline):
    """A network and a scheduler, which every pipeline of this process consists of: a folder of one loads as any other.

    Their parameters, attributes and errors are those of `SSDPipeline`.
    """

    model_cpu_offload_seq = "unet"
    _callback_tensor_inputs = ["latents", "pred_original_sample"]  # noqa: RUF012 (diffusers reads a list)
    _num_timesteps: int | None = None
    _interrupt = False
    _guidance_scale = 1.0
    _chain: Sequence[int] = ()
    _faults: FirstFaults | None = None

    def __init__(
        self,
        unet: FlexiUNet2DModel | ResizedUNet2DModel | UNet2DModel,
        scheduler: SSDScheduler | BlurringScheduler | CorrectiveNoiseScheduler,
    ) -> None:
        super().__init__()
        check_components(unet, scheduler)
        self.register_modules(unet=unet, scheduler=scheduler)
        self.image_processor = VaeImageProcessor(vae_scale_factor=1)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **components: Any) -> Any:
        """A pipeline of this class with the parts of another one, which both then use; weights keep their dtype.

        Parameters
        ----------
        pipeline : DenoisingPipeline
        **components
            `unet` or `scheduler` to be used instead.
        """
        return cls(**({"unet": pipeline.unet, "scheduler": pipeline.scheduler} | components))

    @property
    def num_timesteps(self) -> int | None:
        """The number of steps of the last call; None before the first."""
        return self._num_timesteps

    @property
    def guidance_scale(self) -> float:
        """The scale of guidance of the last call, 1 before the first.

        A callback may change it for the steps to come: `pipeline._guidance_scale = 1.0`, as in diffusers.
        """
        return self._guidance_scale

    @property
    def class_names(self) -> list[str] | None:
        """The names by which `class_labels` may be given, in the order of their numbers; None where there are none."""
        return getattr(self.unet, "class_names", None)

    def first_fault(self) -> tuple[int, int] | None:
        """Of the last call, the first image whose prediction was not finite: (its place in the batch, the timestep).

        None if all were finite. It waits for the device once; the call itself never does, and clips infinity to white.
        """
        fault = self._faults.first() if self._faults else None
        return None if fault is None else (fault[0], self._chain[fault[1]])

    @property
    def interrupt(self) -> bool:
        """Whether the last call was told to stop: a callback sets `pipeline._interrupt = True`, as in diffusers.

        The remaining steps are then skipped, and the state x_s is returned as it is: noisy, and at the size of its
        level. With the remaining timesteps an `SSDPipeline` can continue it:
        `pipeline(timesteps=rest, latents=state, ..)`, where `state` was returned with `output_type="latent"`. With
        second order the first of these steps is of first order, since the earlier predictions are gone.
        """
        return self._interrupt

    def _prepare(
        self,
        batch_size: int,
        *,
        num_inference_steps: int | None = None,
        eta: float = 1.0,
        generator: Generators = None,
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
    ) -> Denoising:
        """Check the arguments of a call, and choose its timesteps."""
        # diffusers' own callbacks, PipelineCallback and several of them, say themselves what they need.
        callback_inputs = getattr(callback_on_step_end, "tensor_inputs", callback_on_step_end_tensor_inputs)
        check_components(self.unet, self.scheduler)
        self._check_inputs(batch_size, output_type, callback_inputs)
        check_generators(generator, batch_size)
        self.scheduler.process.check_eta(eta)
        labels = check_labels(self.unet, class_labels, batch_size, guidance_scale if guide is None else 1.0)
        check_guide(self.unet, guide, self._execution_device)
        limits = images_per_call(self.scheduler.resolutions, batch_size, max_batch_size_per_level)
        guided_steps(1, guidance_start, guidance_end)
        if timesteps is None and num_inference_steps is None:
            num_inference_steps = default_steps(self.scheduler)
        self.scheduler.set_timesteps(num_inference_steps, timesteps=timesteps, switches=switches)
        chain = self.scheduler.timesteps.tolist()  # plain integers: the loop never waits for the device
        self._guidance_scale = guidance_scale
        on_device = None if labels is None else to_device(labels, self._execution_device)
        return Denoising(
            pipeline=self,
            chain=chain,
            network=GuidedNetwork(self.unet, on_device, guide=guide),
            batch_size=batch_size,
            eta=eta,
            generator=generator,
            guided=guided_steps(len(chain), guidance_start, guidance_end),
            most_images=limits,
            output_type=output_type,
            return_dict=return_dict,
            callback=callback_on_step_end,
            callback_inputs=callback_inputs,
        )

    def _begin(self, chain: Sequence[int], batch_size: int) -> FirstFaults:
        """Note which timesteps a call visits; returns where faults are noted."""
        self._chain, self._num_timesteps, self._interrupt = chain, len(chain), False
        self._faults = FirstFaults(batch_size, len(chain), self._execution_device)
        return self._faults

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
