"""Held-out images of a run of Scale Space Diffusion: what is measured, and that nothing is learned from them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from accelerate import Accelerator

from ssd.data import open_dataset
from ssd.data.held_out import hold_out
from ssd.evaluation.given_images import NumberedImages
from ssd.pipelines.guidance import no_class_label
from ssd.process.losses import denoising_loss, training_pair
from ssd.training.build import build_scheduler, build_unet
from ssd.training.config import TrainConfig
from ssd.training.held_out import every_route, held_out_loss
from ssd.training.log import read_log
from ssd.training.routes import BatchRoutes

from ..conftest import TINY, run_script

TRAIN = "train/train_ssd.py"


def settings(**changes) -> TrainConfig:
    small = {"levels": 2, "block_out_channels": [32, 32], "layers_per_block": 1, "global_batch_size": 4}
    return TrainConfig(res=8, data="digits", out="x", channels=1, **small | changes)


def test_routes_share_all_timesteps() -> None:
    process = build_scheduler(settings(levels=3, block_out_channels=[32, 32, 32])).process
    routes = every_route(process)
    assert sum(share for _, share in routes) == pytest.approx(1)
    assert [route.change for route, _ in routes if route.change is not None] == list(process.required_timesteps)


@pytest.mark.parametrize("changes", [{}, {"clipped_loss": True, "loss": "sqrt_snr", "prediction_type": "v_prediction"}])
def test_it_is_the_loss_of_training_in_expectation(changes) -> None:
    """That of one image over and over, with a network of its first weights, against draws of training's timesteps."""
    config = settings(**changes)
    torch.manual_seed(0)
    unet, scheduler = build_unet(config, None).eval(), build_scheduler(config)
    process, kind = scheduler.process, scheduler.config.prediction_type
    one = open_dataset("digits", 8, channels=1)[3]["image"]
    x_0 = torch.as_tensor(one)[None].expand(400, -1, -1, -1)

    class Copies(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 400

        def __getitem__(self, index: int) -> dict:
            return {"image": x_0[index]}

    images = NumberedImages(Copies(), list(range(400)), 200, torch.device("cpu"), False)
    found = held_out_loss(config, unet, scheduler, images, Accelerator(cpu=True))
    losses, generator = [], torch.Generator().manual_seed(0)
    for batch in range(60):
        route = BatchRoutes(process, 0).route(batch)
        t = BatchRoutes(process, 0).timesteps(route, torch.rand(40, generator=generator).numpy())
        noise = torch.randn(40, 1, *process.size(int(t[0])), generator=generator)
        x_t, target = training_pair(process, x_0[:40], t, noise, kind)
        with torch.no_grad():
            output = unet(x_t, t, output_size=route.output_size).sample
        clipped = process.target(x_0[:40], t) if config.clipped_loss else None
        losses.append(denoising_loss(process, output, target, t, kind, config.loss, config.max_snr, clipped).mean())
    drawn = torch.stack(losses)  # of one route each
    assert abs(found - float(drawn.mean())) < 4 * float(drawn.std()) / math.sqrt(len(drawn))


@pytest.mark.parametrize("more", [[], ["--class_conditional", "true"], ["--process", "corrective_noise"]])
def test_a_run_measures_what_it_does_not_learn(tmp_path, more) -> None:
    flags = [*TINY, "--data", "digits", "--num_valid", "9", "--valid_every", "2", "--log_every", "3"]
    done = run_script(TRAIN, *flags, "--max_steps", "4", "--out", tmp_path / "x", *more)
    assert done.code == 0, done.err
    rows = {row["step"]: row for row in read_log(tmp_path / "x" / "log.csv")}
    assert [step for step, row in rows.items() if row["valid_loss"]] == ["2", "4"]
    assert bool(rows["4"]["valid_bits_per_dim"]) == ("corrective_noise" not in more)
    state = json.loads((tmp_path / "x/checkpoints/step_00000004/state.json").read_text())
    assert state["data"]["part"] == "all but 9 held-out images"
    assert "9 images" in (tmp_path / "x/README.md").read_text()


def test_labels_of_held_out_images_are_their_own() -> None:
    """A network that sees the label: another label, another loss."""
    config = settings(class_conditional=True, num_classes=10)
    _, held_out = hold_out(open_dataset("digits", 8, channels=1, labels=True), 4)
    torch.manual_seed(0)
    unet, scheduler = build_unet(config, [str(digit) for digit in range(10)]).eval(), build_scheduler(config)
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    images = NumberedImages(held_out, [0, 1, 2, 3], 4, torch.device("cpu"), True)
    found = held_out_loss(config, unet, scheduler, images, Accelerator(cpu=True))
    embedding = unet.class_embedding.weight
    with torch.no_grad():
        embedding[no_class_label(unet)] += 1  # which no image has
        assert held_out_loss(config, unet, scheduler, images, Accelerator(cpu=True)) == found
        embedding[: no_class_label(unet)] += 1
    assert held_out_loss(config, unet, scheduler, images, Accelerator(cpu=True)) != found
