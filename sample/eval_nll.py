"""Held-out likelihood of a model, in bits per dimension: the lower, the better, whatever the sampler.

    python sample/eval_nll.py --model runs/digits --data digits --num 500
    accelerate launch sample/eval_nll.py --model runs/celeba64 --data celeba:/data/celeba --split test --out nll.json

The variational bound of 8-bit images (docs/maths.md, section 5), with its parts and a standard error over images.
Models of any number of levels can be compared by it on the same data, at the same --steps. Use images that the network
has not learned from. Of images that are all grey one channel counts.
"""

from __future__ import annotations

from pathlib import Path

from ssd.commands.errors import UsageError, exit_on_usage_error
from ssd.commands.files import write_json
from ssd.commands.output_paths import check_output_file
from ssd.commands.parser import CommandParser
from ssd.evaluation.likelihood import LikelihoodConfig, estimate_bits_per_dim
from ssd.evaluation.processes import end_processes, start_processes
from ssd.evaluation.report import format_number
from ssd.publishing.saving import load_pipeline


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
    pipeline = load_pipeline(config.model, config.device or str(state.device))
    images = config.open(pipeline, state.process_index, state.num_processes)
    if not len(images):
        raise UsageError(f"--data {config.data} has fewer images than there are processes: start fewer.")
    numbers = estimate_bits_per_dim(pipeline, images, config, config.seed, state)
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
