"""A pipeline's network as a differentiable map from x_t to D_s x_0, for its Jacobian."""

from __future__ import annotations

import torch
from diffusers.models.modeling_utils import ModelMixin

from ..scheduling_ssd import SSDScheduler


class NetworkMap:
    """g: what the network predicts of D_s x_0 from x_t, s = t - 1, not clipped.

    Parameters
    ----------
    scheduler : SSDScheduler
    unet : ModelMixin
        Its weights need no gradients; it computes in its own dtype, whatever that of the images.
    t : int
    label : int, optional
        The class, for class-conditional networks.
    """

    def __init__(self, scheduler: SSDScheduler, unet: ModelMixin, t: int, label: int | None = None) -> None:
        self._scheduler, self._unet, self._t, self._label = scheduler, unet, t, label

    def __call__(self, x_t: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B, C, H, W)."""
        t, s, process = self._t, self._t - 1, self._scheduler.process
        size = process.prediction_size(t, s)
        grows = {} if tuple(x_t.shape[-2:]) == size else {"output_size": size}
        labels = None if self._label is None else torch.full((len(x_t),), self._label, device=x_t.device)
        timestep = torch.tensor([t], device=x_t.device)
        seen = self._scheduler.scale_model_input(x_t, t)
        output = self._unet(seen.to(self._unet.dtype), timestep, labels, return_dict=False, **grows)[0].to(x_t.dtype)
        clean = process.clean_image(self._scheduler.config.prediction_type, output, x_t, t, s)
        return process.from_target(clean, s)
