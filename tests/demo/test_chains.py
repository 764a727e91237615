"""Steps per level: the chains that they make, and what these cost."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import UNet2DModel

from flexi_unet.flops import count_gflops
from ssd import BlurringScheduler, CorrectiveNoiseScheduler, SSDScheduler
from ssd.demo.chains import chain_of, count_steps, level_costs, step_limits, timesteps_of, usual_steps
from ssd.pipelines.samplers import default_steps, with_sampler

from .conftest import tiny_pipeline

SCHEDULERS = {
    "ssd": SSDScheduler(sample_size=16, num_levels=3),
    "paper": with_sampler(SSDScheduler(sample_size=32, num_levels=4), "paper"),
    "one level": SSDScheduler(sample_size=16, num_levels=1),
    "late switches": SSDScheduler(sample_size=16, num_levels=3, switches=[998, 999]),
    "short": SSDScheduler(sample_size=16, num_levels=2, num_train_timesteps=10),
    "blurring": BlurringScheduler(sample_size=16),
    "corrective noise": CorrectiveNoiseScheduler(sample_size=16, num_levels=3),
}


@pytest.fixture(params=SCHEDULERS)
def scheduler(request):
    return SCHEDULERS[request.param]


def test_every_level_gets_the_steps_that_were_asked_for(scheduler) -> None:
    process, limits = scheduler.process, step_limits(scheduler.process)
    for wanted in (
        [low for low, _ in limits],
        [min(low + 2 * i + 1, high) for i, (low, high) in enumerate(limits)],
        [high for _, high in limits],
        usual_steps(scheduler, default_steps(scheduler)),
    ):
        chain = chain_of(scheduler, wanted)
        assert count_steps(process, chain) == wanted
        assert chain == sorted(set(chain), reverse=True)
        assert chain[0] == process.num_timesteps - 1
        assert set(process.required_timesteps) <= set(chain)
        scheduler.set_timesteps(timesteps=chain)  # the scheduler takes it


def test_the_usual_steps_are_the_pipelines_own_chain() -> None:
    for scheduler in (SCHEDULERS["ssd"], SCHEDULERS["short"], SCHEDULERS["paper"]):
        number = default_steps(scheduler)
        scheduler.set_timesteps(number)
        assert chain_of(scheduler, usual_steps(scheduler, number)) == scheduler.timesteps.tolist()


def test_levels_are_divided_evenly_in_what_the_scheduler_measures() -> None:
    scheduler = with_sampler(SSDScheduler(sample_size=16, num_levels=2), "paper")
    coarse = timesteps_of(scheduler.process, 1)
    part = [t for t in chain_of(scheduler, [30, 6]) if t in coarse]
    gaps = [a - b for a, b in pairwise(part)]
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("wanted", [[0, 1, 2], [1, 1, 1], [1, 1], [1, 1, 101], [101, 1, 2]])
def test_steps_that_there_are_not_are_refused(wanted: list) -> None:
    with pytest.raises(ValueError, match=r"must be in 1\.\.100, 1\.\.100, 2\.\.100, got"):
        chain_of(SCHEDULERS["ssd"], wanted)


def test_the_scheduler_is_not_touched() -> None:
    scheduler = SSDScheduler(sample_size=16, num_levels=3)
    scheduler.set_timesteps(9)
    before = scheduler.timesteps.tolist()
    chain_of(scheduler, [7, 7, 7])
    assert scheduler.timesteps.tolist() == before


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_costs_are_those_of_the_calls(guidance: float) -> None:
    pipe = tiny_pipeline(3, num_class_embeds=4)
    chain = chain_of(pipe.scheduler, [2, 3, 4])
    calls = []
    pipe.unet.register_forward_hook(
        lambda module, given, output: calls.append((given[0].shape[2:], output[0].shape[2:]))
    )
    pipe(timesteps=chain, class_labels=1, guidance_scale=guidance, generator=torch.Generator().manual_seed(0))
    costs = level_costs(pipe.unet, pipe.scheduler.process, chain, guidance != 1)
    assert [cost.steps for cost in costs] == [2, 3, 4]
    for cost in costs:
        mine = [(tuple(a), tuple(b)) for a, b in calls if tuple(a) == cost.size]
        assert cost.calls == len(mine)
        assert cost.gflops == pytest.approx(sum(count_gflops(pipe.unet, a, b) for a, b in mine), rel=1e-12)
        assert cost.per_call == count_gflops(pipe.unet, cost.size, cost.size)


def test_a_network_of_diffusers_has_calls_alone() -> None:
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = UNet2DModel(8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, **blocks)
    scheduler = SSDScheduler(sample_size=8, num_levels=1)
    [cost] = level_costs(unet, scheduler.process, chain_of(scheduler, [5]), False)
    assert (cost.calls, cost.gflops, cost.per_call) == (5, None, None)
