"""Every benchmark runs, on settings too small to mean anything."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

from flexi_unet import FlexiUNet2DModel
from ssd import SSDPipeline, SSDScheduler, VDVAEPipeline
from ssd.publishing.saving import save_pipeline

from .analysis.small_vdvae import small_vdvae

ROOT = Path(__file__).parent.parent

SETTINGS = {
    "sampler": ("--levels 2 --steps 10 --batch_size 2 --pairs 1 --base 32 --res 16", "| pipeline, 16 pixels, 2 levels"),
    "train_step": ("--res 16 --base 32 --batch_size 1 --pairs 1", "| peak of PyTorch"),
    "network": ("--res 16 --base 32 --batch_size 1 --pairs 1", "| 50 sampling steps as they are"),
    "presets": ("--presets ['64x2']", "| training time, 64 pixels, 2 levels | 1 level"),
    "architectures": ("--resolutions [16] --levels [2] --base 32 --pairs 1", "| training step, 16 pixels, 2 levels |"),
    "profile_routes": ("--res 16 --base 32 --batch_size 1 --repeats 1", "| sampling, 2 -> 4 |"),
    "batch_sizes": ("--res 16 --base 32 --largest 1 --repeats 1", "| pixels | batch 1 | batch 4 | batch 16 |"),
    "scaling": ("--base 32 --steps 6 --pixels 1024", "| 256 | 6 |"),
    "imports": ("", "| import ssd | import diffusers; import torch |"),
    "small_images": ("--num 8 --num_test 4 --max_steps 1 --levels 2 --block_out_channels [32,32]", "| levels | "),
    "frechet": ("--features 64", "| Frechet distance at 64 features"),
}
"""Flags, and a part of what is printed. `loader`, `flops`, `learning` and `one_ruler` have tests of their own."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_benchmark(name: str) -> None:
    flags, expected = SETTINGS[name]
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *flags.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


PARTS = {"measuring", "learning_processes", "learning_report", "learning_rulers"}
"""What is imported by others."""


def test_no_benchmark_is_forgotten() -> None:
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - PARTS
    assert scripts - {"run", "loader", "flops", "gradient_averaging", "learning", "one_ruler"} == set(SETTINGS)
    page = (ROOT / "docs" / "performance.md").read_text()
    assert [name for name in scripts if f"benchmarks/{name}.py" not in page] == []


@pytest.mark.slow
def test_one_ruler(tmp_path: Path) -> None:
    """A model of each family; one of other grey levels is refused."""
    unet = FlexiUNet2DModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(32, 32))
    save_pipeline(SSDPipeline(unet, SSDScheduler(sample_size=8, num_levels=2)), tmp_path / "ssd")
    save_pipeline(VDVAEPipeline(small_vdvae()), tmp_path / "vdvae")
    command = [sys.executable, str(ROOT / "benchmarks" / "one_ruler.py"), "--data", "digits", "--num_valid", "4"]
    command += ["--models", f"{tmp_path}/ssd,{tmp_path}/vdvae", "--out", str(tmp_path / "out"), "--num", "8"]
    done = subprocess.run([*command, "--grey_levels", "17"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out" / "table.json").read_text())["rows"]
    assert [row["network_calls"] for row in rows.values()] == [20, 1]
    assert rows["vdvae"]["bits_per_dim_importance_64"] < rows["vdvae"]["bits_per_dim_importance_1"]
    assert all((tmp_path / "out" / f"{name}.png").is_file() for name in ("ssd", "vdvae"))
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "vdvae has 17 grey levels" in refused.stderr


ARMS = """
common: {res: 16, block_out_channels: [32, 32], layers_per_block: 1, global_batch_size: 4, num_workers: 0}
arms:
  two_levels: {levels: 2}
  one_level: {levels: 1, lr_warmup_steps: 3, lr_scheduler: cosine, time: 0.5}
"""


@pytest.fixture
def learning_command(tmp_path: Path) -> list[str]:
    """`learning.py` with two tiny arms on some digits."""
    np.savez(tmp_path / "digits.npz", images=np.uint8(255 * load_digits().images[:90, ..., None].repeat(3, -1) / 16))
    (tmp_path / "arms.yaml").write_text(ARMS)
    command = [sys.executable, str(ROOT / "benchmarks" / "learning.py")]
    command += ["--arms", str(tmp_path / "arms.yaml"), "--data", f"npz:{tmp_path}/digits.npz", "--out", f"{tmp_path}/o"]
    command += ["--minutes", "0.02,0.04", "--seeds", "0", "--num", "16", "--num_held_out", "4"]
    return command


@pytest.fixture
def learning(learning_command: list[str]) -> Callable[..., subprocess.CompletedProcess]:
    """Runs it with further flags."""
    return lambda *more: subprocess.run([*learning_command, *more], capture_output=True, text=True)


@pytest.mark.slow
def test_learning_trains_and_measures_once(learning: Callable, tmp_path: Path) -> None:
    done = learning()
    assert done.returncode == 0, done.stderr
    for arm in ("two_levels", "one_level"):
        for mark in ("0.02", "0.04"):
            assert f"| {arm} | {mark} | " in done.stdout
            assert (tmp_path / "o" / arm / "seed_0" / f"mark_{mark}.png").is_file()
    assert "| real images |" in done.stdout
    assert "| arm | minutes | 16 x 16 | 8 x 8 | 8 x 8 -> 16 x 16 |" in done.stdout
    assert (tmp_path / "o" / "table.md").read_text() == done.stdout
    assert (tmp_path / "o" / "plot.png").is_file()

    pilot = json.loads((tmp_path / "o/one_level/pilot.json").read_text())
    steps = yaml.safe_load((tmp_path / "o/one_level/seed_0/settings.yaml").read_text())["max_steps"]
    assert steps == max(1, round(pilot["steps_per_minute"] * 0.02))  # half of the last mark
    assert not list((tmp_path / "o/two_levels").glob("pilot*"))

    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "o").glob("*_level*/**/*") if path.is_file()}

    before = written()
    again = learning()
    assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr
    assert written() == before

    (tmp_path / "o" / "one_level" / "seed_0" / "mark_0.04.json").unlink()  # trained, but not measured
    assert learning().stdout == done.stdout
    changed = {path.name for path, time in written().items() if time != before.get(path)}
    assert changed == {"settings.yaml", "log.txt", "mark_0.04.json", "mark_0.04.png"}

    for flags, message in (
        (["--num", "8"], "is of other arms or rulers (num changed, see"),
        (["--minutes", "0.03,0.04"], "--minutes 0.03: "),
        (["--minutes", "0.02,0.04,0.1"], "is of other arms or rulers (last_of_minutes changed, see"),
    ):
        refused = learning(*flags)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


@pytest.mark.slow
def test_learning_that_is_ended_ends_its_runs(learning_command: list[str], tmp_path: Path) -> None:
    (tmp_path / "arms.yaml").write_text(ARMS.replace("time: 0.5", "time: 0.5, max_steps: 100000"))
    command = [*learning_command, "--minutes", "30"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = tmp_path / "o" / "two_levels" / "seed_0" / "log.txt"
    while "loss=" not in (log.read_text() if log.exists() else ""):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.2)
    process.terminate()
    process.communicate(timeout=60)  # not after 30 minutes
    assert process.returncode == 128 + signal.SIGTERM
    assert "Stopped by SIGTERM" in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("levels: 2", "level: 2", "Did you mean 'levels'?"),
        ("levels: 2", "levels: 9", "The arm two_levels cannot be trained: "),
        ("levels: 2", "levels: 2, seed: 3", "two_levels sets seed, which the benchmark sets: leave it out."),
        ("time: 0.5", "time: 1.5", "the time of one_level must be in (0, 1], got 1.5"),
        ("levels: 2", "levels: 2, channels: 1", "two_levels and one_level have different channels"),
        ("two_levels", "../two", "'../two' is no name of an arm"),
    ],
)
def test_learning_refuses_arms_before_it_trains(
    learning: Callable, tmp_path: Path, before: str, after: str, message: str
) -> None:
    (tmp_path / "arms.yaml").write_text(ARMS.replace(before, after))
    done = learning()
    assert done.returncode == 2, done.stderr
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "o" / "arms.yaml").exists()
