"""Let small pictures grow, draw pictures anew, or fill in what a mask leaves open, with a trained model.

    python sample/edit_ssd.py grow --model runs/digits --image small.png --num 4 --grid grown.png
    python sample/edit_ssd.py redraw --model runs/digits --image pictures/ --level 1 --num 4 --out redrawn/
    python sample/edit_ssd.py inpaint --model runs/digits --image digit.png --mask hole.png --num 4 --grid filled.png

Pictures are read as training reads them: turned upright, over white, in 8 bits; what that changed is counted and said.
--out gets one PNG per result; pictures.json beside them says which picture each belongs to. A run that was stopped
continues with the results that are missing. Result n depends on the seed and on n alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers.models.modeling_utils import ModelMixin
from PIL import Image

from ssd.commands.errors import UsageError, exit_on_usage_error
from ssd.commands.files import write_json
from ssd.commands.lock import hold_folder
from ssd.commands.parser import CommandParser
from ssd.pipelines.denoising_pipeline import DenoisingPipeline
from ssd.publishing.guides import load_guide
from ssd.publishing.saving import load_pipeline
from ssd.sampling.editing import EditInputs, EditSettings, GrowSettings, InpaintSettings, RedrawSettings
from ssd.sampling.given_pictures import GivenPictures, open_pictures
from ssd.sampling.image_folder import sampling_settings, write_labels
from ssd.sampling.many_images import generate
from ssd.sampling.outputs import MAX_GRID_IMAGES, open_outputs
from ssd.sampling.pictures import CoarseToFineRecorder, image_grid

TASKS: dict[str, type[EditSettings]] = {"grow": GrowSettings, "redraw": RedrawSettings, "inpaint": InpaintSettings}
PICTURES_FILE = "pictures.json"
ANIMATION_FRAMES = 40


def main() -> None:
    with exit_on_usage_error():
        task, config = parse()
        config.check_outputs()
        model = load_pipeline(config.model, config.device, config.dtype)
        config = config.prepare(model)
        config.check_classes(model)
        guide = load_guide(config.guide, model)
        given = open_pictures(config.image, "--image", model.unet.config.in_channels)
        pipeline = config.pipeline.from_pipe(model)
        inputs = config.inputs(pipeline, given)
        print_notes(given.notes + inputs.notes)
        with hold_folder(config.out) if config.out else nullcontext() as taken_over:
            print_notes([taken_over] if taken_over else [])
            written = edit(task, config, pipeline, given, inputs, guide)
    for path in written:
        print(f"wrote {path}")


def print_notes(notes: Sequence[str]) -> None:
    """What the user should know."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def parse() -> tuple[str, EditSettings]:
    """The task and its settings."""
    parser = CommandParser(description=__doc__)
    for name, settings in TASKS.items():
        task = CommandParser(description=str(settings.__doc__).splitlines()[0])
        task.add_class_arguments(settings)
        parser.add_subcommand(name, task)
    parsed = parser.parse_args().as_dict()
    if not parsed:
        raise UsageError(f"Say what to do with the pictures: the first word must be one of {', '.join(TASKS)}.")
    [(name, values)] = parsed.items()
    return name, TASKS[name](**values)


def edit(
    task: str,
    config: EditSettings,
    pipeline: DenoisingPipeline,
    given: GivenPictures,
    inputs: EditInputs,
    guide: ModelMixin | None,
) -> list[str]:
    """Draw the results that are not there yet and write what was asked for; returns what was written, in words."""
    total = replace(config, num=config.num * len(given.names))
    decisive = {}
    if config.out:
        decisive = sampling_settings(Path(config.model), config) | dict(config.decisive)
        decisive |= {"task": task, "results_each": config.num, **inputs.decisive}
    outputs = open_outputs(total, decisive)
    if config.out:
        write_json(Path(config.out) / PICTURES_FILE, {"results_each": config.num, "pictures": given.names})
        write_labels(Path(config.out), "chosen", config.labels(range(total.num), pipeline))
    every = -(-len(pipeline.scheduler.timesteps) // ANIMATION_FRAMES)
    recorder = CoarseToFineRecorder(pipeline.scheduler.size_at(-1), total.animated, every)

    def arguments(numbers: Sequence[int]) -> dict:
        return config.arguments(numbers, pipeline, guide) | inputs.arguments(numbers, config.num)

    callback = recorder if config.animation else None
    for indices, images in generate(pipeline, outputs.to_draw, config, config.batch_size, callback, arguments):
        outputs.keep(indices, images)
    return outputs.finish(recorder.save, partial(rows, inputs, config.num))


def rows(inputs: EditInputs, num: int, results: torch.Tensor) -> Image.Image:
    """A row for each picture: itself, enlarged by repeating its pixels, and its results."""
    pictures = F.interpolate(inputs.shown, size=results.shape[-2:], mode="nearest")
    shown = -(-min(len(results), MAX_GRID_IMAGES) // num)
    cells = [torch.cat([picture[None], results[i * num : (i + 1) * num]]) for i, picture in enumerate(pictures[:shown])]
    return image_grid(torch.cat(cells), columns=1 + num)


if __name__ == "__main__":
    main()
