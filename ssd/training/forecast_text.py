"""A forecast for people: a table, a line for each kind of cost, and warnings that name what fits."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from .forecast import Forecast, forecast
from .setup import Setup
from .timing import RouteTime

MOST_PASSES, GOOD_PASSES = 5000, 1000
"""Over the data, from where it is too much, and what to use instead. The paper's recipes make 100 to 800."""
MOST_DAYS = 7
FOR_CPUS = "configs/ours/pictures32.yaml (half an hour)"
"""A preset that is made for CPUs, as its head says."""
MUCH = 0.9
"""Of the free memory or disk."""


def forecast_text(setup: Setup, accelerator: Accelerator) -> list[str]:
    """What `forecast` finds: lines for people, and what is too much."""
    device = accelerator.device.type
    threads = _number(torch.get_num_threads(), "thread", "threads")
    machine = f"CPU, {threads}" if device == "cpu" else torch.cuda.get_device_name()
    made = forecast(setup, accelerator)
    return [*forecast_lines(made, machine), *(f"warning: {warning}" for warning in forecast_warnings(made, device))]


def forecast_lines(made: Forecast, machine: str) -> list[str]:
    """The table, and a line for each kind of cost; `machine` in words."""
    steps = made.config.total_steps - made.steps_done
    lines = ["", f"On this machine ({machine}, {_number(made.num_processes, 'process', 'processes')})"]
    lines.append(f"  {'route':24} {'of batches':>10} {'seconds per batch':>18}")
    lines += [
        f"  {time.route!s:24} {time.route.share:10.1%} {time.seconds:18.4g}  {_how(time)}" for time in made.routes
    ]
    lines.append(f"  {'update of the weights':24} {'':10} {made.update:18.4g}")
    lines += [f"  {what:8} {text}" for what, text in _costs(made, steps).items()]
    return [*lines, "  Not in it: sample grids, saving, and what processes tell each other."]


def forecast_warnings(made: Forecast, device_type: str) -> list[str]:
    """What is too much, each with what fits."""
    config, said = made.config, []
    per_step = made.images_per_step
    if made.passes is not None and made.num_images is not None and made.passes > MOST_PASSES:
        fitting = round(GOOD_PASSES * made.num_images / per_step) or 1
        said.append(
            f"each of the {made.num_images} images would be seen {made.passes:,.0f} times, and learned by heart: "
            f"with --max_steps {fitting} it is {GOOD_PASSES:,} times."
        )
    if made.hours > 24 * MOST_DAYS:
        a_day = max(1, int(24 * 3600 / made.step))
        preset = f", {FOR_CPUS} is made for CPUs" if device_type == "cpu" else ""
        said.append(
            f"the run would take {_duration(3600 * made.hours)} here: with --max_steps {a_day} or --max_minutes "
            f"1440 it is a day{preset}; a lower --res or narrower --block_out_channels take less per step."
        )
    if made.memory > MUCH * (made.free_memory + made.resident):
        said.append(_less_memory(made))
    if made.disk > MUCH * made.free_disk:
        said.append(
            f"the disk of {config.out} has {_bytes(made.free_disk)} left, and {_bytes(made.disk)} are needed: use "
            "--checkpoints_total_limit 1 without --milestone_every, or another --out."
        )
    if made.loading > made.computing:
        faster = "prepare a copy with python -m ssd.data.prepare, or raise --num_workers"
        said.append(
            f"reading takes {made.loading:.3g} s per step, longer than computing, {made.computing:.3g} s: {faster}."
        )
    return said


def _costs(made: Forecast, steps: int) -> dict[str, str]:
    config, largest = made.config, max(made.routes, key=made.of_batch)
    left = f" that are left of {config.total_steps}" if made.steps_done else ""
    activations = f"{_bytes(made.of_batch(largest))} for the way back of {largest.at_once} images at once"
    if made.reading is None:
        reading = "not measured of a stream"
    else:
        by = _number(config.num_workers, "worker", "workers") if config.num_workers else "the training process"
        reading = f"{made.loading:.3g} s per step by {by}, {1 / max(made.reading, 1e-9):,.0f} images/s each"
    return {
        "reading": reading,
        "time": f"{made.step:.3g} s per step, routes weighted by their share of the batches; {steps} steps{left}: "
        f"{_duration(3600 * made.hours)}",
        "memory": f"about {_bytes(made.memory)} (counted, not measured): {_bytes(made.fixed_memory)} for the program, "
        f"weights, gradients, moments and averages, {activations}; {_bytes(made.free_memory)} are free",
        "disk": f"{_bytes(made.disk)} for checkpoints and the pipeline; {_bytes(made.free_disk)} are free",
        "data": f"{config.total_steps} steps of {made.images_per_step:.4g} images"
        + (f": {made.passes:,.3g} passes over {made.num_images}" if made.passes is not None else " of a stream"),
    }


def _less_memory(made: Forecast) -> str:
    """A warning, with the largest batch that fits."""
    room = MUCH * (made.free_memory + made.resident) - made.fixed_memory
    fitting = int(room / max(map(made.of_image, made.routes)))
    if fitting >= 1:
        way = f"--micro_batch_size {fitting}, which changes no step, or --gradient_checkpointing"
    else:
        way = "--gradient_checkpointing, or a smaller network"
    return f"about {_bytes(made.memory)} of memory are needed, and {_bytes(made.free_memory)} are free: use {way}."


def _how(each: RouteTime) -> str:
    """How the time of a route is known."""
    if each.timed == 0:
        return "by its GFLOPs: an image takes longer than was left for measuring"
    if each.timed == each.images:
        return f"measured with all {each.images} images"
    return f"measured with {each.timed} of {each.images} images"


def _duration(seconds: float) -> str:
    """In the unit that people would use.

    Examples
    --------
    >>> _duration(90), _duration(7000), _duration(300 * 86400)
    ('1.5 minutes', '1.9 hours', '300 days')
    """
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length or unit == "minutes":
            return f"{seconds / length:.2g} {unit}" if seconds < 100 * length else f"{seconds / length:,.0f} {unit}"
    raise AssertionError


def _bytes(number: float) -> str:
    """
    Examples
    --------
    >>> _bytes(3 * 2**20), _bytes(2.5 * 2**30)
    ('3 MiB', '2.5 GiB')
    """
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def _number(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"
