"""Layouts without golden tensors, against a plain computation: custom widths, pooling by 4, 5 bits, a 2x2 level."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ssd.publishing.published_vdvae import config_from_hparams, convert_vdvae, published_names
from vdvae import VDVAEModel
from vdvae.layout import parse_blocks, share_blocks

from .golden import Golden
from .plain_vdvae import PlainVDVAE

SHIFT, SCALE = -116.2373, 1 / 69.37404

WIDTHS: dict[str, Any] = {
    "image_size": 16,
    "image_channels": 3,
    "width": 8,
    "custom_width_str": "8:12,4:12,2:16,1:24",
    "zdim": 5,
    "bottleneck_multiple": 0.5,
    "num_mixtures": 5,
    "no_bias_above": 4,
    "enc_blocks": "16x2,16d2,8x1,8d2,4x1,4d2,2x1,2d2,1x1",
    "dec_blocks": "1x1,2m1,2x1,4m2,4x1,8m4,8x1,16m8,16x2",
    "low_bit": False,
}
LOW_BIT = WIDTHS | {
    "custom_width_str": "",
    "zdim": 3,
    "num_mixtures": 2,
    "enc_blocks": "16x3,16d4,4x2,4d4,1x3",
    "dec_blocks": "1x3,4m1,4x2,16m4,16x3",
    "low_bit": True,
}
ODD = WIDTHS | {  # a source two levels below, a level without blocks after its pooling, no learned start but at 1 pixel
    "no_bias_above": 1,
    "custom_width_str": "",
    "enc_blocks": "16,16d2,8d8",
    "dec_blocks": "1,16m1,8m1,16m8",
}


def random_weights(config: dict[str, Any], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A published state dict in which nothing is zero, so that no part can be left out unnoticed."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        model = VDVAEModel(**config)
    weights = {}
    for name, tensor in model.state_dict().items():
        scale = 0.7 * tensor[0].numel() ** -0.5 if tensor.ndim == 4 and tensor.shape[0] > 1 else 0.3
        weight = scale * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        weights[published_names(model)[name][0]] = weight.to(dtype)
    return weights


def shared_positions(text: str) -> dict[str, int]:
    """Position -> first position of the same block, for what `share_blocks` makes of a layout."""
    modules = [spec.module for spec in parse_blocks(share_blocks(text))]
    return {str(place): modules.index(module) for place, module in enumerate(modules)}


def noise_of(model: VDVAEModel, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, *shape, generator=generator).double() for shape in model.latent_shapes]


def images_with_edges(size: int) -> torch.Tensor:
    images = torch.randint(256, (2, 3, size, size), generator=torch.Generator().manual_seed(1))
    images[:, :, 0, :4], images[:, :, 1, :4] = 0, 255
    return images


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("hparams", [WIDTHS, LOW_BIT, ODD], ids=["widths", "low_bit", "odd"])
def test_both_passes_the_likelihood_and_gradients(hparams: dict[str, Any], shared: bool) -> None:
    config = config_from_hparams(hparams, SHIFT, SCALE, shared)
    weights = random_weights(config, torch.float32)
    model = convert_vdvae(weights, config).double()
    weights = {name: weight.double().requires_grad_() for name, weight in weights.items()}
    positions = {side: shared_positions(hparams[f"{side}_blocks"]) for side in ("enc", "dec")} if shared else None
    plain = PlainVDVAE(hparams, weights, positions)
    images, noise = images_with_edges(hparams["image_size"]), noise_of(model, 2)

    expected_activations = plain.bottom_up((images.double() + SHIFT) * SCALE)
    activations, _ = model.bottom_up(images)
    assert activations.keys() == expected_activations.keys()
    for side, activation in activations.items():
        torch.testing.assert_close(activation, expected_activations[side], rtol=1e-9, atol=1e-9)

    features, kl = plain.top_down(noise, expected_activations)
    out, terms = model.encode(images, noise), model.elbo(images, noise)
    torch.testing.assert_close(out.features, features, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.kl, kl, rtol=1e-9, atol=1e-9)
    expected_nll = plain.nll(features, images)
    torch.testing.assert_close(terms.nll, expected_nll, rtol=1e-9, atol=1e-9)

    terms.elbo.sum().backward()
    (expected_nll + kl.sum(dim=1) / images[0].numel()).sum().backward()
    names = published_names(model)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[names[name][0]].grad, rtol=1e-8, atol=1e-10)

    expected, _ = plain.top_down(noise, temperature=0.8)
    sampled = model.decode(noise=noise, temperature=0.8).features
    torch.testing.assert_close(sampled, expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_the_plain_computation_on_golden_tensors(golden: Golden) -> None:
    plain = PlainVDVAE(golden.config["hparams"], golden.weights, golden.config["shared_blocks"])
    x = (golden.images.float() + golden.config["input_shift"]) * golden.config["input_scale"]
    activations = plain.bottom_up(x)
    features, kl = plain.top_down(golden.cells("eps_posterior"), activations)
    torch.testing.assert_close(features, golden.io["px_z"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(kl, torch.stack(golden.cells("kl_sum"), dim=1), rtol=1e-4, atol=0)
    nll = plain.nll(features, golden.images)
    torch.testing.assert_close(nll, golden.io["nll_nats_per_dim"], rtol=1e-5, atol=0)
