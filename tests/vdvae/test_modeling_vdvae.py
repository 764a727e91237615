"""VDVAE as a module: parameter counts, sharing, switches of the ablations, noise per image, saving, precision."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from accelerate.utils import convert_outputs_to_fp32
from torch.distributions import Normal, kl_divergence

from vdvae import ElboTerms, VDVAEModel
from vdvae.blocks import Cell, gaussian_kl
from vdvae.sizes import SIZES, small_study

SMALL: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "enc_blocks": "8x1,8d2,4x1,4d4,1x1",
    "dec_blocks": "1x1,4m1,4x1,8m4,8x1",
    "width": 8,
    "latent_channels": 3,
    "bottleneck_multiple": 0.5,
    "num_mixtures": 2,
    "levels": 17,
}


def small_model(**changes: Any) -> VDVAEModel:
    """A model in float64 in which nothing is zero any more, so that no part can be left out unnoticed."""
    torch.manual_seed(0)
    model = VDVAEModel(**SMALL | changes).double().eval()
    for parameter in model.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def some_images(number: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randint(17, (number, 1, 8, 8), generator=torch.Generator().manual_seed(seed))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def count(**arguments: Any) -> int:
    with torch.device("meta"):
        return VDVAEModel(**arguments).num_parameters()


@pytest.mark.parametrize(
    ("name", "expected", "depth"),
    [
        ("cifar10", 39_145_700, 43),
        ("imagenet32", 119_280_868, 78),
        ("imagenet64", 125_005_860, 75),
        ("celeba64", 125_005_860, 75),
        ("digits", 36_495, 5),
        ("cifar10_ws", 25_171_172, 51),
    ],
)
def test_parameters_and_depth_of_the_published_sizes(name: str, expected: int, depth: int) -> None:
    with torch.device("meta"):
        model = VDVAEModel(**SIZES[name])
    assert model.num_parameters() == expected
    assert len(model.cells) == depth


MNIST: dict[str, Any] = {"width": 32, "latent_channels": 8, "in_channels": 1, "likelihood": "bernoulli", "levels": 2}


@pytest.mark.parametrize(
    ("blocks", "colour", "binary"),
    [(1, 8_744_356, 106_689), (2, 13_022_052, 139_713), (3, 17_299_748, 172_737), (4, 21_577_444, 205_761)],
)
def test_parameters_of_the_small_study(blocks: int, colour: int, binary: int) -> None:
    assert count(**small_study(blocks)) == colour
    assert count(**small_study(blocks), **MNIST) == binary


@pytest.mark.parametrize("repeats", [2, 3, 5])
def test_repeats_add_no_parameters(repeats: int) -> None:
    assert count(**small_study(1, repeats)) == 8_744_356
    assert count(**small_study(2, repeats), **MNIST) == 139_713


@pytest.mark.parametrize("name", sorted(SIZES))
def test_every_size_builds_and_sharing_saves_parameters(name: str) -> None:
    distinct = name.removesuffix("_ws")
    assert count(**SIZES[name]) <= count(**SIZES[distinct])


def test_a_repeated_group_is_its_blocks_written_out() -> None:
    """x2r2 is x4 with the weights of b1 b2 b1 b2."""
    shared = small_model(enc_blocks="8x2r2,8d8,1x1", dec_blocks="1x1,8m1,8x2r2")
    plain = small_model(enc_blocks="8x4,8d8,1x1", dec_blocks="1x1,8m1,8x4")
    copies = [(plain.encoder.blocks, shared.encoder.blocks, shared.encoder.specs)]
    copies += [(plain.decoder.cells, shared.decoder.cells, shared.cells)]
    for targets, sources, specs in copies:
        for target, spec in zip(targets, specs, strict=True):
            target.load_state_dict(sources[spec.module].state_dict())
    for name in ("gain", "bias"):
        getattr(plain.decoder, name).data.copy_(getattr(shared.decoder, name))
    plain.decoder.initial_states.load_state_dict(shared.decoder.initial_states.state_dict())
    plain.encoder.in_conv.load_state_dict(shared.encoder.in_conv.state_dict())
    plain.out_conv.load_state_dict(shared.out_conv.state_dict())
    images = some_images()
    first, second = (model.elbo(images, generator=generators(1, 2, 3)) for model in (shared, plain))
    assert torch.equal(first.nll, second.nll)
    assert torch.equal(first.kl, second.kl)


def test_the_start_of_training_scales_with_the_cells_applied() -> None:
    """Uniform in +-1/sqrt(fan_in), times 1/sqrt(n) for what is added to a state, n counting every application.

    The largest of 1024 or more such numbers lies within 5 % of the bound, but for a chance of e^-50.
    """
    torch.manual_seed(0)
    layout = {"dec_blocks": "1x1r4,4m1,4x1r4,8m4,8x1r6", "enc_blocks": "8x1r7,8d2,4d4,1x1"}
    model = VDVAEModel(**SMALL | layout | {"width": 64, "latent_channels": 16})

    def bound_of(layer: torch.nn.Conv2d) -> float:
        return layer.weight.abs().max().item()

    for cell in model.decoder.cells:
        assert bound_of(cell.prior.c4) == 0
        assert bound_of(cell.project) == pytest.approx((16 * 16) ** -0.5, rel=0.05)
        assert bound_of(cell.block.c4) == pytest.approx((32 * 16) ** -0.5, rel=0.05)
        assert bound_of(cell.posterior.c4) == pytest.approx(32**-0.5, rel=0.05)
    for block in model.encoder.blocks:
        assert bound_of(block.c4) == pytest.approx((32 * 10) ** -0.5, rel=0.05)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias") or "initial_states" in name:
            assert parameter.abs().max() == 0, name


def test_the_divergence_against_torch_distributions() -> None:
    mean, log_scale, prior_mean, prior_log_scale = torch.randn(4, 50, dtype=torch.float64).unbind()
    expected = kl_divergence(Normal(mean, log_scale.exp()), Normal(prior_mean, prior_log_scale.exp()))
    torch.testing.assert_close(gaussian_kl(mean, log_scale, prior_mean, prior_log_scale), expected)


def test_the_sampled_divergence_is_the_ratio_of_densities_and_its_mean_the_divergence() -> None:
    torch.manual_seed(0)
    cell = Cell(4, 4, 2, 1, scale=1.0).double()
    torch.nn.init.normal_(cell.prior.c4.weight, std=0.3)
    many = 20_000
    state, activation = (torch.randn(1, 4, 1, 1).double().expand(many, -1, -1, -1) for _ in range(2))
    noise = torch.randn(many, 2, 1, 1).double()
    with torch.no_grad():
        exact, sampled = (cell(state, activation, None, noise, 1.0, flag) for flag in (False, True))
        prior_mean, prior_log_scale, _ = cell.prior(state).split([2, 2, 4], dim=1)
        mean, log_scale = cell.posterior(torch.cat([state, activation], dim=1)).chunk(2, dim=1)
    ratio = Normal(mean, log_scale.exp()).log_prob(exact.latent)
    ratio = ratio - Normal(prior_mean, prior_log_scale.exp()).log_prob(exact.latent)
    torch.testing.assert_close(sampled.kl, ratio.sum(dim=(1, 2, 3)))
    error = float(sampled.kl.std()) / many**0.5
    assert float(sampled.kl.mean()) == pytest.approx(float(exact.kl[0]), abs=5 * error)


def test_the_parts_of_the_bound_add_up() -> None:
    model = small_model()
    terms, out = (run(some_images(), generator=generators(1, 2, 3)) for run in (model, model.encode))
    torch.testing.assert_close(terms.kl, out.kl / 64)
    torch.testing.assert_close(terms.nll, -model.log_prob(out, some_images()) / 64)
    torch.testing.assert_close(terms.bits_per_dim * math.log(2), terms.nll + terms.kl.sum(dim=1))


@torch.no_grad()
def test_an_image_depends_on_its_own_generator_alone() -> None:
    """Float64, so that other batches of convolutions differ by rounding only."""
    model, images = small_model(), some_images()
    together = model.encode(images, generator=generators(5, 6, 7))
    alone = model.encode(images[1:2], generator=generators(6))
    torch.testing.assert_close(together.features[1:2], alone.features, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(together.kl[1:2], alone.kl, rtol=1e-12, atol=1e-12)
    batches = (generators(5, 6, 7), generators(6))
    first, second = (model.decode(batch_size=len(batch), generator=batch, temperature=0.9) for batch in batches)
    torch.testing.assert_close(first.features[1:2], second.features, rtol=1e-12, atol=1e-12)
    batches = (generators(8, 9, 10), generators(9))
    first_images, second_images = (model.sample_images(out, generator=g) for out, g in zip((first, second), batches))
    assert torch.equal(first_images[1:2], second_images)


@torch.no_grad()
def test_latents_given_back_give_the_same_features() -> None:
    model = small_model()
    out = model.encode(some_images(), generator=generators(1, 2, 3), return_states=True)
    again = model.decode(out.latents, return_states=True)
    torch.testing.assert_close(again.features, out.features)
    assert [state.shape[-1] for state in again.states] == [1, 4, 4, 8, 8]
    assert (again.kl == 0).all()


@torch.no_grad()
def test_temperature_per_cell_and_zero() -> None:
    model = small_model()
    means = model.decode(batch_size=2, temperature=0.0)
    assert torch.equal(means.features[0], means.features[1])
    noise = [torch.randn(2, *shape).double() for shape in model.latent_shapes]
    mixed = model.decode(noise=noise, temperature=[0, 0, 0, 0, 0.5])
    warm = model.decode(latents=[*means.latents[:4], None], noise=noise, temperature=0.5)
    torch.testing.assert_close(mixed.features, warm.features)


@torch.no_grad()
@pytest.mark.parametrize(("state_norm", "square"), [("unit", lambda size: 1.0), ("rms", float)])
def test_normalised_states_cannot_tell_the_time(state_norm: str, square: Any) -> None:
    model = small_model(state_norm=state_norm)
    out = model.encode(some_images(), generator=generators(1, 2, 3), return_states=True)
    _, states = model.bottom_up(some_images(), return_states=True)
    for state in (*out.states, *states[1:]):
        size = state[0].numel()
        norms = state.flatten(1).norm(dim=1).square()
        torch.testing.assert_close(norms, torch.full_like(norms, square(size)))


@torch.no_grad()
def test_fourier_features_are_given_to_the_encoder_beside_the_image() -> None:
    model = small_model(fourier_features=[0, 2])
    seen = model.encoder_input(some_images())
    x = (some_images().double() - 8) / 8
    assert seen.shape == (3, 5, 8, 8)
    torch.testing.assert_close(seen[:, :1], x)
    torch.testing.assert_close(seen[:, 3:4], torch.sin(4 * math.pi * x))
    torch.testing.assert_close(seen[:, 4:5], torch.cos(4 * math.pi * x))


@torch.no_grad()
def test_without_residual_connections_a_cell_forgets_its_state() -> None:
    """What is left of the state passes through the prior, which starts as zero."""
    torch.manual_seed(0)
    noise, states = torch.randn(2, 2, 4, 4), torch.randn(2, 2, 3, 4, 4)
    for residual in (False, True):
        cell = Cell(3, 2, 2, 4, 1.0, residual=residual)
        first, second = (cell(state, noise=noise).state for state in states)
        assert torch.equal(first, second) == (not residual)
    model = small_model(residual=False)
    model.encoder.blocks[0].c4.weight.zero_()
    model.encoder.blocks[0].c4.bias.zero_()
    _, encoder_states = model.bottom_up(some_images(), return_states=True)
    assert (encoder_states[1] == 0).all()


def test_fewer_latents() -> None:
    model = small_model(max_latent_blocks=2)
    assert model.decoder.stochastic == [True, False, True, False, False]
    terms = model.elbo(some_images())
    assert (terms.kl > 0).all(dim=0).tolist() == model.decoder.stochastic
    terms.elbo.mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())  # no part is built for nothing
    noise = [torch.randn(3, *shape).double() for shape in model.latent_shapes]
    other = [noise[0], None, noise[2], None, None]
    with torch.no_grad():
        assert torch.equal(model.decode(noise=noise).features, model.decode(noise=other).features)


def test_one_level() -> None:
    model = small_model(enc_blocks="8x3", dec_blocks="8x4")
    assert model.latent_shapes == [(3, 8, 8)] * 4
    assert torch.isfinite(model.elbo(some_images()).elbo).all()


def test_gradient_checkpointing_changes_no_gradient() -> None:
    found = []
    for checkpointing in (False, True):
        model = small_model().train()
        if checkpointing:
            model.enable_gradient_checkpointing()
        model.elbo(some_images(), generator=generators(1, 2, 3)).elbo.mean().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*found, strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=1e-12, atol=1e-12)


def test_saving_and_loading_changes_no_bit(tmp_path) -> None:
    model = small_model(dec_blocks="1x1r3,4m1,8m4,8x2r2", custom_widths={1: 12, 4: 10}).float()
    model.save_pretrained(tmp_path)
    loaded = VDVAEModel.from_pretrained(tmp_path)
    assert loaded.config.custom_widths == {1: 12, 4: 10}
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    with torch.no_grad():
        first, second = (one.elbo(some_images(), generator=generators(1, 2, 3)) for one in (model, loaded))
    assert torch.equal(first.nll, second.nll)
    assert torch.equal(first.kl, second.kl)


def test_a_copy_is_independent() -> None:
    model = small_model()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(torch.isfinite(value).all() for value in twin.elbo(some_images()))
    assert (twin.elbo(some_images()).rate > 0).all()
    assert (model.elbo(some_images()).rate == 0).all()


def test_half_precision_states_and_divergences_in_float32() -> None:
    """bfloat16 has 8 bits: its states are near those of float64, and what is summed over pixels is float32."""
    terms = small_model().to(torch.bfloat16).elbo(some_images(), generator=generators(1, 2, 3))
    exact = small_model().elbo(some_images(), generator=generators(1, 2, 3))
    assert terms.nll.dtype == terms.kl.dtype == torch.float32
    torch.testing.assert_close(terms.nll.double(), exact.nll, rtol=0.1, atol=0)


def test_mixed_precision_of_accelerate() -> None:
    """Its wrapper makes the outputs float32, and leaves their type."""
    model = small_model().float()
    wrapped = convert_outputs_to_fp32(torch.autocast("cpu", torch.bfloat16)(model.forward))
    terms = wrapped(some_images())
    assert isinstance(terms, ElboTerms)
    assert terms.nll.dtype == terms.kl.dtype == torch.float32
    assert terms.bits_per_dim.shape == (3,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state_norm": "l2"}, "state_norm must be one of none, unit, rms"),
        ({"max_latent_blocks": 0}, "max_latent_blocks must be at least 1"),
        ({"width": 1}, "at least one channel inside"),
        ({"dec_blocks": "1x1,8m4"}, "8m4 needs an earlier block"),
        ({"custom_widths": {8: 99}}, "must not grow"),
    ],
)
def test_settings_that_cannot_be_built(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VDVAEModel(**SMALL | changes)


def test_inputs_that_do_not_fit() -> None:
    model, images = small_model(), some_images()
    with pytest.raises(ValueError, match=r"shape \(B, 1, 8, 8\), got \(3, 1, 8, 4\)"):
        model.elbo(images[..., :4])
    with pytest.raises(ValueError, match=r"integers 0\.\.16, got torch.float32"):
        model.elbo(images.float())
    with pytest.raises(ValueError, match="one for each of 3 images; got 2"):
        model.elbo(images, generator=generators(1, 2))
    with pytest.raises(ValueError, match="noise needs one entry for each of 5 cells, got 1"):
        model.elbo(images, [torch.zeros(3, 3, 1, 1)])
    with pytest.raises(ValueError, match=r"latents\[0\] must have the shape \(2, 3, 1, 1\)"):
        model.decode([torch.zeros(2, 3, 2, 2)] + [None] * 4)
    with pytest.raises(ValueError, match="temperature must be at least 0, got -1"):
        model.decode(temperature=-1.0)
    with pytest.raises(ValueError, match="temperature needs one number, or one for each of 5 cells; got 2"):
        model.decode(temperature=[1.0, 0.5])
