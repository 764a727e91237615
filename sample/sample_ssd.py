"""Sample images, a grid and an animation from a trained model.

    python sample/sample_ssd.py --model runs/digits --num 64 --seed 0 --grid grid.png --animation coarse_to_fine.gif
    python sample/sample_ssd.py --model runs/digits --num 1000 --out samples/      # one PNG per image
    python sample/sample_ssd.py --model runs/digits --num 64 --sampler paper --steps 1000 --grid paper.png
    python sample/sample_ssd.py --model runs/cats --class cat --guidance_scale 2 --guidance_end 0.8 --grid cats.png
    python sample/sample_ssd.py --model runs/digits/checkpoints/step_00001000 --seeds 0:16 --grid early.png

A run that was stopped continues with the images that are missing in --out, where samples.json holds the settings.
Exit code 2 is a mistake of the command line, 1 a failure of the machine or of a model that gives NaN or infinity.
Image i depends on the seed and on i alone: the batch size changes speed and memory, and nothing else.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal  # noqa: F401 (in which the parser resolves the types of the bases)

import torch
from diffusers.models.modeling_utils import ModelMixin

from ssd import SSDPipeline
from ssd.commands.errors import UsageError, exit_on_usage_error
from ssd.commands.lock import hold_folder
from ssd.commands.parser import CommandParser
from ssd.publishing.guides import load_guide
from ssd.publishing.saving import load_pipeline
from ssd.sampling.class_settings import ClassSettings
from ssd.sampling.image_folder import sampling_settings, write_labels
from ssd.sampling.many_images import SamplingSettings, generate
from ssd.sampling.outputs import OutputSettings, open_outputs
from ssd.sampling.pictures import CoarseToFineRecorder
from ssd.seeding import torch_generator

ANIMATION_FRAMES = 40


@dataclass(frozen=True, kw_only=True)
class SampleConfig(OutputSettings, SamplingSettings, ClassSettings):
    """Settings of the sampling command.

    Parameters
    ----------
    seeds : str or list of int, optional
        One image for each of these seeds, '[3, 14, 15]' or a range 0:16, instead of --seed and --num: each is image 0
        of its seed. Classes take turns in the order of the seeds.
    animation : str, optional
        Write a GIF file of the first 9 images growing level by level: x_t beside the prediction of x_0.
    batch_size : int, optional
        The number of images per network call at full resolution; on an accelerator coarser levels take four times as
        many per halving. The default is 2^16 pixels on a CPU and 2^19 on an accelerator. It changes speed and memory,
        not the images.
    """

    seeds: list[int] | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seeds is None:
            return
        seeds = read_seeds(self.seeds)
        if self.seed or self.num not in (OutputSettings.num, len(seeds)):
            raise UsageError("--seeds draws one image for each of them: leave --seed and --num out.")
        object.__setattr__(self, "seeds", seeds)
        object.__setattr__(self, "num", len(seeds))

    def generator(self, number: int) -> torch.Generator:
        if self.seeds is None:
            return super().generator(number)
        return torch_generator(read_seeds(self.seeds)[number], "image", 0)

    @property
    def decisive(self) -> dict[str, Any]:
        return dict(super().decisive) | ({} if self.seeds is None else {"seeds": self.seeds})


def read_seeds(given: list[int] | str) -> list[int]:
    """The seeds of a list, or of a range START:END without its end."""
    if isinstance(given, str):
        start, colon, end = given.partition(":")
        if not (colon and start.isdecimal() and end.isdecimal()):
            raise UsageError(f"--seeds must be a list such as '[1, 2, 3]' or a range such as 0:16, got {given!r}.")
        given = list(range(int(start), int(end)))
    if not given or min(given) < 0:
        raise UsageError(f"--seeds must be numbers of at least 0, and at least one, got {given}.")
    return given


def main() -> None:
    with exit_on_usage_error():
        parser = CommandParser(description=__doc__)
        parser.add_class_arguments(SampleConfig)
        config = SampleConfig(**parser.parse_args().as_dict())
        config.check_outputs()
        pipeline = load_pipeline(config.model, config.device, config.dtype)
        config = config.prepare(pipeline)
        config.check_classes(pipeline)
        guide = load_guide(config.guide, pipeline)
        with hold_folder(config.out) if config.out else nullcontext() as note:
            if note:
                print(f"note: {note}", file=sys.stderr)
            written = sample(config, pipeline, guide)
    for path in written:
        print(f"wrote {path}")


def sample(config: SampleConfig, pipeline: SSDPipeline, guide: ModelMixin | None) -> list[str]:
    """Draw the images that are not there yet and write what was asked for; returns what was written, in words."""
    decisive = sampling_settings(Path(config.model), config) | dict(config.decisive) if config.out else {}
    outputs = open_outputs(config, decisive)
    if config.out:
        kind = "balanced" if config.class_ is None else "chosen"
        write_labels(Path(config.out), kind, config.labels(range(config.num), pipeline))
    every = -(-len(pipeline.scheduler.timesteps) // ANIMATION_FRAMES)
    recorder = CoarseToFineRecorder(pipeline.scheduler.size_at(-1), config.animated, every)
    callback = recorder if config.animation else None
    arguments = partial(config.arguments, pipeline=pipeline, guide=guide)
    for indices, images in generate(pipeline, outputs.to_draw, config, config.batch_size, callback, arguments):
        outputs.keep(indices, images)
    return outputs.finish(recorder.save)


if __name__ == "__main__":
    main()
