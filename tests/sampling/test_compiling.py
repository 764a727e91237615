"""torch.compile: every route is one graph, compiled ahead."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ssd import SSDScheduler
from ssd.sampling.compiling import every_route
from ssd.sampling.many_images import split_evenly

from ..numerics import network_rounding, relative_error
from ..test_pipeline_ssd import small_pipeline


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("curve", ["equal", "convex_decay"])
def test_every_route_is_taken_by_the_short_chain(levels: int, curve: str) -> None:
    scheduler = SSDScheduler(sample_size=32, num_levels=levels, resolution_schedule=curve)

    def routes(timesteps) -> set:
        scheduler.set_timesteps(timesteps=timesteps)
        return {(scheduler.size_at(t), scheduler.size_at(scheduler.previous_timestep(t))) for t in timesteps}

    short = every_route(scheduler)
    assert routes(short) == routes(range(999, -1, -1))
    assert len(short) == 2 * levels - 1


def test_the_network_is_one_graph_on_every_kind_of_route() -> None:
    pipeline = small_pipeline(num_class_embeds=4, layers_per_block=1, attention_resolutions=())
    # Within a level, with zeros for missing skips, and with an upsampled input; other routes run the same lines.
    timesteps = [950, *reversed(pipeline.scheduler.process.resolution.level_changes)]
    torch.compiler.reset()

    def images() -> torch.Tensor:
        return pipeline(
            3,
            timesteps=timesteps,
            generator=torch.Generator().manual_seed(0),
            class_labels=[0, 1, 2],
            output_type="latent",
        ).images

    sizes = []
    hook = pipeline.unet.register_forward_hook(
        lambda module, inputs, output: sizes.append((inputs[0].shape[-1], output[0].shape[-1]))
    )
    expected = images()
    hook.remove()
    assert sizes == [(4, 4), (4, 8), (8, 16)]
    pipeline.unet.compile(backend="eager", dynamic=False, fullgraph=True)  # fullgraph: an error where it breaks
    assert relative_error(images(), expected) < len(timesteps) * network_rounding(pipeline.unet)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs a C++ compiler")
def test_compiled_sampling_gives_the_same_pictures(run_command, tmp_path) -> None:
    small_pipeline().save_pretrained(tmp_path / "model")
    for name, compiled in (("plain", "false"), ("compiled", "true")):
        flags = ["--num", "5", "--steps", "6", "--compile", compiled, "--out", tmp_path / name]
        done = run_command("sample/sample_ssd.py", "--model", tmp_path / "model", *flags)
        assert done.code == 0, done.err
        assert ("compiling: 100%" in done.err and "5/5" in done.err) == (compiled == "true")
    for plain in sorted((tmp_path / "plain").glob("*.png")):
        one, other = (np.array(Image.open(path), dtype=int) for path in (plain, tmp_path / "compiled" / plain.name))
        assert abs(one - other).max() <= 1


@pytest.mark.parametrize(("count", "limit"), [(1, 4), (4, 4), (5, 4), (17, 16), (300, 256), (7, 3)])
def test_parts_are_even(count: int, limit: int) -> None:
    parts = split_evenly(range(count), limit)
    assert [i for part in parts for i in part] == list(range(count))
    assert max(map(len, parts)) <= limit
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len(parts) == -(-count // limit)
