"""A pipeline's network as a denoiser of given images: how far its predictions are from the truth.

Shape letters: B images, C channels; H W the full resolution, h w the size of x_s.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..operators.placing import to_device
from ..pipeline_ssd import SSDPipeline
from ..pipelines.guidance import GuidedNetwork, check_labels
from ..process.diffusion import Timestep
from ..process.posterior import Generators, white_noise
from ..scheduling_ssd import SSDScheduler


class Denoiser:
    """What a pipeline predicts of images made noisy.

    Parameters
    ----------
    pipeline : SSDPipeline
        Of an `SSDScheduler`.

    Raises
    ------
    ValueError
        For another process.
    """

    def __init__(self, pipeline: SSDPipeline) -> None:
        if not isinstance(pipeline.scheduler, SSDScheduler):
            raise ValueError(
                f"This is for models of an SSDScheduler, and this one has a {type(pipeline.scheduler).__name__}."
            )
        self.scheduler: SSDScheduler = pipeline.scheduler
        self.process = self.scheduler.process
        self.unet = pipeline.unet
        self.device = pipeline.device

    def error(
        self,
        x_0: torch.Tensor,
        s: Timestep,
        t: Timestep,
        generator: Generators = None,
        labels: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """e = D_s x_0 - x_hat, with x_hat the prediction, clipped as in sampling, from one draw of x_t.

        Parameters
        ----------
        x_0 : torch.Tensor
            Clean images, (B, C, H, W), float32, values in [-1, 1], on the pipeline's device.
        s, t : int or torch.Tensor
            s < t; one of each, or (B,) on the CPU, of one pair of levels.
        generator : optional
            Of the noise of x_t.
        labels : sequence of int, optional
            B classes, for class-conditional models.

        Returns
        -------
        torch.Tensor
            (B, C, h, w), float32.
        """
        x_t = self.noisy(x_0, t, generator)
        return self.error_of(self.prediction(x_t, s, t, labels), x_0, s)

    def noisy(self, x_0: torch.Tensor, t: Timestep, generator: Generators = None) -> torch.Tensor:
        """One draw of x_t, (B, C, h, w) at the size of t."""
        shape = (len(x_0), x_0.shape[1], *self.process.size(t))
        return self.process.marginal_sample(x_0, t, white_noise(x_0.new_empty(shape), generator))

    def prediction(
        self, x_t: torch.Tensor, s: Timestep, t: Timestep, labels: Sequence[int] | None = None
    ) -> torch.Tensor:
        """The network's clean image from x_t on the way to x_s, clipped as in sampling: (B, C, h, w)."""
        classes = check_labels(self.unet, labels, len(x_t), 1.0)
        network = GuidedNetwork(self.unet, None if classes is None else to_device(classes, self.device))
        timestep = to_device(torch.as_tensor(t).reshape(-1), self.device)
        size = self.process.prediction_size(t, s)
        output = network(self.scheduler.scale_model_input(x_t, t), timestep, size)
        return self.scheduler.clean_image(output, x_t, t, s)

    def error_of(self, clean: torch.Tensor, x_0: torch.Tensor, s: Timestep) -> torch.Tensor:
        """D_s x_0 - x_hat of any prediction of the clean image at the level of s."""
        return self.process.degrade(x_0, s) - self.process.from_target(clean, s)
