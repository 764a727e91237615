"""A mixture of discretised logistic distributions (PixelCNN++, Salimans et al., arXiv:1701.05517), normalised exactly.

The channels of a pixel share the component. In colour, green's mean is moved by a multiple of red, and blue's by
multiples of red and green.

The probability of the interval (a, b), in units of the scale, is

    log(sigmoid(b) - sigmoid(a)) = log sigmoid(b) + log sigmoid(-a) + log(1 - exp(a - b)),

which has neither a difference of nearly equal numbers nor a case to tell apart; ours.

Shape letters: B batch, C image channels (1 or 3), K components, H W the image's size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..precision import at_least_float32
from .pixels import MIN_LOG_SCALE, Pixels, inside_unit


class LogisticMixtureHead:
    """The mixture; see `Head`.

    The parameters are K logits, and then per channel K means, K log scales and, in colour, K coefficients before their
    tanh: 10 K in colour, 3 K in grey. The uniform numbers are K for the component, and C for the channels.
    """

    def __init__(self, in_channels: int, num_mixtures: int, pixels: Pixels) -> None:
        if in_channels not in (1, 3):
            raise ValueError(f"likelihood logistic_mixture needs 1 or 3 channels, got {in_channels}.")
        if num_mixtures < 1:
            raise ValueError(f"num_mixtures must be at least 1, got {num_mixtures}.")
        self.in_channels, self.num_mixtures, self.pixels = in_channels, num_mixtures, pixels
        self._kinds = 3 if in_channels == 3 else 2
        self.num_parameters = num_mixtures * (1 + self._kinds * in_channels)
        self.num_uniforms = num_mixtures + in_channels

    def log_prob(self, parameters: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """See `Head`."""
        logits, means, log_scales, coefficients = self._split(parameters)
        x = self.target(images, means.dtype).unsqueeze(2)
        if coefficients is not None:
            means = torch.stack([_chained_mean(means, coefficients, x, channel) for channel in range(3)], dim=1)
        of_components = self.log_bin(x, means, log_scales).sum(dim=1)
        return torch.logsumexp(of_components + F.log_softmax(logits, dim=1), dim=1)

    def sample(self, parameters: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        """See `Head`."""
        logits, means, log_scales, coefficients = self._split(parameters)
        uniforms = inside_unit(uniforms.to(logits.dtype))
        choice, logistic = uniforms.split([self.num_mixtures, self.in_channels], dim=1)
        component = (logits - (-choice.log()).log()).argmax(dim=1)[:, None, None]

        def chosen(x: torch.Tensor) -> torch.Tensor:  # (B, C, K, H, W) -> (B, C, 1, H, W)
            return x.gather(2, component.expand(-1, x.shape[1], -1, -1, -1))

        means, log_scales = chosen(means), chosen(log_scales)
        spread = log_scales.exp() * torch.logit(logistic).unsqueeze(2)
        coefficients = None if coefficients is None else chosen(coefficients)
        drawn: list[torch.Tensor] = []
        for channel in range(self.in_channels):
            mean = means[:, channel]
            if coefficients is not None and drawn:
                mean = _chained_mean(means, coefficients, torch.stack(drawn, dim=1), channel)
            drawn.append(self.snap(mean + spread[:, channel]))
        return self.to_values(torch.cat(drawn, dim=1))

    def target(self, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Images -> the centres of their levels, in [-1, 1]."""
        return self.pixels.centre(self.pixels.level(images), dtype)

    def log_bin(self, x: torch.Tensor, means: torch.Tensor, log_scales: torch.Tensor) -> torch.Tensor:
        """Log probability of the interval around the centre x, per component."""
        inverse_scale = (-log_scales).exp()
        half_width = self.pixels.half_width
        lower, upper = (x - means - half_width) * inverse_scale, (x - means + half_width) * inverse_scale
        width = -torch.expm1(-2 * half_width * inverse_scale)
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + width.clamp_min(torch.finfo(x.dtype).tiny).log()
        first, last = x < half_width - 1, x > 1 - half_width
        return torch.where(first, F.logsigmoid(upper), torch.where(last, F.logsigmoid(-lower), inside))

    def snap(self, x: torch.Tensor) -> torch.Tensor:
        """A number of the line -> what the next channels see of it: the centre of its interval."""
        return self.pixels.centre(self.pixels.nearest(x), x.dtype)

    def to_values(self, x: torch.Tensor) -> torch.Tensor:
        """Snapped numbers -> values of images."""
        return self.pixels.value(self.pixels.nearest(x))

    def _split(self, parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Logits (B, K, H, W), and means, log scales and coefficients (B, C, K, H, W)."""
        parameters = at_least_float32(parameters)
        logits, rest = parameters[:, : self.num_mixtures], parameters[:, self.num_mixtures :]
        kinds = rest.unflatten(1, (self.in_channels, self._kinds, self.num_mixtures)).unbind(dim=2)
        coefficients = torch.tanh(kinds[2]) if self._kinds == 3 else None
        return logits, kinds[0], kinds[1].clamp_min(MIN_LOG_SCALE), coefficients


def _chained_mean(means: torch.Tensor, coefficients: torch.Tensor, x: torch.Tensor, channel: int) -> torch.Tensor:
    """The mean of one colour given those before it, (B, K, H, W); x (B, 3, 1, H, W), of which those are read."""
    if channel == 0:
        return means[:, 0]
    if channel == 1:
        return means[:, 1] + coefficients[:, 0] * x[:, 0]
    return means[:, 2] + coefficients[:, 1] * x[:, 0] + coefficients[:, 2] * x[:, 1]
