"""The sampler: against the bare network, against the Lanczos fallback, and against diffusers' DDPMPipeline.

python benchmarks/sampler.py
python benchmarks/sampler.py --levels 2 --steps 20 --batch_size 4 --pairs 3
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from diffusers import DDPMPipeline, DDPMScheduler
from measuring import DEVICE, Row, four_stages, paired, random_weights, read_settings, same_unet2d, table

from flexi_unet.flops import count_gflops
from ssd import SSDPipeline, SSDScheduler
from ssd.commands.errors import exit_on_usage_error
from ssd.operators import ImplicitOperator, LinearOperator, resize_operator


@dataclass
class SamplerBenchmark:
    """Settings of the benchmark.

    Parameters
    ----------
    res : int
        Full resolution.
    levels : int
        Number of resolutions, at most 4.
    steps : int
        Sampling steps.
    batch_size : int
        Images per call.
    base : int
        Width of the finest stage; the others are 2, 3 and 4 times wider, as at 64 pixels in the paper (base 128).
    pairs : int
        Alternating measurements; the median ratio is reported.
    """

    res: int = 64
    levels: int = 4
    steps: int = 50
    batch_size: int = 16
    base: int = 32
    pairs: int = 3


def main() -> None:
    with exit_on_usage_error(ValueError):
        settings = read_settings(SamplerBenchmark, __doc__)
        rows = measure(settings)
    print(table(rows))


def measure(settings: SamplerBenchmark) -> list[Row]:
    unet = four_stages(settings.res, settings.base)
    pipeline = SSDPipeline(unet, SSDScheduler(sample_size=settings.res, num_levels=settings.levels))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler.set_timesteps(settings.steps)
    return [
        against_network(pipeline, settings),
        level_change(settings),
        against_ddpm(pipeline, settings),
        *groups_by_level(pipeline, settings),
    ]


def against_network(pipeline: SSDPipeline, settings: SamplerBenchmark) -> Row:
    """The whole pipeline / the same calls of the network, on the same inputs, and nothing else."""

    def whole() -> None:
        pipeline(settings.batch_size, num_inference_steps=settings.steps, output_type="pt")

    calls = []
    recorder = pipeline.unet.register_forward_pre_hook(
        lambda module, inputs, named: calls.append((inputs, named)), with_kwargs=True
    )
    whole()
    recorder.remove()

    @torch.inference_mode()
    def network() -> None:
        for inputs, named in calls:
            pipeline.unet(*inputs, **named)

    ratio, one, other = paired(whole, network, settings.pairs)
    what = (
        f"pipeline, {settings.res} pixels, {settings.levels} levels, {settings.steps} steps, "
        f"batch {settings.batch_size}"
    )
    return Row(what, "bare network calls", ratio, "<= 1.05", f"{one:.2f} s, {other:.2f} s")


def level_change(settings: SamplerBenchmark) -> Row:
    """Mean and noise of one level change: the Lanczos fallback with 40 iterations / the closed form."""
    fine, coarse = (settings.res, settings.res), (settings.res // 2, settings.res // 2)
    closed = resize_operator(fine, coarse)
    black_box = ImplicitOperator(closed.forward, fine, num_iterations=40)
    residual = torch.randn(settings.batch_size, 3, *coarse, device=DEVICE)
    noise = torch.randn(settings.batch_size, 3, *fine, device=DEVICE)

    def draw(operator: LinearOperator) -> torch.Tensor:
        spectral = operator.spectral
        mean = spectral.gain(lambda lam: 0.9 * lam, residual)
        return mean + spectral.covariance(lambda lam: 0.5 - 0.4 * lam**2).sqrt_apply(noise)

    torch.testing.assert_close(draw(black_box), draw(closed), atol=1e-4, rtol=0)
    ratio, slow, fast = paired(lambda: draw(black_box), lambda: draw(closed), settings.pairs)
    what = f"level change {settings.res} -> {settings.res // 2}, batch {settings.batch_size}: Lanczos, 40 iterations"
    return Row(what, "closed form", ratio, ">= 100", f"{slow:.2f} s, {1e3 * fast:.2f} ms")


def against_ddpm(pipeline: SSDPipeline, settings: SamplerBenchmark) -> Row:
    """How much of the speed-up over DDPMPipeline that the GFLOPs predict is reached."""
    unet, scheduler = pipeline.unet, pipeline.scheduler
    theirs = DDPMPipeline(random_weights(same_unet2d(unet)).eval().to(DEVICE), DDPMScheduler(prediction_type="sample"))
    theirs.set_progress_bar_config(disable=True)
    pairs = [(t, scheduler.previous_timestep(t)) for t in scheduler.timesteps.tolist()]
    ours_gflops = sum(count_gflops(unet, scheduler.size_at(t), scheduler.size_at(s)) for t, s in pairs)
    size = scheduler.size_at(-1)
    plain_gflops = count_gflops(four_stages(settings.res, settings.base, "full"), size, size)
    predicted = len(pairs) * plain_gflops / ours_gflops
    ratio, slow, fast = paired(
        lambda: theirs(settings.batch_size, num_inference_steps=settings.steps, output_type="np"),
        lambda: pipeline(settings.batch_size, num_inference_steps=settings.steps, output_type="np"),
        settings.pairs,
    )
    note = f"{slow:.2f} s / {fast:.2f} s = {ratio:.2f} x; GFLOPs predict {predicted:.2f} x"
    return Row(
        "speed-up over DDPMPipeline, same widths and steps", "the ratio of GFLOPs", ratio / predicted, ">= 0.9", note
    )


def groups_by_level(pipeline: SSDPipeline, settings: SamplerBenchmark) -> list[Row]:
    """Many images at once, and few at once / groups of as many pixels at every level."""
    batch = settings.batch_size
    many = 4 * batch
    groups: dict[str, int | list[int] | None] = {
        f"{many} images, all at once at every level": None,
        f"{many} images, {batch} at once at every level": [batch] * settings.levels,
    }

    def sample(limit: int | list[int] | None) -> None:
        steps = max(settings.levels, settings.steps // 10)
        pipeline(many, num_inference_steps=steps, output_type="pt", max_batch_size_per_level=limit)

    rows = []
    for name, limit in groups.items():
        ratio, slow, fast = paired(partial(sample, limit), lambda: sample(batch), 1)
        rows.append(
            Row(name, f"groups of {batch}, 4 times larger per halving", ratio, note=f"{slow:.1f} s, {fast:.1f} s")
        )
    return rows


if __name__ == "__main__":
    main()
