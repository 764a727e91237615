"""SSDScheduler: diffusers' interface, and equality with diffusers' own schedulers in one level."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.training_utils import compute_snr
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd import SSDScheduler
from ssd.pipelines.samplers import SAMPLERS
from ssd.process.losses import training_pair
from ssd.scheduling_ssd import VARIANCE_TYPES

from .numerics import random_walk, relative_error


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


PAPER = SAMPLERS["paper"]
OF_DIFFUSERS = ("sample", "epsilon", "v_prediction")


def exact(scheduler):
    """A scheduler of diffusers with its tables in float64: its own float32 tables are off by up to 2e-4 at small t."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    scheduler.alphas_cumprod = torch.cumprod(1 - betas, dim=0)
    scheduler.one = scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("variance_type", VARIANCE_TYPES)
@pytest.mark.parametrize("prediction_type", OF_DIFFUSERS)
def test_one_level_is_ddpm_at_every_timestep(prediction_type: str, variance_type: str, clip: bool) -> None:
    options = {"prediction_type": prediction_type, "variance_type": variance_type, "clip_sample": clip}
    ours = SSDScheduler(sample_size=8, num_levels=1, **options, **PAPER)
    stock, reference = DDPMScheduler(**options), exact(DDPMScheduler(**options))
    output, x_t = images(2, 3, 8, 8), images(2, 3, 8, 8, seed=1)
    for t in range(999, -1, -1):

        def step(scheduler, dtype=torch.float32, t=t):
            generator = torch.Generator().manual_seed(t)
            return scheduler.step(output.to(dtype), t, x_t.to(dtype), generator=generator).prev_sample

        expected = step(reference, torch.float64)
        torch.testing.assert_close(step(ours, torch.float64), expected, atol=1e-10, rtol=0)
        if prediction_type == "sample" and t % 10 == 0:
            assert relative_error(step(ours), step(stock)) < (1e-5 if t >= 50 else 5e-4)  # docs/maths.md, theorem 3


@pytest.mark.parametrize("prediction_type", OF_DIFFUSERS)
def test_one_level_makes_the_states_and_velocities_of_diffusers(prediction_type: str) -> None:
    ours, theirs = SSDScheduler(sample_size=8, num_levels=1), exact(DDPMScheduler())
    x_0, noise, t = images(4, 3, 8, 8).double(), images(4, 3, 8, 8, seed=1).double(), torch.tensor([0, 1, 500, 999])
    x_t, target = training_pair(ours.process, x_0, t, noise, prediction_type)
    torch.testing.assert_close(x_t, theirs.add_noise(x_0, noise, t), atol=1e-10, rtol=0)
    velocity = theirs.get_velocity(x_0, noise, t)
    expected = {"sample": x_0, "epsilon": noise, "v_prediction": velocity}[prediction_type]
    torch.testing.assert_close(target, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("number", [10, 50])
@pytest.mark.parametrize("variance_type", VARIANCE_TYPES)
@pytest.mark.parametrize("prediction_type", OF_DIFFUSERS)
def test_one_level_with_fewer_steps_is_ddpm(prediction_type: str, variance_type: str, number: int) -> None:
    options = {"prediction_type": prediction_type, "variance_type": variance_type}
    ours, theirs = SSDScheduler(sample_size=8, num_levels=1, **options, **PAPER), exact(DDPMScheduler(**options))
    theirs.set_timesteps(number)
    ours.set_timesteps(timesteps=theirs.timesteps.tolist())
    output, x_t = images(2, 3, 8, 8).double(), images(2, 3, 8, 8, seed=1).double()
    for t in theirs.timesteps:
        expected = theirs.step(output, t, x_t, generator=torch.Generator().manual_seed(0)).prev_sample
        found = ours.step(output, t, x_t, generator=torch.Generator().manual_seed(0)).prev_sample
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("number", [10, 1000])
@pytest.mark.parametrize("variance_type", VARIANCE_TYPES)
@pytest.mark.parametrize("prediction_type", OF_DIFFUSERS)
def test_one_level_with_eta_zero_is_ddim(prediction_type: str, variance_type: str, number: int) -> None:
    options = {"prediction_type": prediction_type, "clip_sample": False}
    ours = SSDScheduler(sample_size=8, num_levels=1, variance_type=variance_type, **options, **PAPER)
    theirs = exact(DDIMScheduler(set_alpha_to_one=True, **options))
    theirs.set_timesteps(number)
    ours.set_timesteps(timesteps=theirs.timesteps.tolist())
    output, x_t = images(2, 3, 8, 8).double(), images(2, 3, 8, 8, seed=1).double()
    for t in theirs.timesteps:
        expected = theirs.step(output, t, x_t, eta=0.0).prev_sample
        torch.testing.assert_close(ours.step(output, t, x_t, eta=0.0).prev_sample, expected, atol=1e-10, rtol=0)


@given(
    levels=st.integers(1, 5),
    number=st.integers(1, 1000),
    curve=st.sampled_from(["equal", "convex_decay", "sigmoid_like", "tanh_like"]),
)
@settings(max_examples=60, deadline=None)
def test_exactly_the_asked_number_of_timesteps_with_all_level_changes(levels: int, number: int, curve: str) -> None:
    scheduler = SSDScheduler(sample_size=16, num_levels=levels, resolution_schedule=curve, resolution_gamma=2)
    if number < levels:
        with pytest.raises(ValueError, match=rf"in {levels}\.\.1000.*got {number}"):
            scheduler.set_timesteps(number)
        return
    scheduler.set_timesteps(number)
    timesteps = scheduler.timesteps.tolist()
    assert len(timesteps) == number == scheduler.num_inference_steps
    assert timesteps[0] == 999
    assert timesteps == sorted(set(timesteps), reverse=True)
    assert set(scheduler.process.resolution.level_changes) <= set(timesteps)


def test_previous_timestep_walks_the_chain_down_to_the_clean_image() -> None:
    scheduler = SSDScheduler(sample_size=16, num_levels=3)
    assert scheduler.previous_timestep(0) == -1
    assert scheduler.previous_timestep(torch.tensor(500)) == 499
    scheduler.set_timesteps(timesteps=[999, 555, 10])
    assert [scheduler.previous_timestep(t) for t in (999, 700, 555, 10, 3)] == [555, 555, 10, -1, -1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one"),
        ({"num_inference_steps": 5, "timesteps": [3, 1]}, "exactly one"),
        ({"timesteps": [1, 3]}, "strictly descending"),
        ({"timesteps": [3, 3]}, "strictly descending"),
        ({"timesteps": [1000, 3]}, r"in 0\.\.999"),
        ({"timesteps": []}, "at least one"),
        ({"num_inference_steps": 1001}, r"in 3\.\.1000"),
    ],
)
def test_wrong_timesteps_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SSDScheduler(sample_size=16, num_levels=3).set_timesteps(**arguments)


def test_sizes_grow_along_the_chain() -> None:
    scheduler = SSDScheduler(sample_size=(24, 16), num_levels=3)
    assert scheduler.resolutions == [(24, 16), (12, 8), (6, 4)]
    scheduler.set_timesteps(20)
    sample = images(1, 3, 6, 4)
    for t in scheduler.timesteps:
        size = scheduler.size_at(scheduler.previous_timestep(t))
        output = scheduler.step(images(1, 3, *size), t, sample, generator=torch.Generator().manual_seed(0))
        sample = output.prev_sample
        assert sample.shape[-2:] == output.pred_original_sample.shape[-2:] == size
    assert size == (24, 16)
    torch.testing.assert_close(sample, output.pred_original_sample)  # the last step returns the prediction


def test_step_is_a_pure_function_and_follows_the_generators() -> None:
    scheduler = SSDScheduler(sample_size=16, num_levels=2)
    output, sample = images(2, 3, 16, 16), images(2, 3, 8, 8, seed=1)

    def step(seeds: list[int], rows: slice = slice(None)) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return scheduler.step(output[rows], 750, sample[rows], generator=generators).prev_sample

    assert torch.equal(step([1, 2]), step([1, 2]))
    as_tuple = tuple(torch.Generator().manual_seed(seed) for seed in (1, 2))
    assert torch.equal(scheduler.step(output, 750, sample, generator=as_tuple).prev_sample, step([1, 2]))
    assert relative_error(step([1, 2])[1:], step([2], slice(1, 2))) < random_walk(torch.float32, 4 * 16)
    assert relative_error(step([1, 2]), step([1, 3])) > 0.1


def test_half_precision_state_stays_half_and_close() -> None:
    scheduler = SSDScheduler(sample_size=16, num_levels=2)
    output, sample = images(2, 3, 16, 16), images(2, 3, 8, 8, seed=1)
    full = scheduler.step(output, 750, sample, generator=torch.Generator().manual_seed(0)).prev_sample
    half = scheduler.step(
        output.bfloat16(), 750, sample.bfloat16(), generator=torch.Generator().manual_seed(0)
    ).prev_sample
    assert half.dtype == torch.bfloat16
    assert relative_error(half, full) < random_walk(torch.bfloat16, 3)  # of x_0, x_t and the result


def test_clipping_and_tuple_output() -> None:
    scheduler = SSDScheduler(sample_size=8, num_levels=1, clip_sample_range=0.5)
    output, sample = images(1, 3, 8, 8) * 3, images(1, 3, 8, 8, seed=1)
    _, prediction = scheduler.step(output, 500, sample, return_dict=False)
    assert prediction.abs().max() == 0.5
    free = SSDScheduler(sample_size=8, num_levels=1, clip_sample=False)
    assert torch.equal(free.step(output, 500, sample).pred_original_sample, output)


def test_wrong_sizes_say_what_is_expected() -> None:
    scheduler = SSDScheduler(sample_size=16, num_levels=2)
    with pytest.raises(ValueError, match=r"At timestep 750 \(next: 749\) model_output must be \(16, 16\)"):
        scheduler.step(images(1, 3, 8, 8), 750, images(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"sample must be \(8, 8\)"):
        scheduler.step(images(1, 3, 16, 16), 750, images(1, 3, 16, 16))


def test_add_noise_is_the_marginal() -> None:
    scheduler = SSDScheduler(sample_size=16, num_levels=2)
    x_0, noise = images(2, 3, 16, 16), images(2, 3, 8, 8, seed=1)
    noisy = scheduler.add_noise(x_0, noise, torch.tensor([800, 900]))
    assert torch.equal(noisy, scheduler.process.marginal_sample(x_0, torch.tensor([800, 900]), noise))
    with pytest.raises(ValueError, match=r"got levels \[0, 1\]\. `scheduler\.sample_timesteps\(batch_size\)` draws"):
        scheduler.add_noise(x_0, noise, torch.tensor([100, 900]))
    with pytest.raises(ValueError, match=r"got -5\..*sample_timesteps"):
        scheduler.add_noise(x_0, noise, torch.tensor([100, -5]))


@pytest.mark.parametrize("beta_schedule", ["linear", "squaredcos_cap_v2"])
def test_tables_as_schedulers_of_diffusers_have_them(beta_schedule: str) -> None:
    scheduler = SSDScheduler(sample_size=16, num_levels=2, beta_schedule=beta_schedule)
    theirs = DDPMScheduler(beta_schedule=beta_schedule)
    for name, roundings in (("betas", 8), ("alphas_cumprod", 1000)):  # theirs is a product of 1000 numbers in float32
        ours = getattr(scheduler, name)
        assert ours.dtype == torch.float32
        assert relative_error(ours, getattr(theirs, name)) < random_walk(torch.float32, roundings)
        with pytest.raises(AttributeError):
            setattr(scheduler, name, ours)
        ours.zero_()  # a copy
        assert getattr(scheduler, name).min() > 0


def test_snr_of_diffusers_is_that_of_the_process() -> None:
    scheduler, t = SSDScheduler(sample_size=16, num_levels=2), torch.arange(1000)
    error = (compute_snr(scheduler, t).double() / scheduler.process.noise.snr - 1).abs()
    # 1 - abar in float32 is off by eps / 2 of abar, which is much of a small sigma^2; the roots and the ratio add four.
    limit = torch.finfo(torch.float32).eps / 2 * (4 + 1 / scheduler.process.noise.sigma[:-1] ** 2)
    assert (error <= limit).all()


def test_timesteps_of_a_batch_share_sizes_and_have_a_uniform_marginal() -> None:
    scheduler = SSDScheduler(num_train_timesteps=12, sample_size=8, num_levels=3, resolution_schedule="equal")
    changes = scheduler.process.resolution.level_changes
    assert changes == (4, 8)
    generator, counts = torch.Generator().manual_seed(0), torch.zeros(12)
    for _ in range(6000):
        t = scheduler.sample_timesteps(3, generator)
        assert t.shape == (3,)
        assert t.dtype == torch.int64
        assert len({(scheduler.size_at(i), scheduler.size_at(i - 1)) for i in t.tolist()}) == 1
        assert len(set(t.tolist())) == 1 or not set(t.tolist()) & set(changes)
        counts += torch.bincount(t, minlength=12)
    share = counts / counts.sum()
    # Images of a batch are not independent: 6000 draws of a probability of 1/12, and five standard deviations.
    assert (share - 1 / 12).abs().max() < 5 * (11 / 144 / 6000) ** 0.5
    scheduler.add_noise(images(3, 3, 8, 8), images(3, 3, *scheduler.size_at(t)), t)
    assert scheduler.sample_timesteps(2).shape == (2,)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        scheduler.sample_timesteps(0)


@pytest.mark.parametrize("sample_size", [16, (24, 16)])
def test_config_round_trip(tmp_path, sample_size) -> None:
    scheduler = SSDScheduler(sample_size=sample_size, num_levels=3, resolution_gamma=0.7, downsample_kernel="area")
    scheduler.save_pretrained(tmp_path)
    again = SSDScheduler.from_pretrained(tmp_path)
    public = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
    assert {name: again.config[name] for name in public} == public
    assert again.resolutions == scheduler.resolutions
    assert again.compatibles == [SSDScheduler]
    assert len(again) == 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prediction_type": "eps"}, "must be one of sample, epsilon, v_prediction, preconditioned, got 'eps'"),
        ({"variance_type": "learned"}, "must be one of fixed_small, fixed_large, got 'learned'"),
        ({"covariance": "white"}, "must be one of exact, isotropic, got 'white'"),
        ({"variance_type": "fixed_large"}, "is for one level.*got 4 levels.*use 'fixed_small'"),
        ({"num_levels": 1, "variance_type": "fixed_large", "covariance": "isotropic"}, "with the exact covariance"),
        ({"prediction_type": "epsilon", "blur_sigma_max": 2.0}, "noise alone does not undo a blur. Use BlurringSched"),
        ({"resolutions": [64, 32, 33]}, r"must shrink from one level to the next.*\(33, 33\) follows \(32, 32\)"),
        ({"resolutions": [32, 16]}, r"must begin with the full resolution \(64, 64\)"),
        ({"resolutions": []}, "must be positive sides or pairs"),
        ({"sample_size": 32, "num_levels": 7}, "use at most 6 levels"),
        ({"downsample_kernel": "cubic"}, "choose one of"),
        ({"beta_schedule": "cosine"}, "choose one of"),
        ({"resolution_schedule": "tanh_like"}, "resolution_gamma >= 1"),
    ],
)
def test_wrong_configurations_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SSDScheduler(**arguments)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_with_several_levels_noise_is_predicted_within_a_level_and_the_image_at_a_change(prediction_type) -> None:
    plain, other = (SSDScheduler(sample_size=16, num_levels=2, prediction_type=p) for p in ("sample", prediction_type))
    (change,) = plain.process.required_timesteps
    x_0 = images(2, 3, 16, 16).double().clamp(-1, 1)
    for t in (change + 7, change, change - 1, 0):
        x_t = plain.add_noise(x_0, images(2, 3, *plain.size_at(t), seed=1).double(), torch.tensor([t, t]))
        clean = plain.process.target(x_0, t)
        signal, sigma = plain.process.signal(t), plain.process.sigma(t)
        output = clean
        if t != change:
            noise = (x_t - signal * clean) / sigma
            output = noise if prediction_type == "epsilon" else signal * noise - sigma * clean
        expected = plain.step(clean, t, x_t, generator=torch.Generator().manual_seed(0))
        found = other.step(output, t, x_t, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(found.prev_sample, expected.prev_sample, atol=1e-10, rtol=0)
        torch.testing.assert_close(found.pred_original_sample, clean, atol=1e-10, rtol=0)


def test_sizes_may_shrink_by_any_step(tmp_path) -> None:
    sizes = [[12, 8], [11, 8], [9, 6], [3, 2]]
    scheduler = SSDScheduler(sample_size=(12, 8), resolutions=sizes)
    assert scheduler.resolutions == [tuple(size) for size in sizes]
    assert scheduler.config.num_levels == 4
    scheduler.set_timesteps(9)
    sample = images(1, 3, 3, 2)
    for t in scheduler.timesteps:
        assert sample.shape[-2:] == scheduler.size_at(t)
        sample = scheduler.step(images(1, 3, *scheduler.prediction_size(t)), t, sample).prev_sample
    assert sample.shape == (1, 3, 12, 8)
    scheduler.save_pretrained(tmp_path)
    assert SSDScheduler.from_pretrained(tmp_path).resolutions == scheduler.resolutions
    assert SSDScheduler(sample_size=16, resolutions=range(16, 1, -1)).config.num_levels == 15


def test_explicit_switches_replace_the_schedule_and_are_saved(tmp_path) -> None:
    scheduler = SSDScheduler(sample_size=16, num_levels=3, switches=(300, 600))
    assert [scheduler.size_at(t) for t in (299, 300, 599, 600)] == [(16, 16), (8, 8), (8, 8), (4, 4)]
    scheduler.save_pretrained(tmp_path)
    again = SSDScheduler.from_pretrained(tmp_path)
    assert again.process.required_timesteps == (300, 600)
    assert again.config.switches == [300, 600]
    for wrong, message in (([300], "3 levels need 2 ascending"), ([600, 300], "ascending"), ([0, 3], r"in 1\.\.999")):
        with pytest.raises(ValueError, match=message):
            SSDScheduler(sample_size=16, num_levels=3, switches=wrong)


def test_switches_move_within_the_trained_band(tmp_path) -> None:
    scheduler = SSDScheduler(sample_size=16, num_levels=3, switches=[400, 700], switch_jitter=0.5)
    assert scheduler.switch_bands == [range(200, 550), range(550, 851)]
    scheduler.set_timesteps(20, switches=[250, 600])
    assert scheduler.process.required_timesteps == (250, 600)
    assert {250, 600} <= set(scheduler.timesteps.tolist())
    assert scheduler.size_at(300) == (8, 8)
    scheduler.save_pretrained(tmp_path)  # the model stays what it was
    assert SSDScheduler.from_pretrained(tmp_path).process.required_timesteps == (400, 700)
    with pytest.raises(ValueError, match=r"Switch 1 must be in 200\.\.549, got 150"):
        scheduler.set_timesteps(20, switches=[150, 600])
    scheduler.set_timesteps(20)
    assert scheduler.process.required_timesteps == (400, 700)
    assert scheduler.size_at(300) == (16, 16)


def test_without_jitter_the_trained_switches_alone_are_allowed() -> None:
    scheduler = SSDScheduler(sample_size=16, num_levels=3)
    scheduler.set_timesteps(20, switches=[555, 889])
    with pytest.raises(ValueError, match="Switch 2 must be 889, as in training, got 888"):
        scheduler.set_timesteps(20, switches=[555, 888])
    with pytest.raises(ValueError, match=r"switch_jitter must be in \[0, 0.5\], got 0.7"):
        SSDScheduler(sample_size=16, num_levels=3, switch_jitter=0.7)


def test_other_switches_step_as_a_scheduler_with_these_switches() -> None:
    """Also of second order, whose chain remembers predictions."""
    options = {"sample_size": 16, "num_levels": 3, "solver_order": 2, "timestep_spacing": "logsnr"}
    moved = SSDScheduler(**options, switches=[400, 700], switch_jitter=0.5)
    built = SSDScheduler(**options, switches=[250, 600])
    moved.set_timesteps(12, switches=[250, 600])
    built.set_timesteps(12)
    assert moved.timesteps.tolist() == built.timesteps.tolist()
    one = other = images(1, 3, 4, 4)
    for t in built.timesteps.tolist():
        output = images(1, 3, *built.prediction_size(t), seed=t)
        one = moved.step(output, t, one, generator=torch.Generator().manual_seed(t)).prev_sample
        other = built.step(output, t, other, generator=torch.Generator().manual_seed(t)).prev_sample
    assert torch.equal(one, other)
