"""The project itself: direction of imports, configs, README."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from ssd import SSDPipeline
from ssd.training.build import build_scheduler, build_unet
from ssd.training.config import parse_train_config
from ssd.training.vdvae.config import parse_vdvae_config
from ssd.training.vdvae.setup import build_vdvae
from vdvae import VDVAEModel
from vdvae.sizes import SIZES

from .conftest import ROOT

CODE = sorted(
    path for room in ("ssd", "flexi_unet", "vdvae", "train", "sample") for path in (ROOT / room).glob("**/*.py")
)
NETWORKS = ("flexi_unet", "vdvae")
LONGEST_FUNCTION, LONGEST_FILE = 60, 400
CONFIGS = sorted([*(ROOT / "configs").glob("*.yaml"), *(ROOT / "configs" / "ours").glob("*.yaml")])
MATHEMATICS = sorted(path for room in ("operators", "process") for path in (ROOT / "ssd" / room).glob("*.py"))
NOT_IN_MATHEMATICS = ("logging", "os", "pathlib", "accelerate", "torch.distributed")


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
    for room in NETWORKS:
        others = {"ssd", "train", "sample", *NETWORKS} - {room}
        for file in (ROOT / room).glob("**/*.py"):
            assert not {module.split(".")[0] for module in imported_modules(file)} & others, file
    for file in (ROOT / "ssd").glob("**/*.py"):
        assert not any(m.split(".")[0] in ("train", "sample", "tests") for m in imported_modules(file)), file


@pytest.mark.parametrize("path", MATHEMATICS, ids=[f"{path.parent.name}/{path.name}" for path in MATHEMATICS])
def test_mathematics_knows_no_disk_logging_or_processes(path: Path) -> None:
    for module in imported_modules(path):
        assert not module.startswith(NOT_IN_MATHEMATICS), module
        if module.startswith("ssd."):
            assert module.split(".")[1] in ("operators", "process"), module


def packages_of_imports(file: Path) -> set[str]:
    """The rooms of ours (ssd.data, flexi_unet, ..) from which a file imports, other than its own."""
    rooms = {room_of(module) for module in imported_modules(file) if module.split(".")[0] in ("ssd", *NETWORKS)}
    return rooms - {room_of(".".join(file.relative_to(ROOT).with_suffix("").parts))}


def room_of(module: str) -> str:
    """ssd.data.readers.wds -> ssd.data; flexi_unet.routing -> flexi_unet."""
    return ".".join(module.split(".")[:2]) if module.startswith("ssd.") else module.split(".")[0]


def test_rooms_import_in_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for file in (path for top in ("ssd", *NETWORKS) for path in (ROOT / top).glob("**/*.py")):
        room = room_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
        if file != ROOT / "ssd" / "__init__.py":  # hands out its classes by name
            graph.setdefault(room, set()).update(packages_of_imports(file))
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError with the circle


@pytest.mark.parametrize("path", CODE, ids=[str(path.relative_to(ROOT)) for path in CODE])
def test_functions_and_files_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
            assert lines <= LONGEST_FUNCTION, node.name


@pytest.mark.parametrize("path", CONFIGS, ids=[f"{path.parent.name}/{path.name}" for path in CONFIGS])
def test_every_config_builds(path: Path) -> None:
    config = parse_train_config(["--config", str(path)])
    with torch.device("meta"):
        unet = build_unet(config)
    SSDPipeline(unet, build_scheduler(config))  # they fit
    assert set(yaml.safe_load(path.read_text())) <= set(vars(config))


VDVAE_CONFIGS = sorted((ROOT / "configs" / "vdvae").glob("*.yaml"))


@pytest.mark.parametrize("path", VDVAE_CONFIGS, ids=[path.stem for path in VDVAE_CONFIGS])
def test_every_vdvae_config_builds_the_network_of_its_name(path: Path) -> None:
    config = parse_vdvae_config(["--config", str(path)])
    with torch.device("meta"):
        model, expected = build_vdvae(config), VDVAEModel(**SIZES[path.stem])
    settings, wanted = ({k: v for k, v in m.config.items() if k[0] != "_"} for m in (model, expected))
    assert settings == wanted
    assert config.out == f"runs/{path.stem}_vdvae"


def test_every_size_of_vdvae_has_a_config() -> None:
    assert {path.stem for path in VDVAE_CONFIGS} == set(SIZES)


ACCELERATE_CONFIGS = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize("path", ACCELERATE_CONFIGS, ids=[path.name for path in ACCELERATE_CONFIGS])
def test_every_launch_config_loads(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert config.num_processes >= 1
    assert str(config.mixed_precision) == "no"  # the training script decides


def test_the_demo_runs_the_commands_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text().replace("$(RUN)", "runs/digits")
    commands = re.findall(r"^DEMO_\w+ := (.*)$", makefile, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert command in readme


DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
PROJECT_FILE = re.compile(r"`((?:ssd|flexi_unet|vdvae|train|sample|configs|tests|docs|benchmarks)/[\w/.]+\.\w+)`")


@pytest.mark.parametrize("document", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_files_that_the_documents_name_exist(document: Path) -> None:
    text = document.read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (document.parent / link).exists(), f"{document.name} links to {link}"
    for path in PROJECT_FILE.findall(text):
        assert (ROOT / path).exists(), f"{document.name} names {path}"
