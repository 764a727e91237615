"""Many images, each with its own seed."""

import pytest
import torch
from safetensors.torch import load_file

from ssd import SSDPipeline
from ssd.publishing.saving import load_pipeline
from ssd.sampling.many_images import SamplingSettings, draw

from ..conftest import ROOT

SAVED = ROOT / "tests" / "golden" / "run_0_1"


@pytest.mark.parametrize("load", [SSDPipeline.from_pretrained, lambda folder: load_pipeline(str(folder), "cpu")])
@pytest.mark.parametrize("eta", [0, 1])
def test_a_pipeline_saved_by_version_0_1_gives_its_images(load, eta: int) -> None:
    pipeline, expected, middle = load(SAVED), load_file(SAVED / "samples.safetensors"), []
    pipeline.set_progress_bar_config(disable=True)

    def record(pipe, index, timestep, tensors) -> dict:
        if index == 4:
            middle.append(tensors["latents"].clone())
        return {}

    settings = SamplingSettings(sampler="paper", steps=10, eta=eta, seed=3).prepare(pipeline)
    final = draw(pipeline, range(4), settings, labels=[0, 1, 2, 3], guidance_scale=2.0, callback=record)
    # float32 on whatever CPU: seven times the most that instruction sets and threads were seen to change.
    torch.testing.assert_close(final, expected[f"eta_{eta}.final"], atol=1e-5, rtol=0)
    torch.testing.assert_close(middle[0], expected[f"eta_{eta}.middle"], atol=1e-5, rtol=0)
