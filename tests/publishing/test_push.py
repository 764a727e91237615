"""What is pushed to the Hub, with a Hub that writes down what it gets."""

from __future__ import annotations

import fnmatch
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import LocalTokenNotFoundError

import ssd
from ssd.commands.errors import UsageError
from ssd.publishing.hub_card import hub_card, without_paths
from ssd.publishing.model_card import model_card
from ssd.publishing.push import main
from ssd.publishing.saving import load_pipeline, save_pipeline
from ssd.sampling.image_folder import model_sha256

from .hub_models import build, draw

FILES = {
    *("README.md", "model_index.json", "pipeline.json", "samples.png", "coarse_to_fine.gif"),
    *("pipeline_ssd_#.py", "scheduler/scheduler_config.json", "scheduler/scheduling_ssd_#.py"),
    *("unet/config.json", "unet/diffusion_pytorch_model.safetensors", "unet/modeling_flexi_unet_#.py"),
}
"""What a repository holds; # stands for the digits of a hash."""


@dataclass
class FakeHub:
    """Keeps what is uploaded."""

    folder: Path
    created: dict[str, Any] = field(default_factory=dict)
    uploads: list[dict[str, Any]] = field(default_factory=list)
    logged_in: bool = True

    def whoami(self, _: HfApi, token: str | None = None) -> dict[str, str]:
        if not self.logged_in:
            raise LocalTokenNotFoundError("Token is required.\nIt is not there.")
        return {"name": "user"}

    def create_repo(self, _: HfApi, repo_id: str, **settings: Any) -> None:
        self.created[repo_id] = settings

    def upload_folder(self, _: HfApi, *, repo_id: str, folder_path: Path, **settings: Any) -> str:
        shutil.copytree(folder_path, self.folder / repo_id)
        self.uploads.append(settings)
        return f"https://huggingface.co/{repo_id}/commit/0"

    def files(self, repo_id: str) -> set[str]:
        """Names of the uploaded files, with # for the digits of a hash."""
        found = [path for path in (self.folder / repo_id).rglob("*") if path.is_file()]
        names = {path: path.relative_to(self.folder / repo_id).as_posix() for path in found}
        return {f"{name[:-11]}#.py" if path.suffix == ".py" else name for path, name in names.items()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch) -> FakeHub:
    fake = FakeHub(tmp_path / "hub")
    for name in ("whoami", "create_repo", "upload_folder"):
        method = getattr(fake, name)
        monkeypatch.setattr(HfApi, name, lambda api, *args, _method=method, **kwargs: _method(api, *args, **kwargs))
    return fake


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run with all that is not for the Hub, whose card has a path of this machine."""
    run, pipeline = tmp_path / "run", build("levels")
    origin = {"Data": f"folder:{tmp_path}/my pictures".replace("my ", "my_"), "Steps": "3"}
    save_pipeline(pipeline, run, model_card(pipeline, str(run), origin, "Mine."))
    for name in ("checkpoints/step_3/state.safetensors", "tensorboard/events", "log.csv", "train_config.yaml"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(str(tmp_path))
    return run


def report_of(run: Path, **changes: Any) -> dict[str, Any]:
    return {
        "metrics": {"frechet_distance_pixels": 0.25, "num_generated": 512, "digit_shares": [1, 2]},
        "protocol": {"reference": {"spec": f"folder:{run}/ref"}},
        "samples": {"model": model_sha256(run), "steps": 40, "sampler": "second_order"},
        "commands": [f"python sample/eval_fid.py --model {run} --ref digits"],
        "warnings": [],
        **changes,
    }


def test_what_is_uploaded(run_folder: Path, hub: FakeHub, tmp_path: Path, capsys) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report_of(run_folder)))
    told = ["--metrics", str(tmp_path / "report.json"), "--license", "cc-by-4.0", "--private", "--num", "4"]
    main(["--model", str(run_folder), "--hub_model_id", "user/digits", *told, "--device", "cpu"])
    assert hub.created == {"user/digits": {"private": True, "token": None, "exist_ok": True}}
    assert hub.files("user/digits") == FILES
    assert "https://huggingface.co/user/digits/commit/0" in capsys.readouterr().out
    uploaded = hub.folder / "user/digits"
    texts = {path: path.read_text() for path in uploaded.rglob("*") if path.suffix in (".md", ".json", ".py")}
    assert not [path for path, text in texts.items() if str(tmp_path) in text]
    loaded = load_pipeline(str(uploaded), "cpu")
    assert torch.equal(draw(loaded, "levels"), draw(build("levels"), "levels"))
    (pattern,) = hub.uploads[0]["delete_patterns"]  # code of an earlier push, which this one replaces
    names = {path.relative_to(uploaded).as_posix() for path in uploaded.rglob("*") if path.is_file()}
    assert set(fnmatch.filter([*names, "mine.py"], pattern)) == {name for name in names if name.endswith(".py")}
    card = ModelCard((uploaded / "README.md").read_text())
    assert card.data.library_name == "diffusers"
    assert card.data.license == "cc-by-4.0"
    assert {"diffusers", "scale-space-diffusion"} <= set(card.data.tags)
    for part in (
        'DiffusionPipeline.from_pretrained("user/digits", trust_remote_code=True)',
        'SSDPipeline.from_pretrained("user/digits")',
        "pip install torch diffusers",
        "| frechet_distance_pixels | 0.25 |",
        "| num_generated | 512 |",
        "- Steps: 40",
        "- Reference: folder:ref",
        "- Data: folder:my_pictures",
        "![samples](samples.png)",
        "![from coarse to fine](coarse_to_fine.gif)",
        "## Licence\n\ncc-by-4.0",
    ):
        assert part in card.content, part


def test_a_vdvae_is_uploaded_too(tmp_path: Path, hub: FakeHub) -> None:
    save_pipeline(build("vdvae"), tmp_path / "run")
    main(["--model", str(tmp_path / "run"), "--hub_model_id", "user/vdvae", "--num", "2", "--device", "cpu"])
    assert {"pipeline_vdvae_#.py", "vdvae/modeling_vdvae_#.py", "samples.png"} <= hub.files("user/vdvae")
    assert 'VDVAEPipeline.from_pretrained("user/vdvae")' in (hub.folder / "user/vdvae" / "README.md").read_text()


def test_a_dry_run_and_a_folder_upload_nothing(run_folder: Path, hub: FakeHub, tmp_path: Path, capsys) -> None:
    hub.logged_in = False  # nobody is asked
    common = ["--model", str(run_folder), "--hub_model_id", "user/digits", "--num", "0", "--device", "cpu"]
    main([*common, "--dry_run"])
    printed = capsys.readouterr().out
    weights = (run_folder / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert f"{weights:>12,} bytes  unet/diffusion_pytorch_model.safetensors" in printed
    assert printed.endswith("would be uploaded to user/digits; nothing was.\n")
    main([*common, "--out", str(tmp_path / "out")])
    hub.folder.mkdir()
    shutil.copytree(tmp_path / "out", hub.folder / "user/digits")
    assert hub.files("user/digits") == FILES - {"samples.png", "coarse_to_fine.gif"}
    assert not hub.created


def test_diffusers_own_ways_push_our_card_and_code(run_folder: Path, hub: FakeHub, tmp_path: Path) -> None:
    pipeline = ssd.SSDPipeline.from_pretrained(run_folder)
    assert pipeline.push_to_hub("user/a", num=0, private=False).endswith("user/a/commit/0")
    pipeline.save_pretrained(tmp_path / "b", push_to_hub=True, repo_id="user/b")
    build("levels").push_to_hub("user/c", num=0)  # never saved: it has no card
    assert hub.created["user/a"]["private"] is False
    assert hub.files("user/b") == FILES
    for name in "ab":
        card = (hub.folder / "user" / name / "README.md").read_text()
        assert "- Data: folder:my_pictures" in card
        assert f'from_pretrained("user/{name}"' in card
    assert "their origin was not written down" in (hub.folder / "user" / "c" / "README.md").read_text()


def test_mistakes_are_one_line(run_folder: Path, hub: FakeHub, tmp_path: Path, monkeypatch, capsys) -> None:
    report = tmp_path / "report.json"
    other = report_of(run_folder, samples={"model": "of another"})

    def error(*arguments: str, name: str = "user/digits") -> str:
        with pytest.raises(SystemExit) as stop:
            main(["--model", str(run_folder), "--hub_model_id", name, *arguments])
        found = capsys.readouterr()
        assert (stop.value.code, found.out, found.err.count("\n")) == (2, "", 1)
        return found.err

    for name in ("digits", "a/b/c", "user/na me", "user/.."):
        assert f"--hub_model_id {name} is not a name on the Hub, such as user/digits" in error(name=name)
    assert "--metrics nowhere.json cannot be used: " in error("--metrics", "nowhere.json")
    for content, part in (("{", "cannot be used"), ("{}", "not the report.json"), (json.dumps(other), "another model")):
        report.write_text(content)
        assert part in error("--metrics", str(report))
    assert "--num must be at least 0, got -1" in error("--num", "-1")
    assert "is not empty" in error("--out", str(run_folder))
    assert "is not a pipeline" in error("--model", str(tmp_path / "nothing"))
    hub.logged_in = False
    assert "You are not logged in to the Hub, or it cannot be reached; `hf auth login` logs in: Token is req" in error()
    with pytest.raises(UsageError, match="You are not logged in"):
        build("levels").push_to_hub("user/digits")
    hub.logged_in = True

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("403 Forbidden")

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    assert "user/digits cannot be uploaded: 403 Forbidden" in error("--num", "0", "--device", "cpu")
    assert not hub.uploads


def test_a_card_that_its_owner_edited_is_kept(pipeline) -> None:
    card = model_card(pipeline, "runs/a", {"Data": "digits"}, "The weights are yours; mind the data.")
    mine = card.replace("## Model", "## My notes\n\nThese are mine.\n\n## Model")
    text = hub_card(mine, "user/a", "SSDPipeline")
    assert "## My notes\n\nThese are mine.\n\n## Model" in text
    assert "No licence is stated here; mind the data." in text
    assert 'from_pretrained("runs/a")' not in text
    assert "## Samples" not in text
    assert hub_card(text, "user/a", "SSDPipeline") == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("folder:/home/me/cats, all", "folder:cats, all"),
        ("`~/runs/a` and C:\\data\\b.", "`a` and b."),
        ("https://arxiv.org/abs/2603.08709 and/or 1/2, docs/a.md, ./b/c", None),
        ("</details> 16 x 16 / 8 x 8", None),
    ],
)
def test_paths_of_a_machine_are_shortened(text: str, expected: str | None) -> None:
    assert without_paths(text) == (text if expected is None else expected)
