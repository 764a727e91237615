"""Sample images, a grid and an animation from a trained VDVAE or WS-VDVAE.

    python sample/sample_vdvae.py --model runs/digits_ws_vdvae --num 64 --temperature 0.8 --grid grid.png
    python sample/sample_vdvae.py --model runs/digits_ws_vdvae --num 9 --animation coarse_to_fine.gif
    python sample/sample_vdvae.py --model runs/digits_ws_vdvae --temperature '[1,0.8,0.6]' --num 1000 --out samples/

A run that was stopped continues with the images that are missing in --out, where samples.json holds the settings.
Exit code 2 is a mistake of the command line, 1 a failure of the machine or of a model that gives NaN or infinity.
Image i depends on the seed and on i alone: the batch size changes speed and memory, and nothing else.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ssd import VDVAEPipeline
from ssd.commands.errors import UsageError, exit_on_usage_error
from ssd.commands.lock import hold_folder
from ssd.commands.parser import CommandParser
from ssd.publishing.saving import load_vdvae_pipeline
from ssd.sampling.outputs import OutputSettings, open_outputs
from ssd.sampling.vdvae import generate_vdvae, growing_frames, save_growing, vdvae_settings


@dataclass(frozen=True, kw_only=True)
class SampleVDVAEConfig(OutputSettings):
    """Settings of the sampling command.

    Parameters
    ----------
    temperature : float or list of float
        The factor of the prior's scale: one number, or one per resolution, coarse to fine. Below 1 images vary less.
    seed : int
        The seed of everything random: image i depends on the seed and on i alone.
    animation : str, optional
        Write a GIF file of the first 9 images growing cell by cell: cells that are still to come take the mean of
        their prior.
    """

    temperature: float | list[float] = 1.0
    seed: int = 0


def main() -> None:
    with exit_on_usage_error():
        parser = CommandParser(description=__doc__)
        parser.add_class_arguments(SampleVDVAEConfig)
        config = SampleVDVAEConfig(**parser.parse_args().as_dict())
        config.check_outputs()
        if config.seed < 0:
            raise UsageError(f"--seed must be at least 0, got {config.seed}.")
        pipeline = load_vdvae_pipeline(config.model, config.device)
        try:
            pipeline.temperatures_of_cells(config.temperature)
        except ValueError as error:
            raise UsageError(f"--temperature does not fit this model: {error}") from error
        with hold_folder(config.out) if config.out else nullcontext() as note:
            if note:
                print(f"note: {note}", file=sys.stderr)
            written = sample(config, pipeline)
    for path in written:
        print(f"wrote {path}")


def sample(config: SampleVDVAEConfig, pipeline: VDVAEPipeline) -> list[str]:
    """Draw the images that are not there yet and write what was asked for; returns what was written, in words."""
    how = config.temperature, config.seed
    outputs = open_outputs(config, vdvae_settings(Path(config.model), *how) if config.out else {})
    for indices, images in generate_vdvae(pipeline, outputs.missing, *how, config.batch_size):
        outputs.keep(indices, images)
    frames = growing_frames(pipeline, range(config.animated), *how) if config.animation else []
    return outputs.finish(lambda path: save_growing(frames, path))


if __name__ == "__main__":
    main()
