"""BlurringScheduler and CorrectiveNoiseScheduler: diffusers' interface, and pipelines that use them."""

import pytest
import torch

from flexi_unet import FlexiUNet2DModel, ResizedUNet2DModel
from ssd import BlurringScheduler, CorrectiveNoiseScheduler, SSDPipeline, SSDScheduler

from .numerics import network_rounding, relative_error


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def resized_unet(**settings) -> ResizedUNet2DModel:
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    sizes = {"sample_size": 16, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    return ResizedUNet2DModel(**blocks, **(sizes | {"attention_head_dim": 4} | settings))


def flexi_unet(**settings) -> FlexiUNet2DModel:
    return FlexiUNet2DModel(**({"sample_size": 16, "block_out_channels": (32, 32), "layers_per_block": 1} | settings))


def settings_of(scheduler) -> dict:
    return {name: value for name, value in scheduler.config.items() if not name.startswith("_")}


SCHEDULERS = {
    "blurring": lambda size: BlurringScheduler(sample_size=size),
    "blurring, sample": lambda size: BlurringScheduler(sample_size=size, prediction_type="sample", clip_sample=True),
    "corrective noise": lambda size: CorrectiveNoiseScheduler(sample_size=size, num_levels=2),
    "corrective noise, v": lambda size: CorrectiveNoiseScheduler(
        sample_size=size, num_levels=2, prediction_type="v_prediction", resolution_schedule="convex_decay"
    ),
    "gradual": lambda size: SSDScheduler(
        sample_size=size, resolutions=[size, 11, 10, 5, 3] if isinstance(size, int) else [size, (11, 6), (5, 3)]
    ),
}


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS.keys())
@pytest.mark.parametrize("size", [16, (16, 8)])
@pytest.mark.parametrize("network", [flexi_unet, resized_unet])
def test_a_pipeline_samples_saves_and_loads(make, size, network, tmp_path) -> None:
    torch.manual_seed(0)
    pipeline = SSDPipeline(network(sample_size=size, in_channels=1, out_channels=1).eval(), make(size))
    torch.nn.init.normal_(pipeline.unet.conv_out.weight, std=0.02)

    def images(pipe: SSDPipeline) -> torch.Tensor:
        pipe.set_progress_bar_config(disable=True)
        return pipe(2, num_inference_steps=8, generator=seeded(), output_type="latent").images

    expected = images(pipeline)
    assert expected.shape == (2, 1, *((size, size) if isinstance(size, int) else size))
    assert expected.isfinite().all()
    pipeline.save_pretrained(tmp_path)
    again = SSDPipeline.from_pretrained(tmp_path)
    assert type(again.scheduler) is type(pipeline.scheduler)
    assert type(again.unet) is type(pipeline.unet)
    assert settings_of(again.scheduler) == settings_of(pipeline.scheduler)
    assert relative_error(images(again), expected) < 8 * 3 * network_rounding(pipeline.unet)


def test_the_network_of_corrective_noise_never_enlarges() -> None:
    pipeline = SSDPipeline(flexi_unet().eval(), CorrectiveNoiseScheduler(sample_size=16, num_levels=2))
    pipeline.set_progress_bar_config(disable=True)
    calls, seen = [], pipeline.unet.forward

    def forward(sample, *inputs, **more):
        calls.append((sample.shape[-1], more.get("output_size")))
        return seen(sample, *inputs, **more)

    pipeline.unet.forward = forward
    sizes = []
    pipeline(1, num_inference_steps=6, callback_on_step_end=lambda _, i, t, d: sizes.append(d["latents"].shape[-1]))
    assert all(output_size is None for _, output_size in calls)
    assert [side for side, _ in calls] == [8] * sizes.index(16) + [8] + [16] * (6 - sizes.index(16) - 1)


@pytest.mark.parametrize(
    ("scheduler", "arguments", "message"),
    [
        (BlurringScheduler, {"prediction_type": "v_prediction"}, "predicts 'epsilon', as published, or 'sample'"),
        (BlurringScheduler, {"clip_sample": True}, "clip_sample does not work with epsilon"),
        (BlurringScheduler, {"noise": "pink"}, "noise must be one of"),
        (BlurringScheduler, {"sample_size": 5000}, "at most 4096"),
        (CorrectiveNoiseScheduler, {"sample_size": 20, "num_levels": 4}, "use at most 3 levels"),
        (CorrectiveNoiseScheduler, {"snr_drop": 2.0}, "at least 4"),
        (CorrectiveNoiseScheduler, {"snr_drop": float("nan")}, "must be finite"),
        (CorrectiveNoiseScheduler, {"prediction_type": "x0"}, "must be one of"),
    ],
)
def test_wrong_configurations_are_refused(scheduler, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scheduler(**arguments)


def test_explicit_timesteps_must_hold_what_corrective_noise_needs() -> None:
    scheduler = CorrectiveNoiseScheduler(sample_size=16, num_levels=2)
    (entry,) = scheduler.process.required_timesteps
    with pytest.raises(ValueError, match=rf"skip \[{entry}\], the only ones to which corrective noise leads"):
        scheduler.set_timesteps(timesteps=[entry + 300, 10])
    scheduler.set_timesteps(timesteps=[entry + 300, entry, 10])
    scheduler.set_timesteps(timesteps=[entry - 1, 10])
    assert len(scheduler) == scheduler.process.num_timesteps > 1000


def test_blurring_has_ancestral_steps_alone() -> None:
    pipeline = SSDPipeline(flexi_unet(), BlurringScheduler(sample_size=16))
    with pytest.raises(ValueError, match="eta must be 1, got 0"):
        pipeline(1, num_inference_steps=2, eta=0.0)


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS.keys())
def test_noise_of_one_image_does_not_serve_the_others(make) -> None:
    scheduler, x_0 = make(16), torch.zeros(4, 3, 16, 16)
    t = torch.full((4,), len(scheduler) - 1)
    size = scheduler.size_at(t)
    with pytest.raises(ValueError, match=r"noise must have the size of x_t, \(4, 3, .*got \(1, 3, "):
        scheduler.add_noise(x_0, torch.zeros(1, 3, *size), t)


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS.keys())
def test_a_training_batch_of_ones_own(make) -> None:
    scheduler, x_0 = make(16), torch.zeros(4, 3, 16, 16)
    for seed in range(20):
        t = scheduler.sample_timesteps(4, seeded(seed))
        x_t = scheduler.add_noise(x_0, torch.ones(4, 3, *scheduler.size_at(t)), t)
        assert x_t.shape[-2:] == scheduler.size_at(t)
