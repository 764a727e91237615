"""Networks that give NaN or infinity: the pipeline tells the image and the timestep, and never waits for it."""

import pytest
import torch

from ssd.commands.errors import BrokenModel
from ssd.pipelines.faults import FirstFaults
from ssd.sampling.many_images import SamplingSettings, draw

from ..test_pipeline_ssd import small_pipeline


def break_network(pipeline, image: int, call: int, value: float) -> None:
    """Let the prediction of one image of the batch be `value` from network call number `call` on."""
    calls = []

    def spoil(module, inputs, output):
        calls.append(None)
        if len(calls) > call:
            output[0][image, 0, 0, 0] = value
        return output

    pipeline.unet.register_forward_hook(spoil)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("call", [0, 3, 5])
def test_the_first_image_and_timestep_are_named(value: float, call: int) -> None:
    pipeline = small_pipeline()
    break_network(pipeline, 1, call, value)
    pipeline(3, num_inference_steps=6, output_type="latent")
    t = int(pipeline.scheduler.timesteps[call])
    assert pipeline.first_fault() == (1, t)


def test_drawing_stops(capsys) -> None:
    pipeline = small_pipeline()
    assert pipeline.first_fault() is None
    settings = SamplingSettings(steps=4)
    assert draw(pipeline, [7, 8, 9], settings).isfinite().all()
    assert pipeline.first_fault() is None
    break_network(pipeline, 2, 2, float("inf"))
    t = int(pipeline.scheduler.timesteps[2])
    with pytest.raises(BrokenModel, match=f"Image 9 cannot be drawn.*timestep {t}, so its weights are broken"):
        draw(pipeline, [7, 8, 9], settings)


def test_the_earliest_step_of_every_image_counts() -> None:
    faults = FirstFaults(3, 5, torch.device("cpu"))
    good, bad = torch.zeros(3, 2, 2), torch.tensor([0.0, torch.nan, torch.inf])[:, None, None].expand(3, 2, 2)
    faults.note(0, good)
    assert faults.first() is None
    for step in (2, 4):
        faults.note(step, bad)
    faults.note(1, torch.tensor([[0.0], [0.0], [torch.nan]]))
    assert faults.first() == (1, 2)
