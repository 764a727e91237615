"""The files of a saved pipeline by name, the digests of those that hold weights, and what a run's checkpoint has.

Every function raises a ValueError that names the file and what is wrong with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..commands.files import file_sha256
from .staging import complete_pipeline

NETWORK_PARTS = ("unet", "vdvae")
"""The parts that have weights."""

INDEX = "model_index.json"
DIGESTS = "pipeline.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
STATE = "state.json"
AVERAGE = "ema_0.safetensors"
"""In a checkpoint of a run: what it says of its files, and the weights that the run's pipeline would have."""

MODULES = (
    "flexi_unet.modeling_flexi_unet",
    "flexi_unet.modeling_resized_unet",
    "ssd.scheduling_blurring",
    "ssd.scheduling_corrective_noise",
    "ssd.scheduling_ssd",
    "vdvae.modeling_vdvae",
)
"""Where the classes of the parts of pipelines are."""

_CODE_FILE = re.compile(r"(\w+)_[0-9a-f]{8}")
"""The name of a file of code in a self-contained folder: that of our module, and digits of its SHA-256."""


def read_object(folder: Path, name: str) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is damaged: it is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name} is damaged: it holds a {type(content).__name__} instead of settings by name.")
    return content


def by_our_modules(index: Mapping[str, Any]) -> dict[str, Any]:
    """The content of model_index.json with our modules in the place of files of code that lie beside it.

    Examples
    --------
    >>> by_our_modules({"_class_name": ["pipeline_ssd_01234567", "SSDPipeline"], "unet": ["diffusers", "UNet2DModel"]})
    {'_class_name': 'SSDPipeline', 'unet': ['diffusers', 'UNet2DModel']}
    """
    known = {module.rpartition(".")[2]: module for module in MODULES}
    plain = dict(index)
    for part, entry in index.items():
        named = isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[0], str)
        found = _CODE_FILE.fullmatch(entry[0]) if named else None
        if found and part == "_class_name":
            plain[part] = entry[1]
        elif found and found[1] in known:
            plain[part] = [known[found[1]], entry[1]]
    return plain


def weight_files(folder: Path, part: str = "unet") -> list[str]:
    """Names of a network's safetensors files: one, or those that an index lists."""
    if (folder / part / WEIGHTS).is_file():
        return [f"{part}/{WEIGHTS}"]
    if (folder / part / f"{WEIGHTS}.index.json").is_file():
        files = read_object(folder, f"{part}/{WEIGHTS}.index.json").get("weight_map")
        if not isinstance(files, dict) or not all(isinstance(f, str) and Path(f).name == f for f in files.values()):
            raise ValueError(f"{part}/{WEIGHTS}.index.json is damaged: its weight_map does not name files.")
        return [f"{part}/{file}" for file in sorted(set(files.values()))]
    pickles = sorted(path.name for path in (folder / part).glob("*.bin"))
    hint = f" {pickles[0]} is a pickle, which could run code and is never loaded." if pickles else ""
    raise ValueError(f"{part}/{WEIGHTS} is missing.{hint}")


def digests_of(folder: Path) -> dict[str, str]:
    """What pipeline.json holds: name of a file of weights -> its SHA-256."""
    parts = [part for part in NETWORK_PARTS if (folder / part).is_dir()]
    return {name: file_sha256(folder / name) for part in parts for name in weight_files(folder, part)}


def check_digests(folder: Path) -> None:
    """Compare the weights with the digests that were written with them; older pipelines have none."""
    if not (folder / DIGESTS).is_file():
        return
    expected = read_object(folder, DIGESTS).get("sha256")
    if expected != digests_of(folder):
        raise ValueError(
            f"The files of weights are not those that {DIGESTS} was written with: they were damaged, or replaced. If "
            f"you replaced them, delete {DIGESTS}."
        )


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint of a run, RUN/checkpoints/step_00001000."""
    return (folder / STATE).is_file() and folder.resolve().parent.name == "checkpoints"


def pipeline_of(folder: Path) -> Path:
    """Where the configurations of a model are: its own folder, or the pipeline of the run whose checkpoint it is."""
    return complete_pipeline(folder.resolve().parent.parent) if is_checkpoint(folder) else folder


def check_average(checkpoint: Path) -> None:
    """Compare the averaged weights of a checkpoint with their digest."""
    files = read_object(checkpoint, STATE).get("files")
    entry = files.get(AVERAGE) if isinstance(files, dict) else None
    if not (checkpoint / AVERAGE).is_file():
        raise ValueError(f"{AVERAGE} is missing.")
    if isinstance(entry, dict) and entry.get("sha256") != file_sha256(checkpoint / AVERAGE):  # version 0.1 had sizes
        raise ValueError(f"{AVERAGE} is damaged: its content is not what was written.")


def decisive_files(folder: Path) -> dict[str, Path]:
    """The files that decide over what a model draws, by names that say what they are."""
    of_pipeline = pipeline_of(folder)
    parts = [part for part in ("unet", "scheduler", "vdvae") if (of_pipeline / part).is_dir()]
    files = {f"{part}/{file.name}": file for part in parts for file in sorted((of_pipeline / part).iterdir())}
    if not parts:  # an old folder of diffusers, with all files together
        files = {file.name: file for kind in ("*.json", "*.safetensors") for file in sorted(folder.glob(kind))}
    elif is_checkpoint(folder):
        files = {name: file for name, file in files.items() if file.suffix == ".json"} | {AVERAGE: folder / AVERAGE}
    return {name: file for name, file in files.items() if file.is_file()}
