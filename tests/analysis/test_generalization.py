"""Two denoisers on disjoint images: the exact study with linear ones, the networks' figures, the command, its files."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from flexi_unet import FlexiUNet2DModel
from ssd import SSDPipeline, SSDScheduler
from ssd.analysis.denoisers.denoising import psnr
from ssd.analysis.generalization.__main__ import main
from ssd.analysis.generalization.config import StudyConfig
from ssd.analysis.generalization.diffusion_models import draw_levels, level_denoiser, level_probes, train_flags
from ssd.analysis.generalization.likeness import data_likeness, likeness
from ssd.analysis.generalization.report import cell, number
from ssd.analysis.generalization.row import make_row
from ssd.evaluation.denoising import Denoiser
from ssd.training.build import build_scheduler
from ssd.training.config import parse_train_config

LINEAR = {2: (0.388, 0.995), 8: (0.573, 0.895), 32: (0.864, 0.812), 128: (0.970, 0.802), 512: (0.993, 0.817)}
LINEAR[898] = (0.996, 0.827)
"""N -> median centred cosine of pairs, and with the nearest training image: digits of 8 pixels, seed 0."""


def rows_of(out) -> dict[int, dict]:
    return {row["n"]: row for row in json.loads((out / "study.json").read_text())["rows"]}


def test_the_linear_study(tmp_path, capsys) -> None:
    """It is deterministic: published figures of an independent computation hold, and the transition is there."""
    sizes = str(list(LINEAR))
    main(["--denoiser", "linear", "--data", "digits", "--sizes", sizes, "--seeds", "1", "--out", str(tmp_path)])
    rows = rows_of(tmp_path)
    for size, (pair, nearest) in LINEAR.items():
        assert rows[size]["pair"][1] == pytest.approx(pair, rel=0.02)
        assert rows[size]["nearest"][1] == pytest.approx(nearest, rel=0.02)
    gaps = [rows[size]["gap"] for size in LINEAR]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 20
    assert abs(gaps[-1]) < 0.3
    distances = [np.mean(rows[size]["function_distance"]) for size in LINEAR]
    assert distances[-1] < 0.05 < 0.3 < distances[0]
    said = capsys.readouterr().out
    assert "1797 images of digits, 0 near duplicates left out; 1 seed, 256 samples per denoiser." in said
    for name in re.findall(r"\w+\.(?:png|json|md)", said.splitlines()[-1]):
        assert (tmp_path / name).stat().st_size > 0, name
    report = (tmp_path / "report.md").read_text()
    assert "overstate originality" in report
    assert "| 898 | " in report
    for name in re.findall(r"\]\((\w+\.png)\)", report):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 100


def study(out, *more: str) -> None:
    words = ["--sizes", "[1, 4]", "--steps", "12", "--batch", "4", "--width", "2", "--samples", "6", "--seeds", "1"]
    main([*words, "--jobs", "1", "--out", str(out), *more])


def test_a_study_goes_on_and_is_not_mixed(tmp_path, capsys) -> None:
    study(tmp_path)
    row = tmp_path / "rows" / "n4_seed0.json"
    written, first = row.stat().st_mtime_ns, rows_of(tmp_path)
    assert sorted(first) == [1, 4]
    assert first[1]["different_seeds"] != first[1]["pair"][1]
    assert len(first[4]["diverged"]) == 2
    (tmp_path / "rows" / "n1_seed0.json").unlink()
    study(tmp_path, "--seeds", "2")  # the missing row and another seed
    assert row.stat().st_mtime_ns == written
    assert len(json.loads((tmp_path / "study.json").read_text())["rows"]) == 4
    again = json.loads((tmp_path / "rows" / "n1_seed0.json").read_text())
    assert {**again, "cpu_seconds": 0} == {**first[1], "cpu_seconds": 0}
    capsys.readouterr()
    with pytest.raises(SystemExit):
        study(tmp_path, "--steps", "13")
    assert "holds a study with --steps 12, not 13" in capsys.readouterr().err


@pytest.mark.slow
def test_rows_side_by_side_are_the_same(tmp_path) -> None:
    study(tmp_path / "one")
    study(tmp_path / "two", "--jobs", "2")
    one, two = (rows_of(tmp_path / name) for name in ("one", "two"))
    for size in (1, 4):
        for name, value in one[size].items():
            if name != "cpu_seconds":  # threads share sums in another way
                assert two[size][name] == pytest.approx(value, rel=1e-2, abs=1e-2), name


@pytest.mark.slow
def test_networks_remember_few_images_and_agree_on_many(tmp_path) -> None:
    """With weights and batches of their own, four N and three seeds: what the page claims. Minutes."""
    main(["--sizes", "[1, 8, 64, 638]", "--seeds", "3", "--steps", "2000", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "study.json").read_text())["rows"]
    for seed in range(3):
        by_size = {row["n"]: row for row in rows if row["seed"] == seed}
        gaps = [by_size[size]["gap"] for size in (1, 8, 64, 638)]
        assert gaps == sorted(gaps, reverse=True)
        assert gaps[0] > 10
        assert gaps[-1] < 1
        few, many = by_size[1], by_size[638]
        assert min(few["nearest"][1], few["nearest_second"][1]) > 0.97
        assert many["pair"][1] - many["different_seeds"] > 0.15
        assert abs(few["pair"][1] - few["different_seeds"]) < 0.05
        assert np.mean(many["function_distance"]) < np.mean(few["function_distance"])


def test_a_row_knows_what_it_compares() -> None:
    """Images in two groups that differ: each denoiser's samples are like its own group, and the groups are apart."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(40, 1, 4, 4, generator=generator)
    row, arrays = make_row(StudyConfig(denoiser="linear", samples=50), images, 2, seed=1)
    order = np.random.default_rng(1).permutation(40)
    assert row["nearest"][0] > row["pair"][2]  # the worst copies are nearer than the best pairs
    for which, first in ((0, 0), (1, 20)):
        learned = images[order[first : first + 2]].numpy()
        for nearest in arrays[f"nearest_{which}"]:
            assert min(np.abs(learned - nearest).max(axis=(1, 2, 3))) == 0
    assert row["n"] == 2
    assert len(row["psnr_train"]) == len(row["sigma"]) == 6


def test_likeness_of_copies() -> None:
    """Samples that are the training images themselves: nearest 1; the same samples: pair 1; others: their cosine."""
    images = torch.randn(20, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    found, arrays = likeness((images, images), (images, images.flip(0)))
    for name in ("pair", "nearest", "nearest_second", "pair_uncentred", "nearest_uncentred"):
        assert found[name] == pytest.approx([1, 1, 1])
    assert arrays["nearest_index"].tolist() == [list(range(20)), list(range(19, -1, -1))]
    assert abs(found["different_seeds"]) < 5 / 256**0.5 / 190**0.5 * 2  # a median of independent cosines
    data, closest = data_likeness((images, torch.cat([images[:5], -images])))
    assert closest[:5].tolist() == pytest.approx([1] * 5)
    assert data["data_closest_pairs"] > data["data_random_pairs"]


def test_numbers_of_the_report() -> None:
    assert [number(value) for value in (23.456, -1.234, 0.25, -0.5, 0.0)] == ["23.5", "-1.23", ".250", "-.500", ".000"]
    assert cell([0.5]) == ".500"


def tiny_pipeline() -> SSDPipeline:
    torch.manual_seed(0)
    unet = FlexiUNet2DModel(
        8, in_channels=1, out_channels=1, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4
    )
    pipeline = SSDPipeline(unet, SSDScheduler(sample_size=8, num_levels=2))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_diffusion_models_are_asked_at_every_level() -> None:
    pipeline, images = tiny_pipeline(), torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    probes = level_probes(pipeline, images, seed=0)
    assert [tuple(probe.noisy.shape[-2:]) for probe in probes] == [(8, 8)] * 3 + [(4, 4)] * 3
    sigmas = [probe.sigma for probe in probes]
    assert sigmas == sorted(sigmas)
    process = pipeline.scheduler.process
    for probe in probes:
        t = int(probe.level)
        added = probe.noisy - process.signal(t) * process.degrade(2 * images - 1, t)
        assert float(added.std() / process.sigma(t)) == pytest.approx(1, abs=5 / (2 * added.numel()) ** 0.5)
        error = Denoiser(pipeline).error_of(Denoiser(pipeline).prediction(probe.noisy, t - 1, t), 2 * images - 1, t - 1)
        (found,) = psnr(level_denoiser(pipeline), [probe])
        # In [0, 1] errors are half of those in [-1, 1].
        expected = -10 * (error / 2).square().mean(dim=(1, 2, 3)).log10().mean()
        assert found == pytest.approx(float(expected), abs=1e-4)


def test_samples_of_diffusion_models_at_every_level() -> None:
    drawn = draw_levels(tiny_pipeline(), 5, seed=0)
    assert {size: tuple(images.shape) for size, images in drawn.items()} == {(4, 4): (5, 1, 4, 4), (8, 8): (5, 1, 8, 8)}
    fewer = draw_levels(tiny_pipeline(), 3, seed=0)
    for size, images in fewer.items():
        torch.testing.assert_close(images, drawn[size][:3], rtol=1e-4, atol=1e-4)


def test_diffusion_models_are_trained_by_the_training_command(tmp_path) -> None:
    settings = {"levels": 1, "loss": "simple", "block_out_channels": [32, 32]}
    config = StudyConfig(denoiser="ssd", settings=settings, steps=7, batch=8, channels=1)
    training = parse_train_config(train_flags(config, tmp_path / "a.npz", tmp_path / "a", seed=3))
    assert (training.data, training.out, training.seed) == (f"npz:{tmp_path}/a.npz", f"{tmp_path}/a", 3)
    assert (training.total_steps, training.global_batch_size, training.channels) == (7, 8, 1)
    assert (training.loss, training.block_out_channels, training.size) == ("simple", [32, 32], (8, 8))
    assert len(build_scheduler(training).resolutions) == 1


@pytest.mark.slow
def test_the_study_of_diffusion_models(tmp_path, capsys) -> None:
    words = ["--denoiser", "ssd", "--sizes", "[30]", "--seeds", "1", "--steps", "2", "--batch", "4"]
    main([*words, "--samples", "4", "--settings", "{cpu_threads: 1}", "--out", str(tmp_path)])
    row = rows_of(tmp_path)[30]
    assert sorted(row["levels"]) == ["4x4", "8x8"]
    assert row["levels"]["8x8"]["pair"] == pytest.approx(row["pair"][1], abs=1e-6)
    assert "The last predictions at every level" in (tmp_path / "report.md").read_text()
    for which in (0, 1):
        with np.load(tmp_path / "models" / f"n30_seed0_{which}.npz") as archive:
            assert archive["images"].shape == (30, 8, 8, 1)
    assert "Wrote study.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "[1, 700]"], "--sizes must be from 1 to 679, half of the 1359 images, got 700"),
        (["--sizes", "[0]"], "--sizes must be numbers of images, each at least 1"),
        (["--sizes", "[]"], "--sizes must be numbers of images, each at least 1"),
        (["--steps", "1"], "--steps must be at least 2, got 1"),
        (["--samples", "1"], "--samples must be at least 2, got 1"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--lr", "-1"], "--lr must be positive, got -1"),
        (["--blocks", "4"], "must be multiples of 16, which this network halves them by, got 8x8"),
        (["--settings", "{levels: 1}"], "--settings are of train/train_ssd.py, for --denoiser ssd, not bf_unet"),
        (["--denoiser", "ssd", "--settings", "{res: 16}"], "--settings must not have res, which the study sets"),
        (["--denoiser", "best"], "denoiser"),
        (["--data", "nothing"], "Unknown data set 'nothing'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, arguments, message) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--out", str(tmp_path / "out"), *arguments])
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert exit_info.value.code == 2
    assert len(said) == 1
    assert message in said[0]
    assert not (tmp_path / "out").exists()
