"""The published VDVAE computed again, plainly: from its settings and its state dict, without a single module of ours.

Used where there are no golden tensors. On the golden networks it is tested itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

Weights = Mapping[str, torch.Tensor]


def applications(text: str) -> list[tuple[int, str, int]]:
    """ "8x2,8d4" -> [(8, "x", 1), (8, "x", 1), (8, "d", 4)]; N x counts as N blocks."""
    blocks = []
    for part in text.split(","):
        for letter in "xdm":
            if letter in part:
                side, number = map(int, part.split(letter))
                blocks += [(side, "x", 1)] * number if letter == "x" else [(side, letter, number)]
                break
        else:
            blocks.append((int(part), "x", 1))
    return blocks


class PlainVDVAE:
    """Functions of a published network.

    `shared` maps "enc" and "dec" to {position: position of the block whose weights it uses}, as in the golden data.
    """

    def __init__(self, hparams: Mapping[str, Any], weights: Weights, shared: Mapping[str, Mapping[str, int]] | None):
        self.hparams, self.weights, self.shared = hparams, weights, shared or {"enc": {}, "dec": {}}
        pairs = [pair.split(":") for pair in hparams.get("custom_width_str", "").split(",") if pair]
        self.widths = {int(side): int(width) for side, width in pairs}

    def conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight = self.weights[f"{name}.weight"]
        return F.conv2d(x, weight, self.weights[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def block(self, name: str, x: torch.Tensor) -> torch.Tensor:
        for number in (1, 2, 3, 4):
            x = self.conv(f"{name}.c{number}", 0.5 * x * (1 + torch.erf(x / math.sqrt(2))))
        return x

    def width(self, side: int) -> int:
        return self.widths.get(side, self.hparams["width"])

    def bottom_up(self, x: torch.Tensor) -> dict[int, torch.Tensor]:
        h = self.conv("encoder.in_conv", x)
        activations = {h.shape[-1]: h}
        for position, (_, kind, number) in enumerate(applications(self.hparams["enc_blocks"])):
            position = self.shared["enc"].get(str(position), position)
            h = h + self.block(f"encoder.enc_blocks.{position}", h)
            if kind == "d":
                batch, channels, side, _ = h.shape
                coarse = side // number
                h = h.reshape(batch, channels, coarse, number, coarse, number).mean(dim=(3, 5))
                zeros = h.new_zeros(batch, self.width(coarse) - channels, coarse, coarse)
                h = torch.cat([h, zeros], dim=1)
            activations[h.shape[-1]] = h
        return activations

    def top_down(
        self,
        noise: Sequence[torch.Tensor],
        activations: Mapping[int, torch.Tensor] | None = None,
        temperature: float = 1.0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """px_z, and the KL of every cell in nats per image."""
        zdim, blocks = self.hparams["zdim"], applications(self.hparams["dec_blocks"])
        sides = sorted({side for side, _, _ in blocks})
        states = {
            side: self.weights[f"decoder.bias_xs.{index}"].repeat(len(noise[0]), 1, 1, 1)
            for index, side in enumerate(side for side in sides if side <= self.hparams["no_bias_above"])
        }
        kls = []
        for position, ((side, kind, source), eps) in enumerate(zip(blocks, noise, strict=True)):
            name = f"decoder.dec_blocks.{self.shared['dec'].get(str(position), position)}"
            v = states.get(side, torch.zeros(len(eps), self.width(side), side, side, dtype=eps.dtype))
            if kind == "m":
                factor = side // source
                coarse = states[source][:, : self.width(side)]
                v = v + coarse.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
            prior = self.block(f"{name}.prior", v)
            p_mean, p_log, shift = prior[:, :zdim], prior[:, zdim : 2 * zdim], prior[:, 2 * zdim :]
            if activations is None:
                z = p_mean + torch.exp(p_log + math.log(temperature)) * eps
            else:
                both = self.block(f"{name}.enc", torch.cat([v, activations[side]], dim=1))
                q_mean, q_log = both[:, :zdim], both[:, zdim:]
                z = q_mean + torch.exp(q_log) * eps
                q = torch.distributions.Normal(q_mean, q_log.exp())
                kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(p_mean, p_log.exp()))
                kls.append(kl.sum(dim=(1, 2, 3)))
            v = v + shift + self.conv(f"{name}.z_proj", z)
            states[side] = v + self.block(f"{name}.resnet", v)
        features = states[blocks[-1][0]] * self.weights["decoder.gain"] + self.weights["decoder.bias"]
        return features, torch.stack(kls, dim=1) if kls else torch.empty(0)

    def nll(self, features: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """(B,), nats per dimension, one pixel and one component at a time where the rule is written down."""
        count, low_bit = self.hparams["num_mixtures"], self.hparams.get("low_bit", False)
        parameters = self.conv("decoder.out_net.out_conv", features).permute(0, 2, 3, 1)
        pixels = (images // 8 * 8 if low_bit else images).permute(0, 2, 3, 1).to(features.dtype)
        x = (pixels - 127.5) / 127.5
        half, wide = (1 / 31, 15.5) if low_bit else (1 / 255, 127.5)
        colours = parameters[..., count:].reshape(*x.shape, 3 * count)
        total = []
        for k in range(count):
            coefficient = torch.tanh(colours[..., 2 * count + k])
            means = [colours[..., 0, k]]
            means.append(colours[..., 1, k] + coefficient[..., 0] * x[..., 0])
            means.append(colours[..., 2, k] + coefficient[..., 1] * x[..., 0] + coefficient[..., 2] * x[..., 1])
            log_prob = torch.log_softmax(parameters[..., :count], dim=-1)[..., k]
            for colour in range(3):
                log_scale = torch.clamp(colours[..., colour, count + k], min=-7)
                log_prob = log_prob + self.log_bin(x[..., colour], means[colour], log_scale, half, wide)
            total.append(log_prob)
        return -torch.logsumexp(torch.stack(total), dim=0).sum(dim=(1, 2)) / x[0].numel()

    @staticmethod
    def log_bin(x: torch.Tensor, mean: torch.Tensor, log_scale: torch.Tensor, half: float, wide: float) -> torch.Tensor:
        upper, lower = ((x - mean + sign * half) / log_scale.exp() for sign in (1, -1))
        middle = (x - mean) / log_scale.exp()
        probability = torch.sigmoid(upper) - torch.sigmoid(lower)
        density = middle - log_scale - 2 * torch.log1p(torch.exp(-middle.abs())) - 2 * middle.clamp(min=0)
        inside = torch.where(probability > 1e-5, probability.clamp(min=1e-12).log(), density - math.log(wide))
        edge = torch.where(x > 0.999, -F.softplus(lower), inside)
        return torch.where(x < -0.999, -F.softplus(-upper), edge)
