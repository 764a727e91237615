"""The timesteps of a chain: as many as asked for, with all that are required, evenly spread."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd.process.log_snr import effective_half_log_snrs
from ssd.process.spacing import SPACINGS, logsnr_timesteps
from ssd.scheduling_ssd import SSDScheduler

SCHEDULERS = {
    (levels, T): SSDScheduler(sample_size=16, num_levels=levels, num_train_timesteps=T)
    for levels in (1, 3)
    for T in (20, 1000)
}


@given(st.sampled_from(sorted(SCHEDULERS)), st.sampled_from(sorted(SPACINGS)), st.data())
def test_exactly_so_many_descending_with_all_required(key, spacing, data):
    process = SCHEDULERS[key].process
    required = {process.num_timesteps - 1, *process.required_timesteps}
    number = data.draw(st.integers(len(required), process.num_timesteps))
    chain = SPACINGS[spacing](process, number)
    assert len(chain) == number
    assert all(t > s for t, s in pairwise(chain))
    assert required <= set(chain) <= set(range(process.num_timesteps))


def test_even_in_the_log_snr_where_timesteps_allow_it():
    process = SCHEDULERS[1, 1000].process
    known = effective_half_log_snrs(process)
    rises = [known[s] - known[t] for t, s in pairwise(logsnr_timesteps(process, 10)) if s > 20]
    assert max(rises) < 1.05 * min(rises)


def test_few_steps_for_the_levels_are_warned_about(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ssd"), "propagate", True)
    scheduler = SSDScheduler(sample_size=16, num_levels=3, timestep_spacing="logsnr")
    with caplog.at_level(logging.WARNING):
        scheduler.set_timesteps(9)
        assert not caplog.records
        scheduler.set_timesteps(8)
    assert "8 steps are few for 3 levels with timestep_spacing='logsnr': expect better images from 9 steps on." in (
        caplog.text
    )


@pytest.mark.parametrize("spacing", sorted(SPACINGS))
def test_a_number_that_does_not_fit_is_refused(spacing):
    scheduler = SSDScheduler(sample_size=16, num_levels=3, timestep_spacing=spacing)
    with pytest.raises(ValueError, match=r"num_inference_steps must be in 3\.\.1000"):
        scheduler.set_timesteps(2)
