"""Distances between generated images and a data set, with all that is needed to defend them.

    accelerate launch sample/eval_fid.py --model runs/celeba64 --ref celeba:/data/celeba --steps 1000 --out eval/
    python sample/eval_fid.py --images samples/ --ref stats/celeba64_adm_train.npz --metrics fid,kid,swd
    python sample/eval_fid.py stats --ref celeba:/data/celeba --preset adm --size 64 --out stats/celeba64_adm_train.npz
    python sample/eval_fid.py --model runs/digits --ref digits --features pixels --num 512

The first and the last draw images and measure them (report.json, report.md and the images in --out; without it the
report goes to eval/ and the numbers to metrics.json in the model's folder), the second measures a folder, the third
makes statistics of a data set once for all. What is computed, and what is refused, is in docs/evaluation.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from ssd.commands.errors import UsageError, exit_on_usage_error
from ssd.commands.parser import CommandParser
from ssd.evaluation.config import EvalConfig, StatsConfig
from ssd.evaluation.features.digit_classifier import digit_recognition
from ssd.evaluation.images import Size
from ssd.evaluation.metrics import all_metrics
from ssd.evaluation.processes import end_processes, start_processes
from ssd.evaluation.reference import DatasetReference, StatisticsReference, preset_notes
from ssd.evaluation.report import (
    build_report,
    check_same_protocol,
    count_warnings,
    format_number,
    make_protocol,
    read_baseline,
    report_pictures,
    write_report,
)
from ssd.evaluation.sampling import FULL, level_folder
from ssd.evaluation.statistics import save_statistics
from ssd.evaluation.subjects import FolderSubject, ModelSubject

QUERIES = 16
SWITCHES = ("--stream", "--overwrite", "--bf16")
Config = TypeVar("Config", EvalConfig, StatsConfig)


def main() -> None:
    with exit_on_usage_error():
        arguments = tidy(sys.argv[1:])
        try:
            if arguments[:1] == ["stats"]:
                make_statistics(parse(StatsConfig, arguments[1:]))
            else:
                evaluate(parse(EvalConfig, arguments))
        finally:
            end_processes()


def evaluate(config: EvalConfig) -> None:
    """Draw or read images, measure them and the reference, compare, report."""
    baseline = read_baseline(config.baseline) if config.baseline else None
    state = start_processes(config.device)
    device = config.device or str(state.device)

    subject = ModelSubject(config, device) if config.model else FolderSubject(config)
    side = square_side(subject.size)
    reference = StatisticsReference(config) if config.ref_is_statistics else DatasetReference(config, side)
    with state.local_main_process_first():  # which may download
        extractors = config.load_extractors(device, reference.default_extractor)
    notes = [*subject.notes, *reference.check(subject.size, extractors), *preset_notes(subject.preset, reference)]
    if baseline is not None:  # what is known already: hours may follow
        protocol = make_protocol(config, subject.provenance, reference.provenance(), extractors)
        check_same_protocol(protocol, baseline["protocol"], str(config.baseline), complete=False)
    warn(notes, state.is_main_process)

    generated = subject.measure(extractors, state)
    real = reference.measure(extractors, state, generated[FULL].first[:QUERIES])
    coarse = {
        size: (reference.measure_level(reduction, extractors, state), generated[level_folder(size)])
        for size, reduction in subject.reductions.items()
    }
    if not state.is_main_process:
        return

    labels = [extractor.label for extractor in extractors]
    numbers = all_metrics(config.metric_names, labels, real, generated[FULL], coarse, config.seed)
    if config.ref == "digits":
        numbers |= digit_recognition([generated[FULL].images])
    further = count_warnings(generated[FULL])
    warn(further)
    report = build_report(
        config,
        numbers,
        samples={**subject.provenance, "pixels_sha256": generated[FULL].pixels_sha256},
        reference=reference.provenance(real),
        extractors=extractors,
        neighbours=real.neighbours,
        warnings=notes + further,
        num_processes=state.num_processes,
        baseline=baseline,
    )
    pictures = report_pictures(generated[FULL], real.neighbours, reference)
    show(report["metrics"])
    for path in write_report(config, report, pictures):
        print(f"wrote {path}")


def make_statistics(config: StatsConfig) -> None:
    """The command `stats`: measure a data set once, for many evaluations."""
    state = start_processes(config.device)
    reference = DatasetReference(config, config.size)
    with state.local_main_process_first():  # which may download
        extractors = config.load_extractors(config.device or str(state.device), reference.default_extractor)
    measured = reference.measure(extractors, state)
    if state.is_main_process:
        statistics = measured.features[extractors[0].label]
        statistics.provenance = {**reference.provenance(measured), **extractors[0].provenance}
        save_statistics(Path(config.out), statistics)
        print(f"wrote {config.out}: {measured.count} images, {len(statistics.mean)} features")


def parse(kind: type[Config], arguments: Sequence[str]) -> Config:
    """Settings from the command line, checked as far as that goes without reading anything."""
    parser = CommandParser(description=__doc__)
    parser.add_class_arguments(kind)
    config = kind(**parser.parse_args(list(arguments)).as_dict())
    config.check_settings()
    return config


def tidy(arguments: Sequence[str]) -> list[str]:
    """The command line with --inception-weights spelled --inception_weights, and a bare switch meaning true."""
    tidied = []
    for argument, following in zip(arguments, [*arguments[1:], "--"]):
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            argument = name.replace("-", "_").replace("__", "--", 1) + equals + value
        tidied.append(argument)
        if argument in SWITCHES and following.startswith("--"):
            tidied.append("true")
    return tidied


def square_side(size: Size) -> int:
    """The side of square images; reference data are square."""
    if size[0] != size[1]:
        raise UsageError(f"Reference data are square, but the images are {size[0]} x {size[1]}.")
    return size[0]


def warn(notes: Sequence[str], here: bool = True) -> None:
    """Print warnings, on one process."""
    for note in notes if here else ():
        print(f"warning: {note}", file=sys.stderr)


def show(metrics: dict[str, Any]) -> None:
    """Print the numbers."""
    for name, value in metrics.items():
        print(f"{name:44} {format_number(value)}")


if __name__ == "__main__":
    main()
