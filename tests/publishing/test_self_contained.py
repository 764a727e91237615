"""Folders that load where our package is not installed."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import dynamic_modules_utils
from safetensors.torch import load_file

import ssd
from ssd import SSDPipeline, VDVAEPipeline
from ssd.commands.errors import UsageError
from ssd.commands.files import file_sha256
from ssd.pipelines.saved_files import DIGESTS, INDEX
from ssd.publishing.saving import load_pipeline, load_unet, load_vdvae_pipeline, save_pipeline
from ssd.publishing.self_contained import add_code, code_of
from ssd.publishing.source_modules import PACKAGES

from ..conftest import ROOT
from .hub_models import KINDS, arguments, build, draw
from .hub_server import serve


def self_contained(kind: str, folder: Path) -> DiffusionPipeline:
    """Write a pipeline of a kind with its code; returns it."""
    pipeline = build(kind)
    save_pipeline(pipeline, folder)
    add_code(folder, type(pipeline))
    return pipeline


@pytest.fixture
def modules_cache(tmp_path: Path, monkeypatch) -> Path:
    """Where diffusers copies code, in this process."""
    cache = tmp_path / "modules"
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(cache))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return cache


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_in_the_folder_gives_our_pixels(kind: str, tmp_path: Path, modules_cache: Path) -> None:
    pipeline = self_contained(kind, tmp_path / "model")
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "model", trust_remote_code=True)
    assert type(loaded) is not type(pipeline)
    assert type(loaded).__module__.startswith("diffusers_modules.local.pipeline_")
    assert torch.equal(draw(loaded, kind), draw(pipeline, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_code_needs_no_package_of_ours(kind: str, tmp_path: Path) -> None:
    self_contained(kind, tmp_path)
    files = list(tmp_path.rglob("*.py"))
    assert len(files) >= 2
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                assert node.module.split(".")[0] not in PACKAGES
            elif isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & set(PACKAGES)
    checked = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F,E9", "--no-cache", str(tmp_path)]
    result = subprocess.run(checked, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout  # no name is undefined, no import unused


@pytest.mark.parametrize("name", [name for name in ssd.__all__ if name.endswith("Pipeline")])
def test_every_pipeline_of_ours_fits_into_a_file(name: str) -> None:
    """It compares no class with one of its parts' files, and needs none of them."""
    compile(code_of(getattr(ssd, name).__module__, name, is_part=False), name, "exec")


def test_a_first_pipeline_works_on_after_a_second_was_loaded(tmp_path: Path, modules_cache: Path) -> None:
    """diffusers runs the code again in the same modules: the classes of the first run have to stay."""
    pipeline = self_contained("levels", tmp_path / "model")
    first, second = (DiffusionPipeline.from_pretrained(tmp_path / "model", trust_remote_code=True) for _ in range(2))
    assert type(first.scheduler) is type(second.scheduler)
    assert torch.equal(draw(first, "levels"), draw(pipeline, "levels"))
    assert torch.equal(draw(second, "levels"), draw(pipeline, "levels"))


def test_it_is_saved_again_with_its_code(tmp_path: Path, modules_cache: Path) -> None:
    pipeline = self_contained("levels", tmp_path / "model")
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "model", trust_remote_code=True)
    loaded.save_pretrained(tmp_path / "saved")
    code = {file.relative_to(tmp_path / "model"): file.read_text() for file in (tmp_path / "model").rglob("*.py")}
    assert code == {
        file.relative_to(tmp_path / "saved"): file.read_text() for file in (tmp_path / "saved").rglob("*.py")
    }
    again = DiffusionPipeline.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    assert torch.equal(draw(again, "levels"), draw(pipeline, "levels"))
    assert torch.equal(draw(load_pipeline(str(tmp_path / "saved"), "cpu"), "levels"), draw(pipeline, "levels"))


def test_without_trust_nothing_of_the_folder_runs(tmp_path: Path, modules_cache: Path) -> None:
    self_contained("levels", tmp_path / "model")
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("kind", KINDS)
def test_our_loaders_use_our_modules(kind: str, tmp_path: Path) -> None:
    pipeline = self_contained(kind, tmp_path)
    for file in tmp_path.rglob("*.py"):
        file.write_text("raise RuntimeError('this ran')")
    load = load_vdvae_pipeline if kind == "vdvae" else load_pipeline
    for loaded in (type(pipeline).from_pretrained(tmp_path), load(str(tmp_path), "cpu")):
        assert type(loaded) is type(pipeline)
        assert {name: type(part) for name, part in loaded.components.items()} == {
            name: type(part) for name, part in pipeline.components.items()
        }
        assert torch.equal(draw(loaded, kind), draw(pipeline, kind))
    if kind != "vdvae":
        assert type(load_unet(tmp_path)) is type(pipeline.unet)


def test_what_our_modules_loaded_is_saved_without_code(tmp_path: Path) -> None:
    self_contained("levels", tmp_path / "model")
    SSDPipeline.from_pretrained(tmp_path / "model").save_pretrained(tmp_path / "plain")
    assert not list((tmp_path / "plain").rglob("*.py"))
    assert json.loads((tmp_path / "plain" / INDEX).read_text())["unet"][0] == "flexi_unet.modeling_flexi_unet"


def test_files_of_code_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    self_contained("levels", tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps(index | {"unet": ["modeling_other_01234567", "FlexiUNet2DModel"]}))
    with pytest.raises(UsageError, match="modeling_other_01234567"):
        load_pipeline(str(tmp_path), "cpu")


def test_digests_are_those_of_the_weights(tmp_path: Path) -> None:
    self_contained("levels", tmp_path)
    assert list(json.loads((tmp_path / DIGESTS).read_text())["sha256"]) == ["unet/diffusion_pytorch_model.safetensors"]


def test_names_of_files_tell_their_content(tmp_path: Path) -> None:
    self_contained("levels", tmp_path / "a")
    self_contained("levels", tmp_path / "b")
    names = [sorted(file.name for file in (tmp_path / each).rglob("*.py")) for each in "ab"]
    assert names[0] == names[1]
    for file in (tmp_path / "a").rglob("*.py"):
        assert file.stem.endswith("_" + file_sha256(file)[:8])


def run_where_our_package_is_missing(folder: Path, models: dict[str, str], **environment: str) -> None:
    """Draw from pipelines, by kind, and check that the images are ours: loaded once, twice, and saved there."""
    (folder / "models.json").write_text(json.dumps({kind: (name, arguments(kind)) for kind, name in models.items()}))
    script = Path(__file__).with_name("where_our_package_is_missing.py")
    others = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, script, folder, str(torch.get_num_threads())],
        env=others | {"HF_HOME": str(folder / "home")} | environment,
        cwd=folder,
        check=True,
    )
    for kind in models:
        expected, found = draw(build(kind), kind), load_file(folder / f"{kind}.safetensors")
        assert set(found) == {"loaded", "second", "first, after a second", "saved"}
        for name, images in found.items():
            assert torch.equal(images, expected), f"{kind}, {name}"
        ours = VDVAEPipeline if kind == "vdvae" else SSDPipeline
        assert torch.equal(draw(ours.from_pretrained(folder / "saved" / kind), kind), expected)


@pytest.mark.slow
def test_a_process_without_our_package_gives_our_pixels(tmp_path: Path) -> None:
    for kind in KINDS:
        self_contained(kind, tmp_path / "models" / kind)
    models = {kind: str(tmp_path / "models" / kind) for kind in KINDS}
    run_where_our_package_is_missing(tmp_path, models, HF_HUB_OFFLINE="1")


@pytest.mark.slow
def test_a_process_without_our_package_loads_from_a_hub(tmp_path: Path) -> None:
    """By HTTP, through all of huggingface_hub; our own package then asks for no code."""
    self_contained("levels", tmp_path / "model")
    with serve(tmp_path / "model", "somebody/digits") as (address, asked):
        run_where_our_package_is_missing(tmp_path, {"levels": "somebody/digits"}, HF_ENDPOINT=address)
        assert sum(path.endswith(".py") for path in asked) >= 3
        asked.clear()
        ours = "from ssd import SSDPipeline; SSDPipeline.from_pretrained('somebody/digits')"
        environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "another_home")}
        subprocess.run([sys.executable, "-c", ours], env=os.environ | environment, cwd=ROOT, check=True)
        assert any(path.endswith(".safetensors") for path in asked)
        assert not any(path.endswith(".py") for path in asked)
