"""The command `ssd` runs the scripts: from a checkout, and from a wheel in which there is nothing else."""

import io
import subprocess
import sys
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from ssd.commands.console import COMMANDS, folder_of, main

from ..conftest import ROOT, TINY, Outcome, run_script

SCRIPTS = {name: where for name, (where, _) in COMMANDS.items() if where.endswith(".py")}


def run_ssd(*arguments: str, monkeypatch) -> Outcome:
    """`ssd ARGUMENTS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "argv", ["ssd", *arguments])
    code = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_lists_its_flags(name: str, monkeypatch) -> None:
    done = run_ssd(name, "--help", monkeypatch=monkeypatch)
    assert done.code == 0, done.err
    assert "usage: " in done.out
    if name in SCRIPTS:
        assert f"usage: ssd {name}" in done.out.split("\n")[0]
        script = run_script(SCRIPTS[name], "--help")
        assert set(done.out.split()) - {"ssd", name} == set(script.out.split()) - {Path(SCRIPTS[name]).name}


def test_every_script_has_a_name() -> None:
    assert sorted(SCRIPTS.values()) == sorted(
        str(path.relative_to(ROOT)) for folder in ("train", "sample") for path in (ROOT / folder).glob("*.py")
    )


def test_what_it_says_of_itself_and_of_mistakes(monkeypatch) -> None:
    for flags in ([], ["--help"], ["-h"]):
        done = run_ssd(*flags, monkeypatch=monkeypatch)
        assert done.code == 0
        assert all(f"  {name} " in done.out for name in COMMANDS)
    run_ssd("trian", monkeypatch=monkeypatch).assert_one_line_error("'trian'", "did you mean train?", "one of train,")
    run_ssd("42", monkeypatch=monkeypatch).assert_one_line_error("use one of train,")
    done = run_ssd("train", "--res", "16", "--data", "nothing", "--out", "x", monkeypatch=monkeypatch)
    done.assert_one_line_error("nothing")
    printed = Path(run_ssd("configs", monkeypatch=monkeypatch).out.strip())
    assert printed == folder_of("configs") == ROOT / "configs"


@pytest.mark.slow
def test_a_wheel_holds_all_that_the_commands_need(tmp_path) -> None:
    """Built without a network, unpacked, and run where the checkout cannot be seen."""
    build = [sys.executable, "-m", "pip", "wheel", str(copy_of_the_project(tmp_path / "copy")), "--no-deps"]
    subprocess.run([*build, "--no-build-isolation", "-q", "-w", str(tmp_path)], check=True, cwd=tmp_path)
    [wheel] = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    entry = next((tmp_path / "site").glob("*.dist-info/entry_points.txt")).read_text()
    assert "ssd = ssd.commands.console:main" in entry
    assert not [path.name for path in (tmp_path / "site").iterdir() if path.name in ("train", "sample", "tests")]

    def ssd(*arguments: str) -> str:
        command = [sys.executable, "-c", "from ssd.commands.console import main; main()", *arguments]
        environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    configs = Path(ssd("configs").strip())
    assert configs == tmp_path / "site" / "ssd" / "scripts" / "configs"
    assert (configs / "ours" / "pictures32.yaml").read_text() == (ROOT / "configs/ours/pictures32.yaml").read_text()
    ssd("train", *TINY, "--data", "digits", "--max_steps", "2", "--out", "run")
    ssd("sample", "--model", "run", "--num", "2", "--steps", "4", "--out", "images")
    assert len(list((tmp_path / "images").glob("*.png"))) == 2


def copy_of_the_project(to: Path) -> Path:
    """What a wheel is built of, so that nothing is left in the checkout."""
    to.mkdir()
    for name in ("ssd", "flexi_unet", "vdvae", "train", "sample", "configs"):
        (to / name).symlink_to(ROOT / name)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (to / name).write_bytes((ROOT / name).read_bytes())
    return to
