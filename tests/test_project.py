"""The project itself: direction of imports, configs, README."""

import ast
import re
from pathlib import Path

import pytest
import torch
import yaml

from ssd.training.config import build_scheduler, build_unet, parse_train_config

from .conftest import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
MATHEMATICS = ["operators", "noise_schedule", "resolution_schedule", "process"]


def imported_modules(file: Path) -> set[str]:
    """Absolute names of all modules that a file imports, also inside functions."""
    package = ".".join(file.relative_to(ROOT).parent.parts)
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            modules.add(".".join([*base, *filter(None, [node.module])]))
    return modules


def test_imports_point_one_way() -> None:
    for file in (ROOT / "flexi_unet").glob("**/*.py"):
        if file.name != "convert.py":  # its command writes a pipeline, see there
            assert not any(m.split(".")[0] in ("ssd", "train", "sample") for m in imported_modules(file)), file
    for file in (ROOT / "ssd").glob("**/*.py"):
        assert not any(m.split(".")[0] in ("train", "sample", "tests") for m in imported_modules(file)), file


@pytest.mark.parametrize("name", MATHEMATICS)
def test_mathematics_knows_no_disk_logging_or_processes(name: str) -> None:
    forbidden = {"logging", "os", "pathlib", "accelerate", "torch.distributed", "ssd.data", "ssd.training"}
    assert not imported_modules(ROOT / "ssd" / f"{name}.py") & forbidden


@pytest.mark.parametrize("path", CONFIGS, ids=[path.name for path in CONFIGS])
def test_every_config_builds(path: Path) -> None:
    config = parse_train_config(["--config", str(path)])
    with torch.device("meta"):
        unet = build_unet(config)
    assert build_scheduler(config).resolutions == unet.stage_sizes[: config.levels]
    assert set(yaml.safe_load(path.read_text())) <= set(vars(config))


def test_the_demo_runs_the_commands_of_the_readme() -> None:
    readme, makefile = (
        (ROOT / "README.md").read_text(),
        (ROOT / "Makefile").read_text().replace("$(RUN)", "runs/digits"),
    )
    for start in (
        "accelerate launch train/train_ssd.py --config",
        "python sample/sample_ssd.py",
        "python sample/eval_fid.py",
    ):
        command = re.search(rf"^.*:= ({re.escape(start)}.*)$", makefile, re.MULTILINE)
        assert command is not None
        assert command[1] in readme


def test_files_that_the_documents_name_exist() -> None:
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name} links to {link}"
        for path in re.findall(
            r"`((?:ssd|flexi_unet|train|sample|configs|tests|docs|benchmarks)/[\w/.]+\.\w+)`", document.read_text()
        ):
            assert (ROOT / path).exists(), f"{document.name} names {path}"
