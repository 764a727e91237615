"""Push a trained model to the Hub: weights, card, sample images, and code that loads it without this package.

    python -m ssd.publishing.push --model runs/digits --hub_model_id user/digits --dry_run
    python -m ssd.publishing.push --model runs/digits --hub_model_id user/digits --metrics runs/digits/eval/report.json
    python -m ssd.publishing.push --model runs/digits --hub_model_id user/digits --out digits_for_the_hub

Nothing else of the run's folder is uploaded: no checkpoints, logs or settings. Log in first, with `hf auth login`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.utils import validate_repo_id

from ..commands.errors import UsageError, exit_on_usage_error
from ..commands.files import whole_folder
from ..commands.output_paths import check_output_folder
from ..commands.parser import CommandParser
from ..pipeline_ssd import SSDPipeline
from ..pipeline_vdvae import VDVAEPipeline
from ..pipelines.hub import first_line
from ..pipelines.saved_files import INDEX, by_our_modules, read_object
from ..sampling.image_folder import model_sha256
from .hub_card import check_report
from .hub_folder import Presentation, write_hub_folder
from .saving import folder_of, load_pipeline, load_vdvae_pipeline
from .self_contained import DIGITS

GENERATED = ("*_" + "[0-9a-f]" * DIGITS + ".py",)
"""Files of code of an earlier push, which a new one removes from the repository."""


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """Settings of the command.

    Parameters
    ----------
    model : str
        The folder of a pipeline, such as a training run's --out.
    hub_model_id : str
        The name of the repository, user/name; it is made if there is none.
    private : bool
        Make a new repository private.
    metrics : str, optional
        The report.json of an evaluation, whose numbers the card shows.
    license : str, optional
        The licence of the weights as the Hub names it, such as cc-by-4.0. By default the card says what the run's says.
    num : int
        The number of sample images that are drawn for the card; 0 for none.
    seed : int
        Their seed.
    device : str, optional
        Where they are drawn. The default is the accelerator if there is one, else the CPU.
    out : str, optional
        Write what would be uploaded into this new folder instead.
    dry_run : bool
        List what would be uploaded, with sizes, and upload nothing.
    """

    model: str
    hub_model_id: str
    private: bool = False
    metrics: str | None = None
    license: str | None = None
    num: int = 16
    seed: int = 0
    device: str | None = None
    out: str | None = None
    dry_run: bool = False

    def check(self) -> dict[str, Any] | None:
        """Raise a `UsageError` for what cannot be done; returns the report."""
        check_name(self.hub_model_id, "--hub_model_id")
        for name, value in (("num", self.num), ("seed", self.seed)):
            if value < 0:
                raise UsageError(f"--{name} must be at least 0, got {value}.")
        if self.out is not None:
            check_output_folder(self.out, "--out")
            if Path(self.out).exists() and any(Path(self.out).iterdir()):
                raise UsageError(f"--out {self.out} is not empty: give a new or an empty folder.")
        return None if self.metrics is None else read_report(Path(self.metrics))


def check_name(repo_id: str, flag: str = "repo_id") -> None:
    """Raise a `UsageError` unless a repository can have this name."""
    try:
        validate_repo_id(repo_id)
        if repo_id.count("/") != 1:
            raise ValueError("it has no user")
    except ValueError as error:
        raise UsageError(f"{flag} {repo_id} is not a name on the Hub, such as user/digits ({error}).") from error


def read_report(path: Path) -> dict[str, Any]:
    """The report of an evaluation; a `UsageError` for anything else."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        check_report(report)
    except (OSError, ValueError) as error:
        raise UsageError(f"--metrics {path} cannot be used: {error}") from error
    return report


def check_measured(report: Mapping[str, Any] | None, source: Path, config: PushConfig) -> None:
    """Raise a `UsageError` where a report says that it measured other files than those of the model."""
    measured = None if report is None else (report.get("samples") or {}).get("model")
    if measured is not None and (source / INDEX).is_file() and measured != model_sha256(source):
        raise UsageError(
            f"--metrics {config.metrics} measured another model than {config.model}, or this one before it was "
            "changed: evaluate it with sample/eval_fid.py."
        )


def push_pipeline(
    pipeline: SSDPipeline | VDVAEPipeline,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    num: int = 16,
    seed: int = 0,
) -> str:
    """Upload a pipeline with its card, sample images and code; what `pipeline.push_to_hub` does.

    Parameters
    ----------
    pipeline : SSDPipeline or VDVAEPipeline
        Where it was loaded from a folder that has a card, that card is used. Any other pipeline of the same parts is
        pushed as an `SSDPipeline`, from whose repository it can be loaded again.
    repo_id : str
        user/name; the repository is made if there is none.
    private, token, commit_message, create_pr
        As in `DiffusionPipeline.push_to_hub`.
    num, seed : int
        The number of sample images that are drawn, and their seed.

    Returns
    -------
    str
        The address of the commit.

    Raises
    ------
    UsageError
        For a name that no repository can have, without a login, or when the Hub refuses.
    """
    check_name(repo_id)
    _check_login(token)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shown = Presentation(num=num, seed=seed)
        source = pipeline.config.get("_name_or_path")
        if not isinstance(pipeline, (SSDPipeline, VDVAEPipeline)):
            pipeline = SSDPipeline(**pipeline.components)
        write_hub_folder(folder, pipeline, repo_id, shown, _card_in(Path(source)) if source else None)
        return _upload(folder, repo_id, private, token, commit_message, create_pr)


def _check_login(token: str | None = None) -> None:
    with _refusals("You are not logged in to the Hub, or it cannot be reached; `hf auth login` logs in"):
        HfApi().whoami(token=token)


def _upload(
    folder: Path,
    repo_id: str,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
) -> str:
    """Make the repository and upload all of the folder in one commit."""
    api = HfApi()
    with _refusals(f"{repo_id} cannot be uploaded"):
        api.create_repo(repo_id, private=private, token=token, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message or "Upload a pipeline of scale-space-diffusion",
            delete_patterns=list(GENERATED),
            token=token,
            create_pr=create_pr,
        )
    return str(commit)


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Turn an exception of huggingface_hub into one line."""
    try:
        yield
    except Exception as error:  # the library lets errors of its own, of the HTTP client and of the system through
        raise UsageError(f"{what}: {first_line(error)}") from error


def _card_in(folder: Path) -> str | None:
    """The card of a folder, if it has one."""
    card = folder / "README.md"
    return card.read_text(encoding="utf-8") if (folder / INDEX).is_file() and card.is_file() else None


def listing(folder: Path) -> list[str]:
    """The files of a folder with their sizes, a line each."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [f"{file.stat().st_size:>12,} bytes  {file.relative_to(folder).as_posix()}" for file in files]


def main(arguments: list[str] | None = None) -> None:
    """The command; `arguments` default to those of the process."""
    parser = CommandParser(prog="python -m ssd.publishing.push", description=__doc__)
    parser.add_class_arguments(PushConfig)
    with exit_on_usage_error():
        config = PushConfig(**parser.parse_args(arguments).as_dict())
        report = config.check()
        source = folder_of(config.model)
        check_measured(report, source, config)
        pipeline = _load(source, config)
        offline = config.dry_run or config.out is not None
        if not offline:
            _check_login()
        shown = Presentation(num=config.num, seed=config.seed, report=report, licence=config.license)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_hub_folder(folder, pipeline, config.hub_model_id, shown, _card_in(source))
            lines = listing(folder)
            if config.dry_run:
                lines.append(f"would be uploaded to {config.hub_model_id}; nothing was.")
            elif config.out is not None:
                with whole_folder(Path(config.out)) as out:
                    shutil.copytree(folder, out, dirs_exist_ok=True)
            else:
                lines.append(_upload(folder, config.hub_model_id, config.private or None))
    print("\n".join(lines))  # noqa: T201


def _load(source: Path, config: PushConfig) -> SSDPipeline | VDVAEPipeline:
    """The pipeline of whichever kind lies in a folder."""
    try:
        name = by_our_modules(read_object(source, INDEX)).get("_class_name")
    except ValueError:
        name = None  # `load_pipeline` says what is wrong
    load = load_vdvae_pipeline if name == "VDVAEPipeline" else load_pipeline
    return load(str(source), config.device)


if __name__ == "__main__":
    main()
