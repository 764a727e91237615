"""Distances between generated images and a data set, with all that is needed to defend them.

    accelerate launch sample/eval_fid.py --model runs/celeba64 --ref celeba:/data/celeba --out eval/
    python sample/eval_fid.py --images samples/ --ref stats/celeba64_adm.npz --metrics fid,kid,swd
    python sample/eval_fid.py stats --ref celeba:/data/celeba --crop_preset adm --res 64 --out stats/celeba64_adm.npz
    python sample/eval_fid.py --model runs/digits --ref digits --features pixels,efficientnet_lite0 --num 512

The first and the last draw images and measure them (report.json, report.md and the images in --out; without it the
report goes to eval/ and the numbers to metrics.json in the model's folder), the second measures a folder, the third
makes statistics of a data set once for all. What is computed, and what is refused, is in docs/evaluation.md.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ssd.commands.errors import exit_on_usage_error, printable
from ssd.commands.files import write_json
from ssd.commands.parser import CommandParser
from ssd.evaluation.config import EvalConfig, FeatureSettings, StatsConfig
from ssd.evaluation.features.digit_classifier import digit_recognition
from ssd.evaluation.features.extractors import Extractor
from ssd.evaluation.generated import GeneratedImages, ModelImages, open_generated
from ssd.evaluation.given_images import GivenImages
from ssd.evaluation.likelihood import LikelihoodSettings, estimate_bits_per_dim
from ssd.evaluation.measure import Measured, Measurer
from ssd.evaluation.metrics import all_metrics
from ssd.evaluation.plan import QUERIES, MeasurePlan
from ssd.evaluation.processes import end_processes, hold_together, start_processes
from ssd.evaluation.protocol import (
    check_same_protocol,
    command_line,
    count_warnings,
    make_protocol,
    read_baseline,
    versions,
)
from ssd.evaluation.reference import Reference, open_reference
from ssd.evaluation.report import Report, format_number, list_neighbours, report_pictures, write_report
from ssd.evaluation.statistics import save_statistics
from ssd.operators.sizes import Size

RENAMED = {"preset": "crop_preset", "keep": "keep_features"}


def main() -> None:
    with exit_on_usage_error():
        config = read_settings()
        config.check_settings()
        try:
            if isinstance(config, StatsConfig):
                make_statistics(config)
            else:
                evaluate(config)
        finally:
            end_processes()


def read_settings(arguments: Sequence[str] | None = None) -> EvalConfig | StatsConfig:
    """Settings from the command line: of the evaluation, or of its subcommand `stats`."""
    parser = CommandParser(description=__doc__, renamed=RENAMED)
    parser.add_class_arguments(EvalConfig)
    stats = CommandParser(description=make_statistics.__doc__, renamed={**RENAMED, "size": "res"})
    stats.add_class_arguments(StatsConfig)
    parser.add_subcommand("stats", stats)
    settings = parser.parse_args(arguments)
    return StatsConfig(**settings.stats.as_dict()) if "stats" in settings else EvalConfig(**settings.as_dict())


def evaluate(config: EvalConfig) -> None:
    """Draw or read images, measure them and the reference, compare, report; alone in the folder of the report."""
    baseline = read_baseline(config.baseline) if config.baseline else None
    state = start_processes(config.device)
    with hold_together(config.report_folder, state) as note:
        tell([note] if note else [])
        compare(config, baseline, state)


def compare(config: EvalConfig, baseline: dict[str, Any] | None, state: PartialState) -> None:
    """Both sides, their distances, and the report."""
    images = open_generated(config, config.device or str(state.device))
    reference = open_reference(config, images.size, images.channels)
    measurer = open_measurer(config, reference, state)
    warnings = [*images.warnings, *reference.check(images, measurer.extractors, config.metric_names)]
    protocol = protocol_of(config, images, reference.provenance, measurer.extractors)
    check_baseline(config, baseline, protocol, complete=False)  # what is known already: hours may follow
    warn(warnings, state.is_main_process)

    kept, patches, is_digits = config.keep_features, "swd" in config.metric_names, config.ref == "digits"
    generated = images.measure(measurer, MeasurePlan.of_generated(kept, patches, keep_pixels=is_digits))
    full = generated[images.size]
    real = reference.measure(measurer, MeasurePlan.of_reference(kept, patches), full.first[:QUERIES])
    levels = measure_levels(images, reference, generated, measurer)
    bits = measure_likelihood(config, images, state)
    if not state.is_main_process:
        return

    labels = [extractor.label for extractor in measurer.extractors]
    metrics = all_metrics(config.metric_names, labels, real, full, levels, config.seed, images.channels)
    if is_digits:
        metrics |= digit_recognition([full.images])
    metrics |= bits
    warn(count_warnings(full))
    tell(reference.notes)
    protocol = protocol_of(config, images, {**reference.provenance, **real.provenance}, measurer.extractors)
    check_baseline(config, baseline, protocol, complete=True)
    report = Report(
        metrics=metrics,
        protocol=protocol,
        samples={**images.provenance, "pixels_sha256": full.pixels_sha256},
        settings=asdict(config),
        neighbours=list_neighbours(real.neighbours),
        warnings=warnings + count_warnings(full),
        versions=versions(),
        commands=[command_line(state.num_processes)],
        baseline=baseline and {"path": config.baseline, "metrics": baseline["metrics"]},
    )
    show(report.metrics)
    for path in write(config, report, report_pictures(full, real.neighbours, reference.pictures)):
        print(f"wrote {path}")


def make_statistics(config: StatsConfig) -> None:
    """Measure a data set once, for many evaluations.

    python sample/eval_fid.py stats --ref celeba:/data/celeba --crop_preset adm --res 64 --out stats/celeba64_adm.npz
    python sample/eval_fid.py stats --ref folder:/data/scans --res '[96, 64]' --channels 1 --out stats/scans.npz
    python sample/eval_fid.py --images samples/ --ref stats/celeba64_adm.npz
    """
    state = start_processes(config.device)
    reference = open_reference(config, config.res, config.channels)
    measurer = open_measurer(config, reference, state)
    measured = reference.measure(measurer, MeasurePlan.of_reference(config.keep_features))
    if state.is_main_process:
        tell(reference.notes)
        extractor = measurer.extractors[0]
        statistics = measured.features[extractor.label]
        statistics.provenance = {**reference.provenance, **measured.provenance, **extractor.provenance}
        save_statistics(Path(config.out), statistics)
        print(f"wrote {config.out}: {measured.count} images, {len(statistics.mean)} features")


def open_measurer(config: FeatureSettings, reference: Reference, state: PartialState) -> Measurer:
    """The measurer with the extractors of --features, or with the reference's own."""
    with state.local_main_process_first():  # which may download
        names = config.extractor_names or [reference.default_extractor]
        extractors = config.load_extractors(names, config.device or str(state.device))
    return Measurer(extractors, state, config.batch_size, config.num_workers)


def measure_levels(
    images: GeneratedImages, reference: Reference, generated: Mapping[Size, Measured], measurer: Measurer
) -> dict[Size, tuple[Measured, Measured]]:
    """Reference and predictions at every coarser level that was asked for."""
    pictures = reference.pictures
    if pictures is None:
        return {}
    count, plan, desc = len(pictures), MeasurePlan(), "reference, coarser"
    return {
        size: (measurer.measure(pictures.reduced(reduction), count, plan, desc=desc), generated[size])
        for size, reduction in images.reductions.items()
    }


def measure_likelihood(config: EvalConfig, images: GeneratedImages, state: PartialState) -> dict[str, Any]:
    """Bits per dimension of reference images, if they were asked for."""
    if "bits_per_dim" not in config.metric_names or not isinstance(images, ModelImages):
        return {}
    given = GivenImages(
        model=str(config.model),
        data=config.ref,
        split=config.split,
        crop_preset=config.crop_preset,
        num=config.likelihood_images,
        seed=config.seed,
        batch_size=config.network_batch,
    )
    pipeline = images.sampler.pipeline
    own = given.open(pipeline, state.process_index, state.num_processes)
    return estimate_bits_per_dim(pipeline, own, LikelihoodSettings(), config.seed, state)


def protocol_of(
    config: EvalConfig, images: GeneratedImages, reference: Mapping[str, Any], extractors: Sequence[Extractor]
) -> dict[str, Any]:
    """The protocol, with what is known of the reference."""
    return make_protocol(images.provenance, reference, extractors, config.keep_features, config.seed)


def check_baseline(
    config: EvalConfig, baseline: Mapping[str, Any] | None, protocol: Mapping[str, Any], complete: bool
) -> None:
    """Refuse a baseline of another protocol; not `complete`: parts of ours are not known yet."""
    if baseline is not None:
        check_same_protocol(protocol, baseline["protocol"], str(config.baseline), complete)


def write(config: EvalConfig, report: Report, pictures: Mapping[str, Any]) -> list[Path]:
    """Write what --out asks for; returns what was written."""
    if config.report_folder is None:
        write_json(Path(str(config.out)), asdict(report))
        return [Path(str(config.out))]
    written = write_report(report, pictures, config.report_folder)
    if config.model and not config.out:
        written.append(Path(config.model) / "metrics.json")
        write_json(written[-1], {"metrics": report.metrics, "settings": report.settings})
    return written


def warn(warnings: Sequence[str], here: bool = True) -> None:
    """Print warnings, on one process."""
    for warning in warnings if here else ():
        print(printable(f"warning: {warning}"), file=sys.stderr)


def tell(notes: Sequence[str]) -> None:
    """Print what should be known and is nobody's mistake."""
    for note in notes:
        print(printable(f"note: {note}"), file=sys.stderr)


def show(metrics: Mapping[str, Any]) -> None:
    """Print the numbers."""
    for name, value in metrics.items():
        print(f"{name:44} {format_number(value)}")


if __name__ == "__main__":
    main()
