"""Do two denoisers that learned different images learn the same function?

    python -m ssd.analysis.generalization --data digits --res 8 --sizes '[1, 8, 64, 638]' --steps 2000 --out runs/same
    python -m ssd.analysis.generalization --denoiser linear --sizes '[2, 8, 32, 128, 512, 898]' --out runs/linear
    python -m ssd.analysis.generalization --denoiser ssd --sizes '[1, 638]' --seeds 1 --steps 400 --out runs/same_ssd

Two denoisers learn N images each that have none in common, and draw samples from the same noise (Kadkhodaie et al.,
arXiv:2310.02557). With few images each remembers its own; with enough both learn the same function, and draw the same
new images. Writes study.json, a row per N and seed, psnr.png, samples.png, cosines.png, gap.png and report.md. What was
interrupted goes on with the same command.
"""

from __future__ import annotations

from pathlib import Path

from ...commands.drawing import pyplot
from ...commands.errors import exit_on_usage_error
from ...commands.files import write_text
from ...commands.lock import hold_folder
from ...commands.output_paths import check_output_folder
from ...commands.parser import CommandParser
from ..denoisers.images import StudyImages, read_images, split
from .config import StudyConfig
from .diffusion_models import check_training
from .networks import build_network
from .plots import COSINES, GAP, PSNR, SAMPLES, draw_cosines, draw_gap, draw_psnr, draw_samples
from .report import notes, report_text, table
from .study import STUDY, claim, read_arrays, run_study

REPORT = "report.md"


def check(config: StudyConfig) -> StudyImages:
    """Say before the work what would go wrong after it; returns the images."""
    check_output_folder(config.out, "--out")
    pyplot()
    if config.denoiser == "bf_unet":
        build_network(config).check_size((config.res, config.res))
    if config.denoiser == "ssd":
        check_training()
    data = read_images(config.data, config.res, config.channels, config.drops_duplicates)
    for size, seed in config.rows:
        split(len(data.images), size, seed)
    return data


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error(ValueError, OSError):
        parser = CommandParser(prog="python -m ssd.analysis.generalization", description=__doc__)
        parser.add_class_arguments(StudyConfig)
        config = StudyConfig(**parser.parse_args(arguments).as_dict())
        data = check(config)
    out = Path(config.out)
    with exit_on_usage_error(), hold_folder(out):
        claim(config)
        rows = run_study(config, data)
        arrays = {size: read_arrays(config, size, config.seed) for size in sorted(set(config.sizes))}
        draw_psnr(rows, out / PSNR)
        draw_gap(rows, out / GAP)
        draw_cosines(arrays, out / COSINES)
        draw_samples(arrays, out / SAMPLES)
        write_text(out / REPORT, report_text(config, data, rows))
    print(table(rows))  # noqa: T201
    print("\n".join(notes(config, data, rows)))  # noqa: T201
    print(f"Wrote {', '.join((STUDY, PSNR, SAMPLES, COSINES, GAP, REPORT))} in {out}.")  # noqa: T201


if __name__ == "__main__":
    main()
