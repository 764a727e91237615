"""What the documentation shows works: doctests of every module, and the Python blocks of every document."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

import flexi_unet
import ssd
import vdvae
from ssd.commands.parser import CommandParser
from ssd.training.build import build_scheduler, build_unet
from ssd.training.config import parse_train_config
from ssd.training.measured import settle_measured, to_measure
from ssd.training.setup import open_training_data
from ssd.training.vdvae.config import parse_vdvae_config
from ssd.training.vdvae.setup import build_vdvae

from .conftest import ROOT

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def modules_with_examples() -> list[str]:
    """Names of the modules of `ssd`, `flexi_unet` and `vdvae` that show examples."""
    names = [
        module.name
        for package in (ssd, flexi_unet, vdvae)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    return [name for name in names if ">>> " in Path(importlib.util.find_spec(name).origin).read_text()]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_of_a_module(name: str) -> None:
    torch.manual_seed(0)
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried > 0
    assert failed == 0  # pytest shows what doctest printed


def documents_with_python() -> list[Path]:
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [document for document in documents if BLOCK.search(document.read_text())]


@pytest.fixture
def trained_models(tmp_path, monkeypatch) -> None:
    """A working directory with models in `runs/digits` and `runs/digits_ws_vdvae`, tiny and untrained."""
    torch.manual_seed(0)
    unet = flexi_unet.FlexiUNet2DModel(8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4)
    ssd.SSDPipeline(unet, ssd.SSDScheduler(sample_size=8, num_levels=2)).save_pretrained(tmp_path / "runs" / "digits")
    model = vdvae.VDVAEModel(8, 1, "8x1,8d2,4x1", "4x1r2,8m4", width=8, latent_channels=2, num_mixtures=2)
    ssd.VDVAEPipeline(model).save_pretrained(tmp_path / "runs" / "digits_ws_vdvae")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("trained_models")
@pytest.mark.parametrize("document", documents_with_python(), ids=lambda path: path.name)
def test_python_of_a_document(document: Path) -> None:
    """Its blocks run in order, in one namespace."""
    text = document.read_text()
    namespace: dict[str, object] = {"__name__": "document"}
    for block in BLOCK.finditer(text):
        line = text[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(document), "exec"), namespace)


DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TRAINING = [
    (document.name, line.strip())
    for document in DOCUMENTS
    for line in document.read_text().splitlines()
    if re.match(r" +(accelerate launch|python)\b.* train/train_ssd.py ", line)
]


@pytest.mark.parametrize(("document", "line"), TRAINING, ids=[f"{name}: {line[-60:]}" for name, line in TRAINING])
def test_training_commands_of_the_documents_describe_a_run(document: str, line: str, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    config = parse_train_config(shlex.split(line.partition("train/train_ssd.py")[2], comments=True))
    config, _ = settle_measured(config, open_training_data(config), {}) if to_measure(config) else (config, [])
    scheduler = build_scheduler(config)
    with torch.device("meta"):
        unet = build_unet(config)
    ssd.SSDPipeline(unet, scheduler)  # they fit


VDVAE_TRAINING = [
    (document.name, line.partition("train/train_vdvae.py")[2])
    for document in DOCUMENTS
    for line in document.read_text().splitlines()
    if re.match(r" +(accelerate launch|python)\b.* train/train_vdvae.py ", line)
]


@pytest.mark.parametrize(
    ("document", "words"), VDVAE_TRAINING, ids=[f"{name}: {words[-60:]}" for name, words in VDVAE_TRAINING]
)
def test_vdvae_training_commands_of_the_documents_describe_a_run(document: str, words: str, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    with torch.device("meta"):
        assert build_vdvae(parse_vdvae_config(shlex.split(words, comments=True))).cells


COMMAND = re.compile(r"^ +python (-m ssd\.[\w.]+|sample/\w+\.py)((?: .*)?)$")
COMMANDS = [
    (document.name, found[1], found[2])
    for document in DOCUMENTS
    for line in document.read_text().replace("\\\n", " ").splitlines()
    if (found := COMMAND.match(line))
]


class Parsed(Exception):
    """The command line was understood."""


@pytest.mark.parametrize(
    ("document", "command", "words"), COMMANDS, ids=[f"{name}: {(c + w)[-60:]}" for name, c, w in COMMANDS]
)
def test_commands_of_the_documents_are_understood(document: str, command: str, words: str, monkeypatch) -> None:
    """Every flag exists and every value has its type; nothing is run."""
    original = CommandParser.parse_args

    def parse_and_stop(self, *args, **kwargs):
        original(self, *args, **kwargs)
        raise Parsed

    monkeypatch.setattr(CommandParser, "parse_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", ["command", *shlex.split(words, comments=True)])
    monkeypatch.chdir(ROOT)
    with pytest.raises(Parsed):
        main_of(command.removeprefix("-m "))()


def main_of(command: str):
    """The function that a module, a package or a script runs."""
    if command.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(command).stem, ROOT / command)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look for their types
        spec.loader.exec_module(module)
        return module.main
    is_package = importlib.util.find_spec(command).submodule_search_locations is not None
    return importlib.import_module(f"{command}.__main__" if is_package else command).main


def test_the_readme_and_the_recipes_are_among_the_documents() -> None:
    assert {"README.md", "recipes.md"} <= {document.name for document in documents_with_python()}
