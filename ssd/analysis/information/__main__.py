"""What noisy states know of a data set, what level changes lose, and where levels could change by it.

    python -m ssd.analysis.information --data digits --res 16 --levels 4 --channels 1 --out runs/information
    python -m ssd.analysis.information --data folder:/data/faces --res 32 --levels 3 --rule band_snr --threshold 0.5
    python -m ssd.analysis.information --data digits --res 16 --levels 3 --channels 1 --model runs/digits

Prints for every rule (`ssd.analysis.information.rules`) the first timestep of every coarser level, the cost of the
schedule that follows, and how far two samplers end from Gaussian images of the data's covariance with a perfect
network: ancestral and of second order, the median and the range of three numbers of steps. The last line is what
training takes. --out writes information.json and information.png, with the curves; --model adds what a network knows
beyond the best linear denoiser, by the I-MMSE identity. Ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ...commands.drawing import pyplot, save_figure
from ...commands.errors import UsageError, exit_on_usage_error
from ...commands.files import write_json
from ...commands.output_paths import check_output_folder
from ...commands.parser import CommandParser
from ...process.noise import NoiseSchedule, make_betas
from ..measured_errors import open_model
from ..measured_images import MeasuredImages
from .curves import curves, draw
from .gaussian import LevelInformation
from .network import NetworkInformation, network_information
from .rule_table import RuleRow, format_table, rule_table
from .rules import LARGEST_MISSING, RULES, Evidence
from .statistics import image_statistics, level_operators


@dataclass(frozen=True, kw_only=True)
class InformationConfig(MeasuredImages):
    """Settings of the study.

    Parameters
    ----------
    rule : str, optional
        The rule whose switches are printed for training: info, info_contrast, band_snr, dimension, band_bits,
        half_bits, level_loss or missing_variance. The default is missing_variance up to 1,024 pixels, else info.
    threshold : float, optional
        Its threshold. The default is the rule's own.
    model : str, optional
        The folder of a pipeline, with the same full resolution, to be measured on the same images.
    num_denoised : int
        The number of images that the model is measured on, at least 2.
    out : str, optional
        A folder for information.json and information.png. Without it the table alone is printed.
    """

    rule: str | None = None
    threshold: float | None = None
    model: str | None = None
    num_denoised: int = 256
    out: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rule is not None and self.rule not in RULES:
            raise UsageError(f"--rule must be one of {', '.join(RULES)}, got {self.rule}.")
        if self.rule == "missing_variance" and not self.is_small:
            raise UsageError(f"--rule missing_variance is for at most {LARGEST_MISSING} pixels: use another rule.")
        if self.threshold is not None and not self.threshold > 0:
            raise UsageError(f"--threshold must be positive, got {self.threshold}.")
        if self.num_denoised < 2:
            raise UsageError(f"--num_denoised must be at least 2, got {self.num_denoised}.")

    @property
    def is_small(self) -> bool:
        """Whether m(t) is computed."""
        return math.prod(self.sizes[0]) <= LARGEST_MISSING

    @property
    def chosen_rule(self) -> str:
        """The rule, after its default was filled in."""
        return self.rule or ("missing_variance" if self.is_small else "info")


def study(config: InformationConfig, evidence: Evidence, network: list[NetworkInformation]) -> list[RuleRow]:
    """The table, and the files."""
    rows = rule_table(evidence, {config.chosen_rule: config.threshold})
    if config.out:
        out, plotted = Path(config.out), curves(evidence)
        content = {"images": evidence.information.statistics.count, "data": config.data}
        content |= {"exact_covariance": evidence.information.exact, "curves": plotted}
        content |= {"rules": [vars(row) for row in rows], "network": [level.numbers() for level in network]}
        write_json(out / "information.json", content)
        save_figure(draw(plotted, rows, network), out / "information.png")
    return rows


def show(config: InformationConfig, evidence: Evidence, rows: list[RuleRow], network: list[NetworkInformation]) -> None:
    """Print it."""
    information = evidence.information
    bits = ", ".join(
        f"{height} x {width} px {information.image_bits(level):.0f}"
        for level, (height, width) in enumerate(config.sizes)
    )
    print(f"{information.statistics.count} images; bits per channel at 8 bits a pixel, if Gaussian: {bits}")  # noqa: T201
    if not information.exact:
        print("Images of this size have their cosine spectrum in place of their covariance.")  # noqa: T201
    elif information.statistics.count <= math.prod(config.sizes[0]):
        print(  # noqa: T201
            f"note: {information.statistics.count} images vary in fewer directions than they have pixels, so that the "
            "bits and dimensions of the fine levels are too few: give more images (--num)."
        )
    print(format_table(rows))  # noqa: T201
    for level in network:
        print(level.sentence())  # noqa: T201
    chosen = next(row for row in rows if row.rule == config.chosen_rule)
    if chosen.switches is None:
        print(f"By {config.chosen_rule} some level has no timestep: there is no schedule of {config.levels} levels.")  # noqa: T201
    else:
        print(f"for training: --switches '{chosen.switches}'")  # noqa: T201
    if config.out:
        for name in ("information.json", "information.png"):
            print(f"wrote {Path(config.out) / name}")  # noqa: T201


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error(ValueError, OSError):
        parser = CommandParser(prog="python -m ssd.analysis.information", description=__doc__)
        parser.add_class_arguments(InformationConfig)
        config = InformationConfig(**parser.parse_args(arguments).as_dict())
        if config.out:
            check_output_folder(config.out, "--out")
            pyplot()
        steps, dataset = config.steps, config.open()
        network = open_model(config.model, config.num_denoised, config) if config.model else None
    with exit_on_usage_error():
        statistics = image_statistics(config.images(dataset), level_operators(steps))
        evidence = Evidence(
            NoiseSchedule.from_betas(make_betas()), LevelInformation(statistics, tuple(steps)), config.downsample_kernel
        )
        measured = network_information(*network, evidence.information, config.seed) if network else []
        show(config, evidence, study(config, evidence, measured), measured)


if __name__ == "__main__":
    main()
