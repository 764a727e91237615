"""Models by their names on the Hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import RepositoryNotFoundError

from ssd import SSDPipeline, VDVAEPipeline
from ssd.commands.errors import UsageError
from ssd.evaluation.calibrate import main as calibrate
from ssd.pipelines.hub import WANTED, is_hub_id
from ssd.pipelines.saved_files import WEIGHTS
from ssd.publishing.saving import (
    load_pipeline,
    load_unet,
    load_vdvae,
    load_vdvae_network,
    load_vdvae_pipeline,
    save_pipeline,
)
from ssd.publishing.self_contained import add_code
from ssd.sampling.image_folder import model_sha256

from .hub_cache import put_into_cache
from .hub_models import build, draw

REPOSITORY = "somebody/digits"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    """An empty cache of huggingface_hub, which is told that there is no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.fixture(params=["plain", "self-contained"])
def snapshot(request, tmp_path: Path, cache: Path) -> Path:
    """Where the files of `REPOSITORY` lie, with and without code."""
    pipeline = build("levels")
    save_pipeline(pipeline, tmp_path / "model", card="# A card")
    if request.param == "self-contained":
        add_code(tmp_path / "model", type(pipeline))
    return put_into_cache(tmp_path / "model", REPOSITORY, cache)


def test_a_pipeline_is_loaded_by_its_name_on_the_hub(snapshot: Path) -> None:
    for loaded in (SSDPipeline.from_pretrained(REPOSITORY), load_pipeline(REPOSITORY, "cpu")):
        assert type(loaded) is SSDPipeline
        assert torch.equal(draw(loaded, "levels"), draw(build("levels"), "levels"))
    assert load_unet(REPOSITORY).config.sample_size == 16
    assert model_sha256(Path(REPOSITORY)) == model_sha256(snapshot)


def test_a_vdvae_is_loaded_by_its_name_on_the_hub(tmp_path: Path, cache: Path) -> None:
    save_pipeline(build("vdvae"), tmp_path / "model")
    put_into_cache(tmp_path / "model", REPOSITORY, cache)
    expected = draw(build("vdvae"), "vdvae")
    for loaded in (VDVAEPipeline.from_pretrained(REPOSITORY), load_vdvae_pipeline(REPOSITORY, "cpu")):
        assert torch.equal(draw(loaded, "vdvae"), expected)
    for network in (load_vdvae(REPOSITORY), load_vdvae_network(REPOSITORY, "cpu")):
        assert network.config.sample_size == 8


def test_weights_that_are_not_those_of_the_digests_are_refused(snapshot: Path) -> None:
    weights = bytearray((snapshot / "unet" / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (snapshot / "unet" / WEIGHTS).write_bytes(weights)
    with pytest.raises(ValueError, match=r"not those that pipeline\.json was written with"):
        SSDPipeline.from_pretrained(REPOSITORY)
    with pytest.raises(UsageError, match=r"not those that pipeline\.json was written with"):
        load_pipeline(REPOSITORY, "cpu")


def test_code_is_not_even_downloaded(tmp_path: Path, monkeypatch) -> None:
    asked = {}

    def download(repo_id: str, **settings: object) -> str:
        asked[repo_id] = settings
        return str(tmp_path / "model")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    save_pipeline(build("levels"), tmp_path / "model")
    SSDPipeline.from_pretrained(REPOSITORY, revision="v1", token="t")
    assert asked == {REPOSITORY: {"allow_patterns": list(WANTED), "revision": "v1", "token": "t"}}
    assert not any(pattern.endswith((".py", ".bin")) for pattern in WANTED)


def test_what_cannot_be_downloaded_is_one_line(cache: Path, monkeypatch) -> None:
    with pytest.raises(UsageError, match="--model somebody/digits is no folder here, and as a model on the Hub"):
        load_pipeline(REPOSITORY)
    with pytest.raises(UsageError, match="--init_from somebody/digits is no folder here"):
        load_unet(REPOSITORY)

    def download(*_: object, **__: object) -> str:
        response = type("Response", (), {"headers": {}, "status_code": 404, "request": None})()
        raise RepositoryNotFoundError("404 Client Error.\n\nRepository Not Found", response=response)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(UsageError, match=r"cannot be downloaded: 404 Client Error\.$"):
        load_pipeline(REPOSITORY)


def test_a_path_is_never_asked_for_on_the_hub(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("runs/digits")
    (tmp_path / "runs").mkdir()
    for path in ("runs/digits", "digits", "./digits", "/digits", "a/b/c", "../digits", "user/na me", "user/"):
        assert not is_hub_id(path), path


def test_a_model_on_the_hub_is_not_written_to(cache: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        calibrate(["--model", REPOSITORY, "--data", "digits"])
    assert stop.value.code == 2
    assert "the table is written into a folder: give one" in capsys.readouterr().err


def test_an_evaluation_of_a_model_on_the_hub_needs_a_place(cache: Path, run_command) -> None:
    found = run_command("sample/eval_fid.py", "--model", REPOSITORY, "--ref", "digits", "--features", "pixels")
    found.assert_one_line_error("is on the Hub: say with --out where the report goes")
