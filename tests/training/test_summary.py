"""The costs of training and of sampling, against counts by hand."""

import pytest
import torch

from flexi_unet.flops import count_gflops
from ssd.training.build import build_scheduler, build_unet
from ssd.training.config import TrainConfig
from ssd.training.routes import BatchRoutes
from ssd.training.summary import mean_gflops, route_costs, sampling_gflops, training_gflops


def parts(**settings):
    config = TrainConfig(res=16, data="digits", out="unused", block_out_channels=[32, 32], **settings)
    with torch.device("meta"):
        unet = build_unet(config)
    return config, unet, build_scheduler(config)


@pytest.mark.parametrize("levels", [1, 2])
def test_an_image_of_the_published_recipe_costs_the_mean_over_the_timesteps(levels):
    config, unet, scheduler = parts(levels=levels)
    expected = mean_gflops(route_costs(unet, scheduler))
    assert training_gflops(config, unet, scheduler) == pytest.approx(expected, rel=1e-12)


def test_frequent_changes_and_larger_coarse_batches_count_as_they_are_drawn():
    """Over 4000 batches the mean is within 2 %."""
    config, unet, scheduler = parts(levels=2, transition_probability=0.4, level_batch_scale=4.0)
    routes = BatchRoutes(scheduler.process, 0, config.transition_probability)
    images = gflops = 0.0
    for batch in range(4000):
        route = routes.route(batch)
        number = 4.0**route.level
        images += number
        gflops += number * count_gflops(unet, scheduler.resolutions[route.level], route.output_size)
    assert training_gflops(config, unet, scheduler) == pytest.approx(gflops / images, rel=0.02)


def test_a_chain_costs_the_sum_of_its_steps():
    _, unet, scheduler = parts(levels=2)
    scheduler.set_timesteps(timesteps=[999, 750, 0])
    full, half = (16, 16), (8, 8)
    expected = count_gflops(unet, half, half) + count_gflops(unet, half, full) + count_gflops(unet, full, full)
    scheduler.set_timesteps(timesteps=[999, 750, 749])
    assert scheduler.size_at(750) == half
    assert sampling_gflops(unet, scheduler) == pytest.approx(expected, rel=1e-12)
