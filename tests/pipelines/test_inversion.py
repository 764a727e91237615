"""DDIM's inversion: against the exact flow of Gaussian images, there and back, what is refused."""

from __future__ import annotations

import pytest
import torch

from flexi_unet import FlexiUNet2DModel
from ssd import BlurringScheduler, SSDPipeline, SSDScheduler
from ssd.pipelines.inversion import deterministic_step, invert

from ..numerics import relative_error
from ..test_pipeline_ssd import small_pipeline

VARIANCE = 0.25
PICTURES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def gaussian(monkeypatch) -> SSDPipeline:
    """A pipeline whose network knows images of independent pixels: x_hat = a v x_t / (a^2 v + sigma^2), v variance."""
    unet = FlexiUNet2DModel(sample_size=8, block_out_channels=(32, 32))
    scheduler = SSDScheduler(
        sample_size=8, num_levels=2, clip_sample=False, solver_order=1, timestep_spacing="linspace"
    )
    process = scheduler.process

    def forward(self, sample, timestep, class_labels=None, return_dict=False, **sizes):
        a, sigma = (float(table(int(timestep))) for table in (process.signal, process.sigma))
        return (a * VARIANCE / (a**2 * VARIANCE + sigma**2) * sample,)

    monkeypatch.setattr(FlexiUNet2DModel, "forward", forward)
    pipeline = SSDPipeline(unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def marginal(pipeline: SSDPipeline, t: int) -> float:
    """The standard deviation of x_t."""
    process = pipeline.scheduler.process
    return float((process.signal(t) ** 2 * VARIANCE + process.sigma(t) ** 2).sqrt())


def test_it_follows_the_exact_flow_of_gaussian_images(gaussian: SSDPipeline) -> None:
    """The flow keeps x_t / std(x_t), so that it is known; Euler's error halves with the steps."""
    process, t = gaussian.scheduler.process, 400
    start = process.signal(0) * (PICTURES * 2 - 1)
    exact = start * marginal(gaussian, t) / marginal(gaussian, 0)
    errors = {
        n: relative_error(invert(gaussian, PICTURES, timestep=t, num_inference_steps=n).latents, exact)
        for n in (26, 51, 101, 201)
    }
    for few, many in ((26, 51), (51, 101), (101, 201)):
        assert 1.5 < errors[few] / errors[many] < 2.5
    assert errors[201] < 0.05


def test_there_and_back_differ_less_with_more_steps(gaussian: SSDPipeline) -> None:
    expected, errors = PICTURES * 2 - 1, []
    for number in (10, 50, 250):
        there = invert(gaussian, PICTURES, timestep=400, num_inference_steps=number)
        back = gaussian(2, latents=there.latents, timesteps=there.timesteps, eta=0.0, output_type="latent").images
        errors.append(relative_error(back, expected))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


@pytest.mark.parametrize("prediction_type", ["sample", "epsilon", "v_prediction", "preconditioned"])
def test_a_step_there_is_the_scheduler_s_step_back(prediction_type: str) -> None:
    """With the same prediction the two are inverses."""
    pipeline = small_pipeline(prediction_type)
    scheduler = SSDScheduler.from_config(pipeline.scheduler.config, solver_order=1, clip_sample=False)
    process, s, t = scheduler.process, 50, 300
    generator = torch.Generator().manual_seed(0)
    x_t, output = (torch.randn(2, 3, 16, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    scheduler.set_timesteps(timesteps=[t, s])
    x_s, x_hat = scheduler.step(output, t, x_t, eta=0.0, return_dict=False)
    assert relative_error(deterministic_step(process, x_hat, x_s, s, t), x_t) < 1e-10


def test_classes_and_the_default_timestep() -> None:
    pipeline = small_pipeline(num_class_embeds=4, block_out_channels=(16, 16, 16), norm_num_groups=4)
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    one, other = (invert(pipeline, pictures, num_inference_steps=4, class_labels=label) for label in (0, 1))
    last = pipeline.scheduler.process.resolution.level_changes[0] - 1
    assert one.timesteps[0] == last
    assert one.timesteps[-1] == 0
    assert one.latents.shape == (2, 3, 16, 16)
    assert relative_error(one.latents, other.latents) > 1e-5
    with pytest.raises(ValueError, match="give class_labels"):
        invert(pipeline, pictures)


def test_what_it_cannot_do_is_one_sentence(gaussian: SSDPipeline) -> None:
    last = gaussian.scheduler.process.resolution.level_changes[0] - 1
    for options, message in (
        ({"timestep": last + 1}, rf"timestep must be one of the finest level, 1\.\.{last}, got {last + 1}\."),
        ({"timestep": 0}, "got 0"),
        ({"timestep": 9, "num_inference_steps": 11}, r"num_inference_steps must be in 2\.\.10 for timestep 9, got 11"),
        ({"num_inference_steps": 1}, "got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            invert(gaussian, PICTURES, **options)
    gaussian.scheduler = SSDScheduler(sample_size=8, num_levels=2, blur_sigma_max=2.0)
    with pytest.raises(ValueError, match="This process blurs its images"):
        invert(gaussian, PICTURES)
    gaussian.scheduler = BlurringScheduler(sample_size=8)
    with pytest.raises(TypeError, match="inversion needs an SSDScheduler"):
        invert(gaussian, PICTURES)
