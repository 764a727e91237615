"""How long the parts of a training step take on this machine: the routes, the update of the weights, the reading.

Nothing here takes much longer than it is told to. A route is timed forward and backward, with random images of which
there are twice as many each time, until the whole batch is reached or the time is used up. What would take too long is
not timed but extrapolated, by its arithmetic, from the speed of what was timed before.

Shape letters: n images, C channels, R the full resolution, h w the size of x_t.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch
from accelerate import Accelerator

from flexi_unet.flops import count_gflops, count_kept_bytes

from ..data import ImageStream
from ..data.dataset import ImageDataset
from ..process.losses import denoising_loss, training_pair
from ..seeding import numpy_generator
from .ema import EmaNetworks
from .routes import RouteShare, route_shares
from .run_config import images_per_batch
from .setup import Setup

SECONDS = 5.0
"""For the routes of a run together; the update and the reading take at most about as long again."""

SOME_WEIGHTS = 2**22
"""More than caches hold."""

BACK = 3
"""The way forward and back costs about this many times the way forward."""


@dataclass(frozen=True)
class RouteTime:
    """What a batch of one route takes.

    Attributes
    ----------
    route : RouteShare
    images : int
        Of this process in a batch.
    at_once : int
        The most images that go through the network together.
    kept : int
        Bytes that autograd keeps of an image, in float32.
    timed : int
        How many images were timed together; 0 where the time is extrapolated.
    seconds : float
        Of the batch.
    """

    route: RouteShare
    images: int
    at_once: int
    kept: int
    timed: int
    seconds: float


def time_routes(setup: Setup, accelerator: Accelerator, seconds: float = SECONDS) -> list[RouteTime]:
    """All routes, finest first, in about `seconds`. The network is on its device afterwards."""
    config, device = setup.config, accelerator.device
    unet = setup.unet.to(device).train()
    own = images_per_batch(config, accelerator.num_processes)
    routes = route_shares(setup.scheduler.process, config.transition_probability)
    work = {route: BACK * count_gflops(unet, route.size, route.output_size) for route in routes}  # of an image
    kept = {
        route: count_kept_bytes(unet, route.size, route.output_size, config.gradient_checkpointing) for route in routes
    }
    images = {route: max(1, round(own * config.level_batch_scale**route.level)) for route in routes}
    speed, left = speed_of_convolution(device), seconds
    found: dict[RouteShare, tuple[int, float]] = {}
    for route in sorted(routes, key=lambda route: -route.share * work[route]):  # what matters most comes first
        at_once = min(images[route], config.micro_batch_size or images[route])
        most = min(at_once, free_bytes(device) // 2 // max(1, kept[route]))
        if most >= 1 and (of_image := work[route] / speed) < left / 2:
            step = _step_of(setup, accelerator, route)
            if not found:
                step(1)  # the first one of all is slower
            first = max(1, min(most, int(left / 8 / of_image)))
            number, taken, used = time_doubling(step, first, most, left / 2)
            found[route], left = (number, taken), left - used
            speed = max(speed, work[route] * number / taken)
    if found:  # for the others, what the network's own arithmetic reached
        speed = sum(work[route] * n for route, (n, _) in found.items()) / sum(taken for _, taken in found.values())
    timed = {route: found.get(route, (0, 0.0)) for route in routes}
    return [
        RouteTime(
            route,
            images[route],
            min(images[route], config.micro_batch_size or images[route]),
            kept[route],
            number,
            images[route] * (taken / number if number else work[route] / speed),
        )
        for route, (number, taken) in timed.items()
    ]


def time_doubling(step: Callable[[int], float], first: int, most: int, seconds: float) -> tuple[int, float, float]:
    """How many images were timed together, what they took, and what it took in all.

    Parameters
    ----------
    step : callable
        A number of images -> the seconds that they took.
    first, most : int
        Images to begin with, and how many there are.
    seconds : float
        No further step begins that would exceed them.

    Examples
    --------
    >>> time_doubling(lambda n: n / 8, first=1, most=100, seconds=2.0)
    (8, 1.0, 1.875)
    >>> time_doubling(lambda n: n / 8, first=1, most=3, seconds=9.0)
    (3, 0.375, 1.125)
    """
    images, taken = first, step(first)
    used = taken
    while images < most and used + 2 * taken < seconds:
        images = min(2 * images, most)
        taken = step(images)
        used += taken
    if used + taken < seconds:
        again = step(images)
        taken, used = min(taken, again), used + again
    return images, taken, used


def time_update(setup: Setup, accelerator: Accelerator) -> float:
    """Seconds of AdamW, the clipping and the averages, of a part of the weights and in proportion for the others."""
    config, device = setup.config, accelerator.device
    weights, some, number = list(setup.unet.to(device).parameters()), torch.nn.ParameterList(), 0
    for weight in weights:
        if number < SOME_WEIGHTS:
            some.append(torch.nn.Parameter(torch.zeros_like(weight)))
            some[-1].grad = torch.zeros_like(weight)
            number += weight.numel()
    ema = EmaNetworks(
        some, config.ema_decays, torch.device("cpu") if config.ema_on_cpu else device, config.posthoc_widths
    )
    optimizer = torch.optim.AdamW(some, fused=True)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(some, 1.0)
        optimizer.step()
        ema.update(some)

    seconds = min([_seconds(update, device) for _ in range(3)][1:])  # the first one makes the moments
    return seconds * sum(weight.numel() for weight in weights) / number


def time_reading(dataset: ImageDataset | ImageStream, seed: int, seconds: float = 0.5) -> float | None:
    """Seconds that one process needs for an image; None for a stream, which may have to be fetched first."""
    if isinstance(dataset, ImageStream):
        return None
    order = numpy_generator(seed, "timing").permutation(len(dataset))[:256].tolist()
    start, number = time.perf_counter(), 0
    while number < len(order) and time.perf_counter() - start < seconds:
        dataset[order[number]]
        number += 1
    return (time.perf_counter() - start) / number


def speed_of_convolution(device: torch.device) -> float:
    """GFLOPs per second of a convolution as networks have them, forward: what to expect before anything is timed."""
    convolution = torch.nn.Conv2d(64, 64, 3, padding=1, device=device)
    x = torch.zeros(4, 64, 32, 32, device=device)
    with torch.no_grad():
        seconds = min(_seconds(lambda: convolution(x), device) for _ in range(20))  # others may use the machine, too
    return 2 * 9 * 64**2 * 4 * 32**2 / 1e9 / seconds


def free_bytes(device: torch.device) -> int:
    """Memory that nobody uses, of a GPU or of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _step_of(setup: Setup, accelerator: Accelerator, route: RouteShare) -> Callable[[int], float]:
    """Way forward and back of n random images, in seconds."""
    config, unet, process, device = setup.config, setup.unet, setup.scheduler.process, accelerator.device
    prediction_type = str(config.prediction_type)

    def step(n: int) -> float:
        x_0 = torch.rand(n, config.channels, *process.size(-1), device=device) * 2 - 1
        noise = torch.randn(n, config.channels, *route.size, device=device)
        t = torch.full((n,), route.t)
        labels = torch.zeros(n, dtype=torch.int64, device=device) if config.class_conditional else None

        def run() -> None:
            network_input, target = training_pair(process, x_0, t, noise, prediction_type)
            with accelerator.autocast():
                output = unet(network_input, t.to(device), class_labels=labels, output_size=route.output_size).sample
            weights = (prediction_type, config.loss, config.max_snr)
            denoising_loss(process, output.float(), target, t, *weights).sum().backward()

        seconds = _seconds(run, device)
        unet.zero_grad(set_to_none=True)
        return seconds

    return step


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
