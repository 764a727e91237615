"""Every golden tensor of the published code: both passes, the likelihood, gradients, samples, the start of training.

Tolerances are those of the golden data: 1e-4 relative for KL divergences and gradients and 1e-5 otherwise, relative to
the largest element; images equal in 99.9 % of the values, and never off by more than one grey level.
"""

from __future__ import annotations

import pytest
import torch

from ssd.publishing.published_vdvae import published_names
from vdvae import VDVAEModel

from .golden import Golden


def assert_close(ours: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert ours.shape == expected.shape
    assert (ours - expected).abs().max() <= tolerance * expected.abs().max()


def assert_relatively_close(ours: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Element by element."""
    assert ours.shape == expected.shape
    assert ((ours - expected).abs() <= tolerance * expected.abs()).all()


def assert_same_images(ours: torch.Tensor, expected: torch.Tensor) -> None:
    difference = (ours.permute(0, 2, 3, 1) - expected.long()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() <= 1e-3


@pytest.fixture(scope="module")
def model(golden: Golden) -> VDVAEModel:
    return golden.model()


def test_number_of_parameters(golden: Golden, model: VDVAEModel) -> None:
    assert model.num_parameters() == golden.config["num_params"]


@torch.no_grad()
def test_bottom_up(golden: Golden, model: VDVAEModel) -> None:
    activations, states = model.bottom_up(golden.images, return_states=True)
    assert sorted(activations) == [1, 4, 8, 16]
    for resolution, activation in activations.items():
        assert_close(activation, golden.io[f"activation.{resolution}"])
    norms = torch.stack([state.flatten(1).norm(dim=1) for state in states])
    assert_relatively_close(norms, golden.io["encoder_norms"], 1e-5)


@torch.no_grad()
def test_top_down(golden: Golden, model: VDVAEModel) -> None:
    out = model.encode(golden.images, golden.cells("eps_posterior"), return_states=True)
    for latent, expected in zip(out.latents, golden.cells("z"), strict=True):
        assert_close(latent, expected)
    assert_relatively_close(out.kl, torch.stack(golden.cells("kl_sum"), dim=1), 1e-4)
    norms = [state.flatten(1).norm(dim=1) for state in out.states]
    assert_relatively_close(torch.stack(norms), torch.stack(golden.cells("state_norm")), 1e-5)
    assert_close(out.features, golden.io["px_z"])
    assert_close(model.likelihood_parameters(out).permute(0, 2, 3, 1), golden.io["likelihood_params"])
    assert_same_images(model.sample_images(out, golden.uniforms), golden.io["reconstruction_uint8"])


def test_bound_and_its_gradients(golden: Golden, model: VDVAEModel) -> None:
    assert_close(model.head.target(golden.images, torch.float32).permute(0, 2, 3, 1), golden.io["target"])
    model.zero_grad()
    terms = model.elbo(golden.images, golden.cells("eps_posterior"))
    terms.elbo.mean().backward()
    assert_relatively_close(terms.nll, golden.io["nll_nats_per_dim"], 1e-5)
    assert_relatively_close(terms.rate, golden.io["rate_nats_per_dim"], 1e-5)
    for name, value in (("distortion", terms.nll), ("rate", terms.rate), ("elbo", terms.elbo)):
        assert_relatively_close(value.mean().reshape(1), golden.io[name], 1e-5)
    assert terms.bits_per_dim.mean().item() == pytest.approx(golden.config["results"]["bits_per_dim"], rel=1e-5)

    names = published_names(model)
    norms = {names[name][0]: parameter.grad.norm() for name, parameter in model.named_parameters()}
    expected = {name.removeprefix("grad_norm."): one for name, one in golden.io.items() if name.startswith("grad_norm")}
    assert norms.keys() == expected.keys()
    for name, norm in norms.items():
        assert_relatively_close(norm.reshape(1), expected[name].reshape(1), 1e-4)
    total = torch.stack(list(norms.values())).norm()
    assert_relatively_close(total.reshape(1), golden.io["total_grad_norm"], 1e-4)


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_samples_of_the_prior(golden: Golden, model: VDVAEModel, temperature: float) -> None:
    out = model.decode(noise=golden.cells("eps_prior"), temperature=temperature)
    assert_close(out.features, golden.io[f"uncond_px_z.t{temperature}"])
    assert_same_images(model.sample_images(out, golden.uniforms), golden.io[f"uncond_uint8.t{temperature}"])


@torch.no_grad()
def test_samples_of_given_coarse_latents(golden: Golden, model: VDVAEModel) -> None:
    first = golden.config["results"]["first_half"]
    latents = [z if index < first else None for index, z in enumerate(golden.cells("z"))]
    out = model.decode(latents, noise=golden.cells("eps_prior"), temperature=0.1)
    assert_close(out.features, golden.io["manual_px_z"])
    assert_same_images(model.sample_images(out, golden.uniforms), golden.io["manual_uint8"])


def test_the_start_of_training(golden: Golden) -> None:
    """The same weights start at zero, and the others in a range of the same size.

    The largest of n uniform numbers lies within 1 - 10 / n of their bound, but for a chance of e^-10.
    """
    torch.manual_seed(0)
    model = VDVAEModel(**golden.arguments())
    names = published_names(model)
    for ours, weight in model.state_dict().items():
        for name in names[ours]:  # of a shared block only the first copy was measured
            expected = golden.config["published_init_max_abs"].get(name)
            if expected is not None:
                slack = min(1.0, 20 / weight.numel())
                assert abs(float(weight.abs().max()) - expected) <= slack * expected, name
    missing = {copies[0] for copies in names.values()} - golden.config["published_init_max_abs"].keys()
    assert not missing
