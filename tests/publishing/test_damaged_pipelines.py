"""Damaged pipelines: one line with the true cause, before anything is allocated, for all commands that load one."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

from flexi_unet import FlexiUNet2DModel, ResizedUNet2DModel
from ssd import BlurringScheduler, CorrectiveNoiseScheduler, SSDPipeline, SSDScheduler
from ssd.commands.errors import UsageError
from ssd.publishing.saving import load_pipeline, load_unet, save_pipeline
from ssd.training.networks import resized_unet_of

INDEX, UNET, SCHEDULER = "model_index.json", "unet/config.json", "scheduler/scheduler_config.json"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def saved(pipeline: SSDPipeline, tmp_path: Path) -> Path:
    """A saved pipeline, without the digests, which would notice every change of the weights."""
    save_pipeline(pipeline, tmp_path / "model")
    (tmp_path / "model" / "pipeline.json").unlink()
    return tmp_path / "model"


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def drop(path: Path, key: str) -> None:
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))


def change_tensors(path: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "index {}": (lambda f: (f / INDEX).write_text("{}"), r"model_index.json names the class None"),
    "unet {}": (lambda f: (f / UNET).write_text("{}"), r"unet/config.json names the class None"),
    "scheduler {}": (lambda f: (f / SCHEDULER).write_text("{}"), r"scheduler_config.json names the class None"),
    "index list": (lambda f: (f / INDEX).write_text("[1]"), r"model_index.json is damaged: it holds a list"),
    "unet number": (lambda f: (f / UNET).write_text("3"), r"unet/config.json is damaged: it holds a int"),
    "scheduler cut": (lambda f: (f / SCHEDULER).write_text('{"a": '), r"scheduler_config.json is damaged"),
    "unet binary": (lambda f: (f / UNET).write_bytes(b"\xff\x00"), r"unet/config.json is damaged"),
    "unet nested": (lambda f: (f / UNET).write_text("[" * 100_000), r"unet/config.json is damaged"),
    "unet gone": (lambda f: (f / UNET).unlink(), r"unet/config.json cannot be read"),
    "other class": (lambda f: change(f / INDEX, _class_name="PNDMPipeline"), r"'PNDMPipeline' instead of"),
    "other module": (lambda f: change(f / INDEX, unet=["os", "system"]), r"unet is \['os', 'system'\]; it must be"),
    "other part": (lambda f: change(f / INDEX, vae=["a", "b"]), r"does not have: vae"),
    "part is text": (lambda f: change(f / INDEX, scheduler="SSDScheduler"), r"scheduler is 'SSDScheduler'"),
    "other network": (lambda f: change(f / UNET, _class_name="UNet2DModel"), r"'UNet2DModel' instead of"),
    "unknown setting": (lambda f: change(f / UNET, flavour="sweet"), r"does not know: flavour"),
    "missing setting": (lambda f: drop(f / SCHEDULER, "num_levels"), r"lacks settings: num_levels"),
    "text for a number": (lambda f: change(f / UNET, norm_num_groups="32"), r"norm_num_groups cannot be '32'"),
    "number for a switch": (lambda f: change(f / SCHEDULER, clip_sample=1), r"clip_sample cannot be 1"),
    "nan": (lambda f: change(f / SCHEDULER, beta_end=float("nan")), r"beta_end cannot be nan"),
    "wide": (lambda f: change(f / UNET, block_out_channels=[10**9, 10**9]), r"unet/config.json"),
    "wider": (lambda f: change(f / UNET, block_out_channels=[64, 64]), r"\(128, 32\) in the file"),
    "many stages": (lambda f: change(f / UNET, block_out_channels=[32] * 10**5), r"residual blocks"),
    "many layers": (lambda f: change(f / UNET, layers_per_block=10**9), r"2000000000 residual blocks"),
    "huge images": (lambda f: change(f / UNET, sample_size=2**30), r"at most 4096 pixels"),
    "huge states": (lambda f: change(f / SCHEDULER, sample_size=2**30), r"at most 4096 pixels"),
    "many timesteps": (lambda f: change(f / SCHEDULER, num_train_timesteps=10**12), r"at most 100000, got 10"),
    "many classes": (lambda f: change(f / UNET, num_class_embeds=10**9), r"class_embedding"),
    "no clip": (lambda f: change(f / SCHEDULER, clip_sample_range=-1.0), r"clip_sample_range must be positive"),
    "other size": (lambda f: change(f / SCHEDULER, sample_size=32), r"the network's 16 x 16: build the scheduler"),
    "truncated": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-1000]), r"truncated or damaged"),
    "zeroed": (lambda f: (f / WEIGHTS).write_bytes(bytes((f / WEIGHTS).stat().st_size)), r"truncated or damaged"),
    "empty": (lambda f: (f / WEIGHTS).write_bytes(b""), r"truncated or damaged"),
    "missing tensor": (
        lambda f: change_tensors(f / WEIGHTS, lambda t: t.pop("conv_in.bias")),
        r"lack 1 tensors, such as conv_in.bias",
    ),
    "extra tensor": (
        lambda f: change_tensors(f / WEIGHTS, lambda t: t.update(extra=torch.zeros(3))),
        r"surplus of 1 tensors, such as extra",
    ),
    "integers": (
        lambda f: change_tensors(f / WEIGHTS, lambda t: t.update({"conv_in.bias": torch.zeros(32, dtype=torch.int64)})),
        r"holds conv_in.bias as I64; weights are F64",
    ),
    "pickle": (
        lambda f: (f / WEIGHTS).rename(f / "unet" / "diffusion_pytorch_model.bin"),
        r"safetensors is missing. diffusion_pytorch_model.bin is a pickle",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_the_cause_is_named(name: str, saved: Path) -> None:
    damage, message = DAMAGE[name]
    damage(saved)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match=message) as raised:
        load_pipeline(str(saved), "cpu")
    assert str(saved) in str(raised.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 2**10  # KiB


@pytest.mark.parametrize("name", ["unet {}", "wide", "many classes", "truncated", "missing tensor", "pickle"])
def test_a_network_to_start_from(name: str, saved: Path) -> None:
    damage, message = DAMAGE[name]
    damage(saved)
    with pytest.raises(UsageError, match=message) as raised:
        load_unet(saved)
    assert str(raised.value).startswith(f"--init_from {saved} cannot be loaded")
    with pytest.raises(UsageError, match="is not a pipeline"):
        load_unet(saved / "scheduler")


BAD_SETTINGS: dict[str, tuple[str, dict[str, Any], str]] = {
    "text for a number": (UNET, {"norm_num_groups": "32"}, r"norm_num_groups cannot be '32'; the default is 32"),
    "numbers for texts": (UNET, {"down_block_types": [1, 2]}, r"down_block_types cannot be \[1, 2\]"),
    "fractions for integers": (UNET, {"block_out_channels": [32.5, 32]}, r"block_out_channels cannot be"),
    "three sides": (UNET, {"sample_size": [16, 16, 16]}, r"sample_size cannot be \[16, 16, 16\]"),
    "a list of names": (UNET, {"id2label": ["cat"]}, r"id2label cannot be \['cat'\]"),
    "unknown": (UNET, {"flavour": "sweet"}, r"does not know: flavour"),
    "no size": (UNET, {"sample_size": None}, r"does not describe a network: .* give sample_size"),
    "odd size": (UNET, {"sample_size": 15}, r"does not describe a network: .* divisible by 2"),
    "unknown block": (UNET, {"down_block_types": ["DownBlock2D", "Other"]}, r"does not describe a network: .*Other"),
    "other widths": (UNET, {"block_out_channels": [64, 64]}, r"weights do not fit .* \(64, 3, 3, 3\) by"),
    "sizes as text": (SCHEDULER, {"resolutions": "16, 8"}, r"resolutions cannot be '16, 8'"),
    "sizes with text": (SCHEDULER, {"resolutions": [16, [8, "8"]]}, r"resolutions cannot be"),
    "a number for a name": (SCHEDULER, {"variance_type": 1}, r"variance_type cannot be 1"),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_settings_of_a_pipeline_with_the_full_unet(name: str, tmp_path: Path) -> None:
    file, values, message = BAD_SETTINGS[name]
    unet = resized_unet_of(16, (32, 32), layers_per_block=1)
    save_pipeline(SSDPipeline(unet, SSDScheduler(sample_size=16, resolutions=[16, [9, 9], 8])), tmp_path)
    load_pipeline(str(tmp_path), "cpu")
    change(tmp_path / file, **values)
    with pytest.raises(UsageError, match=message):
        load_pipeline(str(tmp_path), "cpu")
    if file == UNET:
        with pytest.raises(UsageError, match=message):
            load_unet(tmp_path)


OLDER = {
    FlexiUNet2DModel: (UNET, ["id2label"]),
    ResizedUNet2DModel: (UNET, ["id2label", "add_attention", "num_train_timesteps"]),
    SSDScheduler: (SCHEDULER, ["resolutions", "variance_type", "covariance"]),
}
"""Settings that were added after the class; a file without them is as sound as before."""


@pytest.mark.parametrize("described", OLDER)
def test_settings_that_were_added_later(described: type, tmp_path: Path) -> None:
    file, names = OLDER[described]
    settings: Any = {"block_out_channels": (32, 32), "layers_per_block": 1}
    full = described is ResizedUNet2DModel
    unet = resized_unet_of(16, (32, 32), layers_per_block=1) if full else FlexiUNet2DModel(16, **settings)
    save_pipeline(SSDPipeline(unet, SSDScheduler(sample_size=16, num_levels=2)), tmp_path)
    for name in names:
        drop(tmp_path / file, name)
    loaded = load_pipeline(str(tmp_path), "cpu")
    assert type(loaded.unet) is type(unet)
    for name, value in SSDScheduler(sample_size=16, num_levels=2).config.items():
        assert name.startswith("_") or loaded.scheduler.config[name] == value


@pytest.mark.parametrize("scheduler", [BlurringScheduler(sample_size=16), CorrectiveNoiseScheduler(sample_size=16)])
def test_settings_of_other_processes_are_complete(scheduler, tmp_path: Path) -> None:
    unet = FlexiUNet2DModel(16, block_out_channels=(32,) * 4, layers_per_block=1)
    save_pipeline(SSDPipeline(unet, scheduler), tmp_path)
    assert type(load_pipeline(str(tmp_path), "cpu").scheduler) is type(scheduler)
    drop(tmp_path / SCHEDULER, "prediction_type")
    with pytest.raises(UsageError, match=r"scheduler_config.json lacks settings: prediction_type"):
        load_pipeline(str(tmp_path), "cpu")


def test_zeros_and_flips_inside_the_weights(pipeline: SSDPipeline, tmp_path: Path) -> None:
    save_pipeline(pipeline, tmp_path)
    whole = (tmp_path / WEIGHTS).read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    for content in (whole[:-4096] + bytes(4096), bytes(flipped)):
        (tmp_path / WEIGHTS).write_bytes(content)
        with pytest.raises(UsageError, match="damaged, or replaced"):
            load_pipeline(str(tmp_path), "cpu")
    (tmp_path / WEIGHTS).write_bytes(whole)
    load_pipeline(str(tmp_path), "cpu")


def test_a_network_of_diffusers(tmp_path: Path) -> None:
    unet = UNet2DModel(8, block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
                       norm_num_groups=4)  # fmt: skip
    SSDPipeline(unet, SSDScheduler(sample_size=8, num_levels=1)).save_pretrained(tmp_path / "ours")
    assert isinstance(load_pipeline(str(tmp_path / "ours"), "cpu").unet, UNet2DModel)
    assert isinstance(load_unet(tmp_path / "ours"), UNet2DModel)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_weights_of_another_float_type_become_float32(dtype, pipeline: SSDPipeline, tmp_path: Path) -> None:
    pipeline.to(dtype).save_pretrained(tmp_path)
    loaded = load_pipeline(str(tmp_path), "cpu")
    assert {parameter.dtype for parameter in loaded.unet.parameters()} == {torch.float32}
    assert loaded(2, num_inference_steps=2, output_type="pt").images.shape == (2, 3, 16, 16)


def test_weights_in_several_files(pipeline: SSDPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    pipeline.unet.save_pretrained(tmp_path / "unet", max_shard_size="100KB")
    (tmp_path / WEIGHTS).unlink()
    loaded = load_pipeline(str(tmp_path), "cpu")
    for name, tensor in pipeline.unet.state_dict().items():
        assert torch.equal(loaded.unet.state_dict()[name], tensor), name
    sorted((tmp_path / "unet").glob("*.safetensors"))[0].unlink()
    with pytest.raises(UsageError, match="truncated or damaged"):
        load_pipeline(str(tmp_path), "cpu")
