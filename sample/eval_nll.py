"""Held-out likelihood of a model, in bits per dimension: the lower, the better, whatever the sampler.

    python sample/eval_nll.py --model runs/digits --data digits --num 500
    python sample/eval_nll.py --model runs/digits_ws_vdvae --data digits --num_valid 297 --importance_samples 64
    accelerate launch sample/eval_nll.py --model runs/celeba64 --data celeba:/data/celeba --split test --out nll.json

The variational bound of images, with its parts and a standard error over images: of Scale Space Diffusion with any
number of levels (docs/maths.md, section 5), at the same --steps, and of VDVAE (docs/vdvae.md). On the same data, of as
many grey levels, all of them can be compared. Use images that the network has not learned from, such as those that
training with --num_valid held out. Of images that are all grey one channel counts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal  # noqa: F401 (in which the parser resolves the types of the bases)

from ssd import SSDPipeline, VDVAEPipeline
from ssd.commands.errors import UsageError, exit_on_usage_error
from ssd.commands.files import write_json
from ssd.commands.output_paths import check_output_file
from ssd.commands.parser import CommandParser
from ssd.evaluation.any_likelihood import estimate_any_bits_per_dim, own_grey_levels
from ssd.evaluation.given_images import GivenImages
from ssd.evaluation.likelihood import LikelihoodSettings
from ssd.evaluation.processes import end_processes, start_processes
from ssd.evaluation.report import format_number
from ssd.evaluation.vdvae_likelihood import check_importance_samples
from ssd.publishing.saving import load_any_pipeline

OF_DIFFUSION = ("steps", "draws", "covariance", "last_timestep", "grey_levels")
"""Settings that say nothing of a VDVAE."""


@dataclass(frozen=True, kw_only=True)
class LikelihoodConfig(GivenImages, LikelihoodSettings):
    """Settings of the likelihood command.

    Parameters
    ----------
    grey_levels : int
        Images are rounded to this many grey levels, evenly over the range. A VDVAE has its own.
    importance_samples : int
        Of a VDVAE: draws of the latents per image, 1, 2, 4, 8 and so on. More make the bound tighter, and cost as much
        each.
    out : str, optional
        A .json file for the numbers.
    """

    num: int = 1000
    grey_levels: int = 256
    importance_samples: int = 1
    out: str | None = None

    def __post_init__(self) -> None:
        GivenImages.__post_init__(self)
        LikelihoodSettings.__post_init__(self)
        if not 2 <= self.grey_levels <= 256:
            raise UsageError(f"--grey_levels must be in 2..256, got {self.grey_levels}.")
        check_importance_samples(self.importance_samples)

    def check_for(self, pipeline: SSDPipeline | VDVAEPipeline) -> None:
        """Raise a `UsageError` for a setting that this kind of model does not have."""
        defaults = {item.name: item.default for item in fields(self)}
        if isinstance(pipeline, VDVAEPipeline):
            given = [name for name in OF_DIFFUSION if getattr(self, name) != defaults[name]]
            kind, of = "a VDVAE", "models of Scale Space Diffusion"
        else:
            given = ["importance_samples"] if self.importance_samples != 1 else []
            kind, of = "a model of Scale Space Diffusion", "VDVAE"
        if given:
            raise UsageError(f"--{given[0]} is for {of}, and --model {self.model} is {kind}: leave it out.")


def main() -> None:
    with exit_on_usage_error(ValueError):
        parser = CommandParser(description=__doc__)
        parser.add_class_arguments(LikelihoodConfig)
        config = LikelihoodConfig(**parser.parse_args().as_dict())
        if config.out:
            check_output_file(config.out, "--out", ".json")
        try:
            evaluate(config)
        finally:
            end_processes()


def evaluate(config: LikelihoodConfig) -> None:
    """Estimate the bound, print it, and write it if --out says where."""
    state = start_processes(config.device)
    pipeline = load_any_pipeline(config.model, config.device or str(state.device))
    config.check_for(pipeline)
    levels = own_grey_levels(pipeline, config.grey_levels)
    images = config.open(pipeline, state.process_index, state.num_processes, levels)
    if not len(images):
        raise UsageError(f"--data {config.data} has fewer images than there are processes: start fewer.")
    numbers = estimate_any_bits_per_dim(pipeline, images, config, config.importance_samples, config.seed, state)
    if not state.is_main_process:
        return
    for name, value in numbers.items():
        print(f"{name:44} {format_number(value)}")
    if config.out:
        provenance = images.dataset.provenance
        write_json(Path(config.out), {"metrics": numbers, "data": provenance, "model": config.model})
        print(f"wrote {config.out}")


if __name__ == "__main__":
    main()
