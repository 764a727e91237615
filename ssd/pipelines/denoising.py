"""The loop that all pipelines share: from a state to the image, step by step, with guidance and corrections.

Shape letters: B batch, C channels; H W full resolution, h w the size of the current state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput

from ..operators.placing import to_device
from ..operators.sizes import Size
from ..process.posterior import Generators
from ..process.transition import transition
from .groups import predict_in_groups
from .guidance import GuidedNetwork

if TYPE_CHECKING:
    from .denoising_pipeline import DenoisingPipeline

Callback = Callable[..., "dict[str, Any] | None"]


class Known(Protocol):
    """What is known of the images, and holds in every step."""

    def prediction(self, x_hat: torch.Tensor, s: int) -> torch.Tensor:
        """A prediction of the clean image of the level of s, (B, C, h, w), corrected by what is known."""

    def state(self, x_s: torch.Tensor, s: int, generator: Generators) -> torch.Tensor:
        """A state x_s, (B, C, h, w), s >= 0, corrected by what is known."""


@dataclass(frozen=True)
class Denoising:
    """The chain of one call of a pipeline, and how its steps are taken; every argument is checked already.

    Attributes
    ----------
    pipeline : DenoisingPipeline
    chain : list of int
        All timesteps of the call, descending.
    network : GuidedNetwork
    batch_size : int
        B.
    eta : float
    generator : torch.Generator or sequence of B torch.Generator, optional
    guided : sequence of bool
        At which of the timesteps there is guidance.
    most_images : dict
        Size of the network's output -> the most images of one call.
    output_type, return_dict, callback, callback_inputs
        See `SSDPipeline`.
    """

    pipeline: DenoisingPipeline
    chain: list[int]
    network: GuidedNetwork
    batch_size: int
    eta: float
    generator: Generators
    guided: Sequence[bool]
    most_images: dict[Size, int]
    output_type: str
    return_dict: bool
    callback: Callback | None
    callback_inputs: Sequence[str]

    def run(
        self, latents: torch.Tensor, first: int = 0, known: Known | None = None, resampling_steps: int = 1
    ) -> torch.Tensor:
        """The images, (B, C, H, W), or the last state of a call that was stopped.

        Parameters
        ----------
        latents : torch.Tensor
            The state x_t at chain[first], (B, C, h, w).
        first : int
            The place in the chain from which it goes on.
        known : Known, optional
        resampling_steps : int
            How often every step is taken: in between the state goes back to x_t by the forward process, so that what is
            known and what is not get used to each other (arXiv:2201.09865, algorithm 1).
        """
        pipeline, chain = self.pipeline, self.chain[first:]
        faults = pipeline._begin(chain, self.batch_size)
        timesteps = to_device(torch.tensor(chain), pipeline._execution_device)
        for index, t in enumerate(pipeline.progress_bar(chain)):
            if pipeline.interrupt:
                continue
            network = self.network.with_scale(pipeline.guidance_scale if self.guided[first + index] else 1.0)
            s = pipeline.scheduler.previous_timestep(t)
            for repeat in range(resampling_steps):
                if repeat:
                    latents = transition(pipeline.scheduler.process, latents, s, t).sample(self.generator)
                prediction = self.predict(network, latents, t, timesteps[index : index + 1])
                faults.note(index, prediction)
                latents, pred_original_sample = self._step(prediction, t, s, latents, known)
            if self.callback is not None:
                tensors = {"latents": latents, "pred_original_sample": pred_original_sample}
                wanted = {name: tensors[name] for name in self.callback_inputs}
                latents = (self.callback(pipeline, index, t, wanted) or {}).get("latents", latents)
        return latents

    def output(self, latents: torch.Tensor) -> ImagePipelineOutput | tuple[Any]:
        """The result of the call."""
        images = self.pipeline.image_processor.postprocess(latents, output_type=self.output_type)
        self.pipeline.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if self.return_dict else (images,)

    def predict(self, network: GuidedNetwork, x_t: torch.Tensor, t: int, timestep: torch.Tensor) -> torch.Tensor:
        """The network's output for x_t, (B, C, h, w); `timestep` is t as a tensor (1,) on the device."""
        scheduler = self.pipeline.scheduler
        size = scheduler.prediction_size(t)
        return predict_in_groups(network, scheduler.scale_model_input(x_t, t), timestep, size, self.most_images[size])

    def _step(
        self, prediction: torch.Tensor, t: int, s: int, x_t: torch.Tensor, known: Known | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x_s, and the prediction of the clean image from which it was drawn."""
        x_s, clean = self.pipeline.scheduler.step(
            prediction,
            t,
            x_t,
            eta=self.eta,
            generator=self.generator,
            return_dict=False,
            correction=None if known is None else known.prediction,
        )
        return (x_s if known is None or s == -1 else known.state(x_s, s, self.generator)), clean


def guided_steps(number: int, start: float, end: float) -> list[bool]:
    """At which of `number` steps there is guidance: step i where start <= i / number < end (arXiv:2404.07724).

    Raises
    ------
    ValueError
        Unless 0 <= start <= end <= 1.

    Examples
    --------
    >>> guided_steps(4, 0.25, 1.0)
    [False, True, True, True]
    """
    if not 0 <= start <= end <= 1:
        raise ValueError(
            f"guidance_start and guidance_end are shares of the chain, 0 <= start <= end <= 1, got {start} and {end}."
        )
    return [start <= index / number < end for index in range(number)]
