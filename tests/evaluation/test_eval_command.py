"""The evaluation command: reports, statistics, settings, refusals."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ssd.evaluation.statistics import load_statistics

from ..conftest import ROOT
from .conftest import EVAL, QUICK, read_report, save_model


def test_a_report_has_all_that_is_needed(evaluated) -> None:
    assert sorted(p.name for p in (evaluated / "generated").iterdir()) == [f"{i:06d}.png" for i in range(70)]
    assert Image.open(evaluated / "generated_8x8" / "000069.png").size == (8, 8)
    report = read_report(evaluated)
    names = set(report["metrics"])
    assert {"frechet_distance_pixels", "kid_pixels", "kid_std_pixels", "precision_pixels", "recall_pixels"} <= names
    assert {"swd", "swd_16", "swd_8", "swd_4", "frechet_distance_pixels_at_8x8"} <= names
    assert report["protocol"]["reference"]["count"] == report["metrics"]["num_reference"] == 50
    assert report["protocol"]["extractors"][0]["extractor"] == "pixels"
    assert len(report["samples"]["model"]) == len(report["samples"]["pixels_sha256"]) == 64
    assert f"{EVAL} --model" in report["commands"][0]
    assert len(report["neighbours"]) == 16
    assert "singular" in report["warnings"][0]
    assert {"torch", "clean-fid", "pillow", "numpy"} <= set(report["versions"])
    text = (evaluated / "report.md").read_text()
    for part in ("| frechet_distance_pixels | ", "## Protocol", "![samples](samples.png)", "![neighbours]", EVAL):
        assert part in text
    assert Image.open(evaluated / "neighbours.png").size[0] > Image.open(evaluated / "neighbours.png").size[1]


def test_without_out_the_model_folder_gets_the_numbers(tmp_path, run_command) -> None:
    model = save_model(tmp_path / "m")
    done = run_command(
        EVAL, "--model", model, "--ref", "digits", "--features", "pixels", "--num", "10", *QUICK, "--metrics", "fid"
    )
    assert done.code == 0, done.err
    metrics = json.loads((model / "metrics.json").read_text())["metrics"]
    assert {"frechet_distance_pixels", "mean_top_probability", "digit_shares"} <= set(metrics)
    assert metrics == read_report(model / "eval")["metrics"]
    assert not (model / "eval" / "generated").exists()


def stats_of(spec: str, out: Path, run_command, *flags: object) -> Path:
    done = run_command(EVAL, "stats", "--ref", spec, "--res", "16", "--features", "pixels", "--out", out, *flags)
    assert done.code == 0, done.err
    return out


def test_statistics_stand_for_their_data_set(folder, image_folder, tmp_path, run_command) -> None:
    stats = stats_of(f"folder:{image_folder}", tmp_path / "stats" / "x.npz", run_command)
    found = load_statistics(stats)
    assert found.count == 6
    expected = {"preset": "adm", "size": 16, "count": 6, "extractor": "pixels", "resize": "none"}
    assert expected.items() <= found.provenance.items()
    assert len(found.provenance["pixels_sha256"]) == 64
    reports = []
    for ref in (f"folder:{image_folder}", stats):
        flags = ["--images", folder, "--ref", ref, "--features", "pixels", "--metrics", "fid,kid,swd,pr"]
        done = run_command(EVAL, *flags, "--out", tmp_path / f"{len(reports)}.json")
        assert done.code == 0, done.err
        reports.append(json.loads((tmp_path / f"{len(reports)}.json").read_text()))
    assert reports[0]["metrics"] == reports[1]["metrics"]
    assert reports[0]["protocol"] == reports[1]["protocol"]
    assert reports[0]["neighbours"]
    assert reports[1]["neighbours"] == []


def test_statistics_of_another_kind_are_refused(folder, image_folder, tmp_path, run_command) -> None:
    stats = stats_of(f"folder:{image_folder}", tmp_path / "x.npz", run_command)
    flags = ["--images", folder, "--ref", stats, "--metrics", "fid", "--out", tmp_path / "m.json"]
    run_command(EVAL, *flags, "--crop_preset", "sde140").assert_one_line_error("preset", "'adm' there", "'sde140' here")
    wide = stats_of(f"folder:{image_folder}", tmp_path / "y.npz", run_command, "--res", "32")
    run_command(EVAL, *flags, "--ref", wide).assert_one_line_error("size is 32 there and 16 here")
    run_command(EVAL, *flags, "--split", "test").assert_one_line_error("split")
    network = save_network(tmp_path / "net.pt")
    run_command(EVAL, *flags, "--features", f"module:{network}").assert_one_line_error("extractor is 'pixels' there")
    run_command(EVAL, *flags, "--features", "pixels,clean").assert_one_line_error("one extractor")
    np.savez(tmp_path / "foreign.npz", mu=np.zeros(192), sigma=np.eye(192))
    foreign = ["--ref", tmp_path / "foreign.npz", "--features", "pixels"]
    done = run_command(EVAL, *flags, *foreign)
    assert done.code == 0, done.err
    assert "does not say how it was made" in done.err
    run_command(EVAL, *flags, *foreign, "--metrics", "kid").assert_one_line_error("kid", "mean and covariance alone")
    run_command(EVAL, *flags, *foreign, "--metrics", "swd").assert_one_line_error("swd", "patches")
    np.savez(tmp_path / "foreign.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    run_command(EVAL, *flags, *foreign).assert_one_line_error("2048 features", "'pixels' gives 192")


def test_a_baseline_stands_beside_or_is_refused(evaluated, reference, folder, tmp_path, run_command) -> None:
    flags = ["--images", evaluated / "generated", "--ref", reference, "--metrics", "fid", "--features", "pixels"]
    before = evaluated / "report.json"
    done = run_command(EVAL, *flags, "--out", tmp_path / "a", "--baseline", before)
    assert done.code == 0, done.err
    row = next(r for r in (tmp_path / "a" / "report.md").read_text().splitlines() if "| frechet_distance_pixels |" in r)
    assert row.endswith("| +0.0000 |")
    other = [*flags, "--images", folder, "--out", tmp_path / "b", "--baseline", before]
    run_command(EVAL, *other).assert_one_line_error("num_generated is 70 there and 12 here")
    run_command(EVAL, *other, "--baseline", tmp_path / "no.json").assert_one_line_error("no.json cannot be read")
    (tmp_path / "no.json").write_text("{}")
    run_command(EVAL, *other, "--baseline", tmp_path / "no.json").assert_one_line_error("is not a report")


def test_bad_folders(folder, tmp_path, run_command) -> None:
    flags = ["--ref", "digits", "--metrics", "fid", "--out", tmp_path / "m.json", "--images"]
    (tmp_path / "empty").mkdir()
    run_command(EVAL, *flags, tmp_path / "empty").assert_one_line_error("is empty")
    run_command(EVAL, *flags, tmp_path / "no").assert_one_line_error("does not exist")
    (tmp_path / "empty" / "a.png").write_bytes((folder / "000000.png").read_bytes())
    run_command(EVAL, *flags, tmp_path / "empty").assert_one_line_error("holds one image")
    (folder / "notes.png").write_text("hello")
    run_command(EVAL, *flags, folder).assert_one_line_error("notes.png is not an image")
    (folder / "notes.png").unlink()
    Image.new("RGB", (16, 24)).save(folder / "z.png")
    run_command(EVAL, *flags, folder).assert_one_line_error("000000.png is 16 x 16", "z.png is 16 x 24")
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_truncated_picture_is_named(workers: str, folder, reference, tmp_path, run_command) -> None:
    whole = (folder / "000003.png").read_bytes()
    (folder / "000003.png").write_bytes(whole[: len(whole) // 2])
    flags = ["--images", folder, "--ref", reference, "--features", "pixels", "--out", tmp_path / "x"]
    done = run_command(EVAL, *flags, "--num_workers", workers)
    done.assert_one_line_error("000003.png", "Cannot read the image")


def test_warnings(folder, reference, tmp_path, run_command) -> None:
    Image.open(folder / "000000.png").save(folder / "a.jpg")
    flags = ["--images", folder, "--ref", reference, "--metrics", "fid", "--features", "pixels"]
    done = run_command(EVAL, *flags, "--out", tmp_path / "x")
    assert done.code == 0, done.err
    assert "JPEG" in done.err
    assert "mixes formats (JPEG, PNG)" in done.err
    assert "13 images for 192 features" in done.err
    assert len(read_report(tmp_path / "x")["warnings"]) == 3


class Network(nn.Module):
    """An extractor of 3 features, which may be broken."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.factor * pictures.mean(dim=(2, 3))


def save_network(path: Path, factor: float = 1.0) -> Path:
    torch.jit.trace(Network(factor), torch.zeros(1, 3, 8, 8)).save(str(path))
    return path


def test_features_that_are_no_numbers_are_named(folder, reference, tmp_path, run_command) -> None:
    network = save_network(tmp_path / "nan.pt", float("nan"))
    flags = ["--images", folder, "--ref", reference, "--out", tmp_path / "x", "--features", f"module:{network}"]
    run_command(EVAL, *flags, "--resize", "none").assert_one_line_error("features of image 0", "NaN")


def test_several_extractors_have_tables_of_their_own(folder, reference, tmp_path, run_command) -> None:
    network = save_network(tmp_path / "net.pt")
    flags = ["--images", folder, "--ref", reference, "--out", tmp_path / "x", "--metrics", "fid"]
    done = run_command(EVAL, *flags, "--features", f"pixels,module:{network}", "--resize", "none")
    assert done.code == 0, done.err
    metrics = read_report(tmp_path / "x")["metrics"]
    assert metrics["frechet_distance_module_low_95"] < metrics["frechet_distance_module"]
    tables = (tmp_path / "x" / "report.md").read_text().split("## ")
    assert "module" not in next(table for table in tables if table.startswith("Features: pixels"))


def test_help_of_both_forms(run_command) -> None:
    whole, stats = run_command(EVAL, "--help"), run_command(EVAL, "stats", "--help")
    assert (whole.code, stats.code) == (0, 0)
    assert all(part in whole.out for part in ("--model MODEL", "--keep_features", "Subcommands", f"{EVAL} --model"))
    assert all(part in stats.out for part in ("--res RES", "--crop_preset", f"{EVAL} stats --ref"))
    assert "--model MODEL" not in stats.out


def test_earlier_names_of_flags(folder, reference, tmp_path, run_command) -> None:
    flags = ["--ref", reference, "--preset", "adm", "--keep", "5", "--features", "pixels", "--out"]
    done = run_command(EVAL, "--images", folder, "--metrics", "fid", *flags, tmp_path / "x")
    assert done.code == 0, done.err
    settings = read_report(tmp_path / "x")["settings"]
    assert (settings["crop_preset"], settings["keep_features"]) == ("adm", 5)
    done = run_command(EVAL, "stats", *flags, tmp_path / "x.npz", "--size", "8", "--bf16", "false")
    assert done.code == 0, done.err
    assert [line for line in done.err.splitlines() if "size" in line] == ["note: --size is now called --res."]
    assert load_statistics(tmp_path / "x.npz").kept.shape == (5, 192)


BAD_SETTINGS = {
    "nothing to measure": (["--ref", "digits"], ["--model FOLDER", "--images FOLDER"]),
    "two things": (["--ref", "digits", "--model", "a", "--images", "b"], ["one of --model"]),
    "unknown metric": (["--ref", "digits", "--images", "x", "--metrics", "fid,is"], ["'fid,is'", "fid, kid, swd, pr"]),
    "unknown features": (["--ref", "digits", "--images", "x", "--features", "clip"], ["'clip'", "legacy_pytorch"]),
    "too few for pr": (["--ref", "digits", "--model", "x", "--num", "3"], ["pr needs more than 3 images"]),
    "levels of a folder": (["--ref", "digits", "--images", "x", "--metrics", "levels"], ["levels needs a model"]),
    "checksum": (["--ref", "digits", "--images", "x", "--inception-sha256", "12"], ["64 hexadecimal digits"]),
    "stats without side": (["stats", "--ref", "digits", "--out", "x.npz"], ["are required: res."]),
    "stats of several": (
        ["stats", "--ref", "digits", "--res", "8", "--out", "x.npz", "--features", "pixels,clean"],
        ["one extractor"],
    ),
    "stats without suffix": (["stats", "--ref", "digits", "--res", "8", "--out", "x"], [".npz"]),
    "stats with a wrong flag": (
        ["stats", "--ref", "digits", "--res", "8", "--out", "x.npz", "--feature", "pixels"],
        ["--feature pixels", "Did you mean 'features'?"],
    ),
    "a wrong flag": (["--ref", "digits", "--imags", "x"], ["--imags x", "Did you mean 'images'?"]),
    "a wrong subcommand": (["statistics", "--ref", "digits"], ["statistics", "Did you mean 'stats'?"]),
    "a subcommand that is not the first word": (
        ["--device", "cpu", "stats", "--ref", "digits"],
        ["unrecognized", "stats"],
    ),
    "no reference": (["--model", "x"], ["are required: ref."]),
    "stats of stats": (["stats", "--ref", "a.npz", "--res", "8", "--out", "x.npz"], ["a data set"]),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_bad_settings(name: str, run_command) -> None:
    flags, parts = BAD_SETTINGS[name]
    run_command(EVAL, *flags).assert_one_line_error(*parts)


def test_inception_from_a_local_file(folder, tmp_path, run_command, inception_weights, monkeypatch) -> None:
    """KID by both modes, without a network; FID with its 2048 x 2048 matrices is in the slow test."""
    monkeypatch.setattr("socket.socket.connect", lambda *arguments: pytest.fail("used the network"))
    for surplus in sorted(folder.iterdir())[3:]:
        surplus.unlink()
    flags = ["--images", folder, "--ref", f"folder:{folder}", "--metrics", "kid", "--out", tmp_path / "x"]
    flags += ["--features", "clean,legacy_pytorch", "--inception-weights", inception_weights]
    run_command(EVAL, *flags).assert_one_line_error("pt_inception.pth has the SHA-256", "published files")
    done = run_command(EVAL, *flags, "--inception-sha256", "none")
    assert done.code == 0, done.err
    report = read_report(tmp_path / "x")
    for label in ("clean", "legacy_pytorch"):  # unbiased, hence below 0 between the same three images
        assert -1e6 < report["metrics"][f"kid_{label}"] < -1e-9
    assert [e["resize"] for e in report["protocol"]["extractors"]] == ["clean", "legacy_pytorch"]
    assert "3 images are far too few for the features 'clean'" in done.err
    assert "3 images for 2048 features" in done.err


@pytest.mark.slow
def test_inception_fid_end_to_end(model, tmp_path, run_command, inception_weights) -> None:
    """A model, statistics, and a FID on 2048 features of an Inception with random weights."""
    inception = ["--features", "clean", "--inception-weights", inception_weights, "--inception-sha256", "none"]
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", images=rng.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8))
    stats = tmp_path / "s.npz"
    assert (
        run_command(EVAL, "stats", "--ref", f"npz:{tmp_path / 'd.npz'}", "--res", "16", "--out", stats, *inception).code
        == 0
    )
    flags = ["--model", model, "--num", "30", *QUICK, "--out", tmp_path / "x", *inception]
    done = run_command(EVAL, *flags, "--ref", stats)
    assert done.code == 0, done.err
    metrics = read_report(tmp_path / "x")["metrics"]
    assert metrics["fid30_clean"] > 0
    assert load_statistics(stats).mean.shape == (2048,)


STREAM_50K = """
import resource, sys, torch
import ssd
from accelerate import PartialState
from ssd.evaluation.features.extractors import Extractor
from ssd.evaluation.distances.frechet import frechet_distance
from ssd.evaluation.batches import Batch
from ssd.evaluation.measure import Measurement
from ssd.evaluation.plan import MeasurePlan
from ssd.evaluation.processes import work_blocks
state = PartialState(cpu=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
results = []
for shift in (0.0, 0.1):
    generator = torch.Generator().manual_seed(0)
    extractor = Extractor("module:x", "none", lambda pictures: pictures[:, :, 0, 0])
    measurement = Measurement(MeasurePlan(num_kept=10_000), 50_000, [extractor])
    for block in work_blocks(50_000, 64):
        for batch in block:
            features = torch.randn(len(batch), 2048, 1, 1, generator=generator) + shift
            measurement.add(Batch(batch, {"none": features}, [b""] * len(batch)))
        measurement.end_block()
    results.append(measurement.result(state).features["module"])
    del measurement
one, two = results
assert one.count == 50_000 and one.kept.shape == (10_000, 2048)
distance = frechet_distance(one.mean, one.covariance, two.mean, two.covariance)
print(distance, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20, before / 2**20)
"""


@pytest.mark.slow
def test_memory_at_full_size() -> None:
    """50,000 x 2048 features on both sides, 10,000 of each kept, and their distance: half a GB beyond the imports.

    Held in memory, as clean-fid does, they would be 0.8 GB in float32 and twice that in float64.
    """
    done = subprocess.run([sys.executable, "-c", STREAM_50K], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    distance, gigabytes, _ = map(float, done.stdout.split()[-3:])
    assert distance == pytest.approx(2048 * 0.1**2, rel=1e-3)  # the same noise, shifted
    assert gigabytes < 0.5, done.stdout
