"""The study of grown pictures: what its table says, and what it refuses."""

import numpy as np
import pytest
import torch
from PIL import Image

from flexi_unet import FlexiUNet2DModel
from ssd import BlurringScheduler, SSDPipeline, SSDScheduler, SSDSuperResolutionPipeline
from ssd.analysis.growing import grow_in_all_ways, main
from ssd.publishing.saving import save_pipeline
from ssd.sampling.many_images import SamplingSettings


def model(scheduler=None, **settings) -> SSDPipeline:
    torch.manual_seed(0)
    unet = FlexiUNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        attention_resolutions=(),
        **settings,
    )
    return SSDPipeline(unet, scheduler or SSDScheduler(sample_size=8, num_levels=2))


def test_the_model_with_consistency_alone_keeps_the_small_picture() -> None:
    pipe = SSDSuperResolutionPipeline.from_pipe(model(num_class_embeds=11))
    x_0 = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ways = list(grow_in_all_ways(pipe, x_0, np.arange(4), SamplingSettings(steps=4), 1))
    names = ["pixels repeated", "bicubic", "the model", "the model, consistent"]
    assert [way.what for way in ways] == [f"4 x 4, {name}" for name in names]
    assert all(way.images.shape == x_0.shape for way in ways)
    assert ways[3].distance < 1e-3
    assert min(way.distance for way in ways[:3]) > 0.01


def test_the_command(tmp_path, capsys) -> None:
    save_pipeline(model(), tmp_path / "m")
    flags = ["--model", str(tmp_path / "m"), "--num", "20", "--steps", "4", "--device", "cpu"]
    main([*flags, "--grid", str(tmp_path / "g.png")])
    lines = [line.split("|")[1:4] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[0].strip() for line in lines][:3] == [
        "8 x 8, the image itself",
        "4 x 4, pixels repeated",
        "4 x 4, bicubic",
    ]
    assert float(lines[0][1]) > 0.9  # a support vector machine knows real digits
    assert all(0 <= float(line[1]) <= 1 for line in lines)
    assert Image.open(tmp_path / "g.png").size == (8 * 66 + 2, 5 * 66 + 2)


def test_models_without_levels_are_refused(tmp_path, capsys) -> None:
    for name, scheduler in (("b", BlurringScheduler(sample_size=8)), ("s", SSDScheduler(sample_size=8, num_levels=1))):
        save_pipeline(model(scheduler), tmp_path / name)
        with pytest.raises(SystemExit) as stop:
            main(["--model", str(tmp_path / name), "--device", "cpu"])
        assert stop.value.code == 2
        assert "is not an SSD model with several levels" in capsys.readouterr().err
