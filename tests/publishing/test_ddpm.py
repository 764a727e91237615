"""Pipelines of diffusers' DDPM and DDIM as SSDPipelines: the same pixels, the commands, what is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, PNDMScheduler, UNet2DModel

from ssd import SSDPipeline, from_ddpm
from ssd.commands.errors import UsageError
from ssd.publishing.saving import load_pipeline

from ..numerics import relative_error

STEPS = 100


def cosine(i: int) -> float:
    """abar of the cosine schedule after i steps (arXiv:2102.09672, equation 17), but for a factor."""
    return math.cos((i / STEPS + 0.008) / 1.008 * math.pi / 2) ** 2


BETAS = {
    "linear": torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64),
    "scaled_linear": torch.linspace(0.01, 0.02**0.5, STEPS, dtype=torch.float64) ** 2,
    "squaredcos_cap_v2": torch.tensor(
        [min(0.999, 1 - cosine(i + 1) / cosine(i)) for i in range(STEPS)], dtype=torch.float64
    ),
}


def plain_unet(**settings) -> UNet2DModel:
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "norm_num_groups": 4}
    sizes = {"sample_size": 8, "block_out_channels": (8,), "layers_per_block": 1}
    return UNet2DModel(**(blocks | sizes | settings)).eval()


def exact(scheduler, betas: torch.Tensor):
    """A scheduler of diffusers with its tables in float64: its own float32 tables are off by up to 4e-4 at small t."""
    scheduler.alphas_cumprod = torch.cumprod(1 - betas, dim=0)
    scheduler.one = scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn(pipeline: SSDPipeline, **options) -> torch.Tensor:
    """Two images in float64, with the random numbers that a pipeline of diffusers takes from generator 0."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)
    return quiet(pipeline)(2, latents=latents, generator=generator, output_type="pt", **options).images


@pytest.mark.parametrize("prediction_type", ["sample", "epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("schedule", "settings"),
    [
        ("linear", {"variance_type": "fixed_large"}),
        ("scaled_linear", {"clip_sample": False, "variance_type": "fixed_small_log"}),
        ("squaredcos_cap_v2", {}),
    ],
)
def test_pixels_are_those_of_ddpm_at_all_timesteps(schedule: str, settings: dict, prediction_type: str) -> None:
    scheduler = DDPMScheduler(
        num_train_timesteps=STEPS, beta_schedule=schedule, prediction_type=prediction_type, **settings
    )
    theirs = quiet(DDPMPipeline(plain_unet().double(), scheduler))
    ours = from_ddpm(theirs)
    assert ours.unet is theirs.unet
    exact(scheduler, BETAS[schedule])
    for number in (STEPS, 10):  # all, and every tenth timestep
        options = {"generator": torch.Generator().manual_seed(0), "num_inference_steps": number, "output_type": "pt"}
        expected = theirs(2, **options).images
        found = drawn(ours, timesteps=scheduler.timesteps.tolist())
        assert relative_error(found, expected) < 1e-8
        assert float(expected.std()) > 0.01


@pytest.mark.parametrize("number", [STEPS, 20])
@pytest.mark.parametrize("clip", [True, False])
def test_pixels_are_those_of_ddim(number: int, clip: bool) -> None:
    scheduler = DDIMScheduler(num_train_timesteps=STEPS, clip_sample=clip)
    theirs = quiet(DDIMPipeline(plain_unet().double(), scheduler))
    theirs.scheduler = exact(theirs.scheduler, BETAS["linear"])
    ours = from_ddpm(theirs)
    options = {"generator": torch.Generator().manual_seed(0), "output_type": "np", "use_clipped_model_output": True}
    expected = torch.from_numpy(theirs(2, num_inference_steps=number, eta=0.0, **options).images).permute(0, 3, 1, 2)
    found = drawn(ours, timesteps=theirs.scheduler.timesteps.tolist(), eta=0.0)
    assert relative_error(found, expected) < 1e-6  # NumPy images are rounded to float32


def test_even_timesteps_are_those_of_linspace_in_ddpm() -> None:
    scheduler = DDPMScheduler(timestep_spacing="linspace")
    ours = from_ddpm(DDPMPipeline(plain_unet(), scheduler)).scheduler
    for number in (2, 10, 37, 100, 1000):
        scheduler.set_timesteps(number)
        ours.set_timesteps(number)
        assert ours.timesteps.tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize("layout", ["parts", "together"])
def test_a_folder_of_diffusers_is_a_model_of_the_commands(layout: str, tmp_path: Path, run_command) -> None:
    settings = {"variance_type": "fixed_large", "beta_schedule": "squaredcos_cap_v2", "clip_sample_range": 1.5}
    folder = tmp_path / "ddpm"
    DDPMPipeline(plain_unet(in_channels=1, out_channels=1), DDPMScheduler(**settings)).save_pretrained(folder)
    if layout == "together":  # as the first public checkpoints
        for part in ("unet", "scheduler"):
            for file in (folder / part).iterdir():
                shutil.move(file, folder / file.name)
            (folder / part).rmdir()
    pipeline = load_pipeline(str(folder), "cpu")
    config = pipeline.scheduler.config
    assert {name: config[name] for name in settings} == settings
    assert (config.solver_order, config.timestep_spacing, config.prediction_type) == (1, "linspace", "epsilon")
    again = from_ddpm(folder)
    assert dict(again.scheduler.config) == dict(config)
    assert all(map(torch.equal, again.unet.parameters(), pipeline.unet.parameters()))
    out = tmp_path / "images"
    done = run_command("sample/sample_ssd.py", "--model", folder, "--num", "5", "--steps", "5", "--out", out)
    assert done.code == 0, done.err
    assert len(json.loads((out / "samples.json").read_text())["model"]) == 64
    more = ["--ref", "digits", "--features", "pixels", "--metrics", "fid", "--out", tmp_path / "eval"]
    done = run_command("sample/eval_fid.py", "--model", folder, "--num", "20", "--steps", "4", *more)
    assert done.code == 0, done.err
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    next(other.rglob("scheduler_config.json")).write_text(json.dumps(dict(DDPMScheduler(beta_end=0.03).config)
        | {"_class_name": "DDPMScheduler"}))  # fmt: skip
    done = run_command("sample/sample_ssd.py", "--model", other, "--num", "5", "--steps", "5", "--out", out)
    done.assert_one_line_error("holds images of another run: model is ")


REFUSED = {
    "learned variance": ({"variance_type": "learned_range"}, "variance_type='learned_range', and SSDScheduler knows"),
    "log of the large": ({"variance_type": "fixed_large_log"}, "knows only fixed_small, fixed_small_log, fixed_large"),
    "betas": ({"trained_betas": [0.1, 0.2]}, r"trained_betas=\[0.1, 0.2\], and SSDScheduler knows no other than None"),
    "thresholding": ({"thresholding": True}, "thresholding=True"),
    "zero snr": ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=True"),
    "sigmoid": ({"beta_schedule": "sigmoid"}, "beta_schedule='sigmoid', and SSDScheduler knows only linear, scaled_"),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.values(), ids=REFUSED)
def test_settings_that_there_are_not_are_one_sentence(settings: dict, message: str, tmp_path: Path) -> None:
    pipeline = DDPMPipeline(plain_unet(), DDPMScheduler(**settings))
    with pytest.raises(ValueError, match=message) as raised:
        from_ddpm(pipeline)
    assert "\n" not in str(raised.value)
    pipeline.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=message):
        load_pipeline(str(tmp_path), "cpu")


def test_other_pipelines_are_one_sentence(tmp_path: Path) -> None:
    ddim = DDIMPipeline(plain_unet(), DDIMScheduler())
    ddim.register_modules(scheduler=DDIMScheduler(set_alpha_to_one=False))
    with pytest.raises(ValueError, match="set_alpha_to_one=False"):
        from_ddpm(ddim)
    other = DDPMPipeline(plain_unet(), DDPMScheduler())
    other.register_modules(scheduler=PNDMScheduler())
    with pytest.raises(ValueError, match=r"PNDMScheduler are not those of DDPM.*DDPMScheduler.from_config"):
        from_ddpm(other)
    other.save_pretrained(tmp_path / "pndm")
    with pytest.raises(UsageError, match=r"'PNDMScheduler' instead of one of DDPMScheduler, DDIMScheduler"):
        load_pipeline(str(tmp_path / "pndm"), "cpu")
    with pytest.raises(ValueError, match="predicts 6 channels for images of 3"):
        from_ddpm(DDPMPipeline(plain_unet(out_channels=6), DDPMScheduler()))
    with pytest.raises(ValueError, match="does not say its sample_size"):
        from_ddpm(DDPMPipeline(plain_unet(sample_size=None), DDPMScheduler()))
