"""What each pipeline promises: a small picture that is kept, pixels that are kept, where a picture enters the chain."""

import numpy as np
import pytest
import torch
from PIL import Image

from ssd import SSDImageToImagePipeline, SSDInpaintPipeline, SSDScheduler, SSDSuperResolutionPipeline
from ssd.pipelines.pictures import fitted, read_masks, read_pictures
from ssd.process.known_pixels import KnownPixels
from ssd.sampling.pictures import to_uint8

from ..numerics import relative_error
from ..test_pipeline_ssd import MOMENTS, small_pipeline
from .test_every_pipeline import TINY, mask, pictures

KEPT = 1e-3
"""How near the small picture has to be, the promise; float32 leaves about 1e-6."""

SCHEDULERS = [
    {},
    {"level_gain": 2.0},
    {"prediction_type": "epsilon"},
    {"prediction_type": "preconditioned", "data_moments": MOMENTS},
    {"downsample_kernel": "area"},
    {"solver_order": 1, "timestep_spacing": "linspace"},
    {"clip_sample": False},
    {"blur_sigma_max": 1.0},
]


def made(kind, **scheduler_settings):
    pipe = kind.from_pipe(small_pipeline(**TINY))
    pipe.scheduler = SSDScheduler(sample_size=16, num_levels=3, **scheduler_settings)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def at_level(pipe, images: torch.Tensor, level: int) -> torch.Tensor:
    """What images (B, C, H, W) are at a level, as the network sees them."""
    process = pipe.scheduler.process
    start = process.resolution.level_starts[level]
    return process.degrade(images, start) / process.image_scale(start)


def seeded(number: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(number)]


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("settings", SCHEDULERS)
@pytest.mark.parametrize("level", [1, 2])
def test_a_grown_picture_is_the_small_one_downsampled_again(settings: dict, level: int, eta: float) -> None:
    pipe = made(SSDSuperResolutionPipeline, **settings)
    small = pictures(2, 16 >> level)
    arguments = {"level": level, "num_inference_steps": 9, "eta": eta, "output_type": "latent"}
    images = pipe(small, generator=seeded(2), **arguments).images
    assert (at_level(pipe, images, level) - (2 * small - 1)).abs().max() < KEPT
    loose = pipe(small, generator=seeded(2), consistency=False, **arguments).images
    assert (at_level(pipe, loose, level) - (2 * small - 1)).abs().max() > 0.1


@pytest.mark.parametrize("settings", SCHEDULERS)
@pytest.mark.parametrize("level", [1, 2])
def test_a_redrawn_picture_is_the_same_at_its_level(settings: dict, level: int) -> None:
    pipe, image = made(SSDImageToImagePipeline, **settings), pictures(2)
    arguments = {"num_inference_steps": 9, "output_type": "latent"}
    images = pipe(image, level=level, generator=seeded(2), **arguments).images
    kept = at_level(pipe, 2 * image - 1, level)
    assert (at_level(pipe, images, level) - kept).abs().max() < KEPT
    assert relative_error(images, 2 * image - 1) > 0.05
    variations = pipe(image[:1], level=level, batch_size=2, generator=seeded(2), **arguments).images
    assert relative_error(*variations) > 1e-3
    assert (at_level(pipe, variations, level) - kept[:1]).abs().max() < KEPT


def test_predictions_that_a_callback_sees_agree_at_every_step() -> None:
    """What is projected is what the solver remembers and the step uses."""
    pipe, small, seen = made(SSDSuperResolutionPipeline), pictures(2, 4), []

    def watch(pipeline, index, timestep, tensors) -> None:
        s = pipeline.scheduler.previous_timestep(timestep)
        starts = pipeline.scheduler.process.resolution.level_starts
        fine = starts[pipeline.scheduler.process.level(s)]
        again = pipeline.scheduler.process.operator(fine, starts[2]).forward(tensors["pred_original_sample"])
        seen.append(float((again - (2 * small - 1)).abs().max()))

    names = ("latents", "pred_original_sample")
    pipe(small, callback_on_step_end=watch, callback_on_step_end_tensor_inputs=names, num_inference_steps=20)
    assert len(seen) == pipe.num_timesteps > 3
    assert max(seen) < KEPT
    remembered = pipe.scheduler._solver._predictions
    assert all((at_level(pipe, clean, 2) - (2 * small - 1)).abs().max() < KEPT for clean in remembered.values())


@pytest.mark.parametrize("consistency", [False, True])
@pytest.mark.parametrize("level", [1, 2])
def test_a_picture_enters_at_the_last_timestep_of_its_level(level: int, consistency: bool) -> None:
    pipe, timesteps = made(SSDSuperResolutionPipeline), []
    pipe.unet.register_forward_pre_hook(lambda module, inputs: timesteps.append((int(inputs[1]), inputs[0].shape[-1])))
    pipe(pictures(1, 16 >> level), level=level, consistency=consistency, num_inference_steps=9)
    start = pipe.scheduler.process.resolution.level_starts[level]
    assert timesteps[0] == (start, 16 >> level)
    assert [t for t, _ in timesteps] == [t for t in pipe.scheduler.timesteps.tolist() if t <= start]


def test_switches_of_a_call_move_the_entry() -> None:
    pipe = made(SSDSuperResolutionPipeline, switch_jitter=0.4)
    bands = pipe.scheduler.switch_bands
    switches = [band[0] for band in bands]
    pipe(pictures(1, 8), num_inference_steps=9, switches=switches)
    assert pipe._chain[0] == switches[0]


def test_levels_are_chosen_by_size_level_or_factor() -> None:
    pipe = made(SSDSuperResolutionPipeline)
    for size, options, level in (
        ((8, 8), {}, 1),
        ((4, 4), {}, 2),
        ((7, 9), {}, 1),
        ((2, 2), {}, 2),
        ((100, 50), {}, 1),
        ((8, 8), {"level": 2}, 2),
        ((8, 8), {"factor": 4}, 2),
        ((5, 5), {"factor": 2.0}, 1),
    ):
        pipe(torch.rand(1, 3, *size), num_inference_steps=3, **options)
        assert pipe.scheduler.process.level(pipe._chain[0]) == level
    for options, message in (
        ({"level": 0}, r"level must be one of 1 \(8 x 8\), 2 \(4 x 4\), got 0"),
        ({"level": 3}, "got 3"),
        ({"factor": 3}, "grows pictures by a factor of 2, 4, got 3"),
        ({"factor": 2, "level": 1}, "a level or a factor, not both"),
        ({"timesteps": [900, 5]}, "have none of level 1, 8 x 8, at which the picture enters: add 555"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe(pictures(1, 8), **({"num_inference_steps": 3} if "timesteps" not in options else {}), **options)
    single = SSDSuperResolutionPipeline(pipe.unet, SSDScheduler(sample_size=16, num_levels=1))
    with pytest.raises(ValueError, match="one level, so that there is nothing to grow from"):
        single(pictures(1, 8))


def test_resizing_is_said(caplog) -> None:
    pipe = made(SSDSuperResolutionPipeline)
    with caplog.at_level("WARNING", logger="diffusers"):
        import diffusers.utils.logging as diffusers_logging

        diffusers_logging.enable_propagation()
        pipe([Image.new("RGB", (9, 9)), Image.new("RGB", (8, 8))], num_inference_steps=3)
        diffusers_logging.disable_propagation()
    assert "1 of 2 pictures resized to 8 x 8, level 1." in caplog.text


@pytest.mark.parametrize(("strength", "steps"), [(0.0, 0), (0.05, 0), (0.1, 1), (0.55, 5), (1.0, 10)])
def test_strength_is_the_share_of_the_chain(strength: float, steps: int) -> None:
    pipe, image = made(SSDImageToImagePipeline), pictures(2)
    found = pipe(image, strength=strength, num_inference_steps=10, output_type="pt").images
    assert pipe.num_timesteps == steps
    assert pipe._chain == pipe.scheduler.timesteps.tolist()[10 - steps :]
    assert (relative_error(found, image) < 1e-6) == (steps == 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of strength and level, got None and None"),
        ({"strength": 0.5, "level": 1}, "exactly one of strength and level"),
        ({"strength": 1.5}, r"strength must be in \[0, 1\], got 1.5"),
        ({"level": 3}, r"level must be one of 0 \(16 x 16\), 1 \(8 x 8\), 2 \(4 x 4\), got 3"),
        ({"level": 0, "consistency": True}, "the picture would stay as it is"),
        ({"strength": 0.2, "consistency": True}, "the picture would stay as it is"),
    ],
)
def test_wrong_ways_to_redraw_are_explained(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(SSDImageToImagePipeline)(pictures(1), num_inference_steps=9, **options)


@pytest.mark.parametrize("resampling_steps", [1, 3])
@pytest.mark.parametrize("settings", SCHEDULERS)
def test_known_pixels_stay_bit_for_bit(settings: dict, resampling_steps: int) -> None:
    pipe = made(SSDInpaintPipeline, **settings)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    white = Image.fromarray(np.where(mask()[0, 0].numpy(), 255, 0).astype(np.uint8))
    arguments = {"num_inference_steps": 9, "resampling_steps": resampling_steps}
    pil = np.asarray(pipe(image, white, generator=seeded(1), **arguments).images[0])
    latent = pipe(image, white, generator=seeded(1), output_type="latent", **arguments).images
    known = mask()[0, 0].numpy() == 0
    for found in (pil, to_uint8(latent)[0]):
        np.testing.assert_array_equal(found[known], np.asarray(image)[known])
        assert (found[~known] != np.asarray(image)[~known]).any()


def test_what_is_behind_the_mask_has_no_effect() -> None:
    pipe, image = made(SSDInpaintPipeline), pictures(1)
    images = [image, torch.where(mask() == 1, 1 - image, image)]
    one, other = (pipe(x, mask(), generator=seeded(1), num_inference_steps=9, output_type="pt").images for x in images)
    assert torch.equal(one, other)


def test_states_of_known_pixels_are_drawn_around_them() -> None:
    """Within 6 standard deviations of a_s D_s x, everywhere that is covered and at every step but the last."""
    pipe, image, far = made(SSDInpaintPipeline), pictures(4), []
    corner = torch.zeros(1, 1, 16, 16)
    corner[..., 10:, 10:] = 1
    known = KnownPixels(pipe.scheduler.process, 2 * image - 1, (1 - corner).expand(4, -1, -1, -1))

    def watch(pipeline, index, timestep, tensors) -> None:
        s, process = pipeline.scheduler.previous_timestep(timestep), pipeline.scheduler.process
        if s >= 0:
            mean = process.signal(s) * process.degrade(2 * image - 1, s)
            white = (tensors["latents"] - mean) / process.sigma(s)
            far.append(float(white[known.covered(s).expand_as(white)].abs().max()))

    pipe(image, corner, generator=seeded(4), num_inference_steps=9, callback_on_step_end=watch)
    assert len(far) == 8
    assert max(far) < 6


def test_resampling_takes_every_step_so_often() -> None:
    pipe, timesteps = made(SSDInpaintPipeline), []
    pipe.unet.register_forward_pre_hook(lambda module, inputs: timesteps.append(int(inputs[1])))
    pipe(pictures(1), mask(), num_inference_steps=5, resampling_steps=3)
    assert timesteps == [t for t in pipe.scheduler.timesteps.tolist() for _ in range(3)]


@pytest.mark.parametrize("colour", ["white", "black"])
def test_a_mask_of_one_colour(colour: str) -> None:
    pipe, image = made(SSDInpaintPipeline), pictures(1)
    found = pipe(image, Image.new("L", (16, 16), colour), num_inference_steps=9, output_type="pt").images
    assert (relative_error(found, image) < 1e-6) == (colour == "black")


def test_wrong_masks_are_explained() -> None:
    pipe = made(SSDInpaintPipeline)
    with pytest.raises(ValueError, match="one mask, or one for each of 2 pictures, got 3"):
        pipe(pictures(2), mask().expand(3, -1, -1, -1))
    with pytest.raises(ValueError, match="resampling_steps must be at least 1, got 0"):
        pipe(pictures(1), mask(), resampling_steps=0)
    with pytest.raises(ValueError, match="mask_image must have 1 channels"):
        pipe(pictures(1), pictures(1))


def test_masks_are_resized_as_pictures_are() -> None:
    """A white square over a bright one stays over it, whatever the shape."""
    picture, white = Image.new("L", (60, 40)), Image.new("1", (60, 40))
    for image, colour in ((picture, 255), (white, 1)):
        image.paste(colour, (20, 10, 40, 30))
    small, resized = fitted(read_pictures(picture, 1), (16, 16))
    assert resized == 1
    assert torch.equal((small >= 0).float(), read_masks(white, (16, 16)))
    assert read_masks(white, (16, 16)).sum() == 64  # half of the 40 rows, of 16
    assert read_pictures(torch.full((1, 2, 2), 0.5), 1)[0].abs().max() < 1e-6


def test_pictures_are_read_as_files_are() -> None:
    """Turned by their tag, over white, grey of 16 bits scaled, colour made grey."""
    turned = Image.new("RGB", (4, 2), "red")
    turned.getexif()[274] = 6
    grey, clear = Image.new("I;16", (2, 2), 65535), Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert read_pictures(turned, 3)[0].shape == (3, 4, 2)
    assert read_pictures(turned, 1)[0].unique().tolist() == [pytest.approx(76 / 127.5 - 1)]
    assert read_pictures([grey, clear], 1)[0].min() == read_pictures([grey, clear], 1)[1].min() == 1
    with pytest.raises(ValueError, match="the model has 4: give image as a tensor"):
        read_pictures(grey, 4)
