"""Pictures for people: 8-bit pixels, grids, the animation; RGB and grey, square and not."""

import numpy as np
import pytest
import torch

from flexi_unet import FlexiUNet2DModel
from ssd import SSDPipeline, SSDScheduler
from ssd.sampling.image_folder import load_picture, save_picture
from ssd.sampling.many_images import batches_together
from ssd.sampling.pictures import CoarseToFineRecorder, as_picture, from_uint8, image_grid, to_uint8

SHAPES = [(16, 8, 1), (8, 16, 3), (16, 16, 1), (16, 16, 3)]


def some_pixels(shape: tuple[int, int, int], count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_survive_tensors_and_files(shape, tmp_path) -> None:
    pixels = some_pixels(shape)
    assert np.array_equal(to_uint8(from_uint8(pixels)), pixels)
    save_picture(tmp_path / "a.png", pixels[0])
    assert np.array_equal(load_picture(tmp_path / "a.png"), pixels[0])
    assert as_picture(pixels[0]).mode == ("L" if shape[-1] == 1 else "RGB")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("columns", [None, 2])
def test_every_image_is_in_the_grid(shape, columns: int | None) -> None:
    height, width, channels = shape
    pixels = some_pixels(shape)
    grid = np.atleast_3d(np.asarray(image_grid(from_uint8(pixels), columns)))
    across = columns or 3
    assert grid.shape == (-(-5 // across) * (4 * height + 2) + 2, across * (4 * width + 2) + 2, channels)
    for index, image in enumerate(pixels):
        row, column = divmod(index, across)
        top, left = 2 + row * (4 * height + 2), 2 + column * (4 * width + 2)
        assert np.array_equal(grid[top : top + 4 * height : 4, left : left + 4 * width : 4], image)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_animation_shows_both_sides_at_their_size(channels: int) -> None:
    recorder = CoarseToFineRecorder((16, 8), num_images=1)
    pipeline = SSDPipeline(
        FlexiUNet2DModel(sample_size=(16, 8), in_channels=channels, out_channels=channels, block_out_channels=(32, 32)),
        SSDScheduler(sample_size=(16, 8), num_levels=2),
    )
    pipeline._num_timesteps = 1
    tensors = {"latents": torch.full((1, channels, 8, 4), -1.0), "pred_original_sample": torch.zeros(1, channels, 8, 4)}
    recorder(pipeline, 0, 999, tensors)
    frame = np.asarray(recorder.frames[0])[22:]  # below the words
    assert frame.shape == (64, 2 * 32 + 12, 3)
    for left, grey in ((0, 0), (32 + 12, 128)):  # 4 x 8 pixels in the middle of 8 x 16, on white, enlarged fourfold
        panel = frame[:, left : left + 32]
        assert (panel[16:48, 8:24] == grey).all()
        panel = panel.copy()
        panel[16:48, 8:24] = 255
        assert (panel == 255).all()


def test_batches_are_drawn_together_up_to_the_pixels_of_the_finest_level() -> None:
    class OnAnAccelerator:
        device = torch.device("cuda")

        def __init__(self, **options: object) -> None:
            self.scheduler = SSDScheduler(**options)

    together = [
        batches_together(OnAnAccelerator(sample_size=size, num_levels=levels))
        for size, levels in ((64, 1), (64, 2), (64, 3), (64, 4), ((96, 64), 2))
    ]
    assert together == [1, 4, 16, 16, 4]
