"""The files of a saved pipeline, checked before anything of their size is allocated.

A folder has `model_index.json` and the parts of the pipeline: of an SSDPipeline `scheduler/scheduler_config.json`,
`unet/config.json` and the network's safetensors files; of a VDVAEPipeline `vdvae/` with the same files of its network.
Only classes of the list below are built, whatever the files name, and only safetensors files are read. The network is
built without memory first, and must have the names and shapes of the tensors in the files.

Every function raises a ValueError that names the file and what is wrong with it.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import torch
from diffusers import UNet2DModel
from diffusers.models.modeling_utils import ModelMixin
from safetensors import SafetensorError, safe_open

from flexi_unet import FlexiUNet2DModel, ResizedUNet2DModel
from vdvae import VDVAEModel

from ..pipelines.saved_files import (
    AVERAGE,
    INDEX,
    by_our_modules,
    check_average,
    check_digests,
    pipeline_of,
    read_object,
    weight_files,
)
from ..schedulers.base import ProcessScheduler
from ..scheduling_blurring import BlurringScheduler
from ..scheduling_corrective_noise import CorrectiveNoiseScheduler
from ..scheduling_ssd import SSDScheduler

CLASSES: dict[str, dict[str, dict[tuple[Any, ...], type]]] = {
    "SSDPipeline": {
        "unet": {
            ("flexi_unet.modeling_flexi_unet", "FlexiUNet2DModel"): FlexiUNet2DModel,
            ("flexi_unet.modeling_resized_unet", "ResizedUNet2DModel"): ResizedUNet2DModel,
            ("diffusers", "UNet2DModel"): UNet2DModel,
        },
        "scheduler": {
            ("ssd.scheduling_ssd", "SSDScheduler"): SSDScheduler,
            ("ssd.scheduling_blurring", "BlurringScheduler"): BlurringScheduler,
            ("ssd.scheduling_corrective_noise", "CorrectiveNoiseScheduler"): CorrectiveNoiseScheduler,
        },
    },
    "VDVAEPipeline": {"vdvae": {("vdvae.modeling_vdvae", "VDVAEModel"): VDVAEModel}},
}
"""What a pipeline is made of: pipeline -> part -> (module, class) as model_index.json names it -> class."""

SAME_PARTS = {
    "SSDPipeline": ("SSDPipeline", "SSDSuperResolutionPipeline", "SSDImageToImagePipeline", "SSDInpaintPipeline"),
    "VDVAEPipeline": ("VDVAEPipeline",),
}
"""Pipelines that are made of the same parts, so that a folder of any of them is one of the first."""

MOST_APPLIED = 10_000
_REPEATED = re.compile(r"x(\d+)(?:r(\d+))?")
DTYPES = ("F64", "F32", "F16", "BF16")
ADDED_LATER: dict[type, frozenset[str]] = {
    FlexiUNet2DModel: frozenset({"id2label", "patch_size", "downsample_type", "no_class_label"}),
    ResizedUNet2DModel: frozenset(inspect.signature(ResizedUNet2DModel).parameters),  # diffusers may add some
    SSDScheduler: frozenset(
        {
            "resolutions",
            "variance_type",
            "covariance",
            "solver_order",
            "timestep_spacing",
            "residual_covariance",
            "calibration",
            "switches",
            "switch_jitter",
            "level_gain",
            "data_moments",
            "handover_snr",
        }
    ),
}
"""Settings that older versions did not write; their default stands for what these versions did."""


def read_classes(folder: Path, pipeline: str = "SSDPipeline") -> dict[str, type]:
    """The classes that model_index.json names, of this pipeline or of one of the same parts: part -> class."""
    index = by_our_modules(read_object(folder, INDEX))
    if index.get("_class_name") not in SAME_PARTS[pipeline]:
        raise ValueError(f"{INDEX} names the class {index.get('_class_name')!r} instead of {pipeline!r}.")
    parts = CLASSES[pipeline]
    unknown = [name for name in index if not name.startswith("_") and name not in parts]
    if unknown:
        article = "an" if pipeline.startswith("S") else "a"
        raise ValueError(f"{INDEX} names parts that {article} {pipeline} does not have: {', '.join(unknown)}.")
    return {part: _known_class(part, known, index.get(part)) for part, known in parts.items()}


def _known_class(part: str, known: Mapping[tuple[Any, ...], type], entry: Any) -> type:
    key = tuple(entry) if isinstance(entry, list) and all(isinstance(name, str) for name in entry) else None
    if key is None or key not in known:
        allowed = " or ".join(f"{name} of {module}" for module, name in known)
        raise ValueError(f"{INDEX} says that {part} is {entry!r}; it must be {allowed}.")
    return known[key]


def build_scheduler(folder: Path, scheduler: type[ProcessScheduler]) -> ProcessScheduler:
    """The process that scheduler/scheduler_config.json describes."""
    name = "scheduler/scheduler_config.json"
    settings = read_settings(folder, name, scheduler)
    try:
        return scheduler.from_config(settings)
    except Exception as error:  # settings of unknown origin fail in many ways: ValueError, TypeError, OverflowError, ..
        raise ValueError(f"{name} does not describe a process: {error}") from error


def check_network(folder: Path, network: type[ModelMixin], part: str = "unet") -> None:
    """Compare the config.json of a part with the tensors in its safetensors files, and these with their digests."""
    settings = read_settings(folder, f"{part}/config.json", network)
    _check_shapes(network, settings, read_shapes(folder, weight_files(folder, part)), part)
    check_digests(folder)


def check_checkpoint(checkpoint: Path, network: type[ModelMixin], part: str) -> dict[str, Any]:
    """The settings of a run's network, compared with the averaged weights of a checkpoint, and these with their digest.

    `part` is what the network is called in the run's pipeline.
    """
    if not (checkpoint / f"{part}.safetensors").is_file():
        raise ValueError(f"it is a checkpoint of another kind of model: it has no {part}.safetensors.")
    settings = read_settings(pipeline_of(checkpoint), f"{part}/config.json", network)
    check_average(checkpoint)
    _check_shapes(network, settings, read_shapes(checkpoint, [AVERAGE]), part)
    return settings


def read_settings(folder: Path, name: str, described: type) -> dict[str, Any]:
    """The settings of a class; those of our own classes must be complete, known and of the right types."""
    settings = read_object(folder, name)
    if settings.get("_class_name") != described.__name__:
        raise ValueError(f"{name} names the class {settings.get('_class_name')!r} instead of '{described.__name__}'.")
    if described is UNet2DModel:
        return settings
    parameters = inspect.signature(described, eval_str=True).parameters
    unknown = [key for key in settings if key not in parameters and not key.startswith("_")]
    if unknown:
        raise ValueError(f"{name} has settings that this version does not know: {', '.join(unknown)}.")
    added_later = ADDED_LATER.get(described, frozenset())
    missing = [key for key in parameters if key not in settings and key not in added_later]
    if missing:
        raise ValueError(f"{name} lacks settings: {', '.join(missing)}.")
    for key, parameter in parameters.items():
        if key in settings and not _fits(settings[key], parameter.annotation):
            raise ValueError(f"{name}: {key} cannot be {settings[key]!r}; the default is {parameter.default!r}.")
    return settings


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value of a JSON file is of an annotated type; a list stands for a tuple, an integer for a float."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin is dict:
        return isinstance(value, dict)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        if not isinstance(value, (list, tuple)):
            return False
        of_any_length = origin is not tuple or Ellipsis in parts
        kinds = parts[:1] * len(value) if of_any_length else parts
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind


def read_shapes(folder: Path, files: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of all tensors in files of weights; only their headers are read."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name in files:
        try:
            with safe_open(folder / name, framework="pt") as file:
                slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
                wrong = [key for key, part in slices.items() if part.get_dtype() not in DTYPES]
                if wrong:
                    raise ValueError(
                        f"{name} holds {wrong[0]} as {slices[wrong[0]].get_dtype()}; weights are {', '.join(DTYPES)}."
                    )
                shapes |= {key: tuple(part.get_shape()) for key, part in slices.items()}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{name} is truncated or damaged ({error}).") from error
    return shapes


def _check_shapes(
    network: type[ModelMixin], settings: Mapping[str, Any], found: Mapping[str, tuple[int, ...]], part: str
) -> None:
    """Raise a ValueError unless the tensors that were found are those of a network with these settings."""
    _compare(_shapes_of(network, settings, len(found), part), found, part)


def _shapes_of(
    network: type[ModelMixin], settings: Mapping[str, Any], num_tensors: int, part: str
) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors that the settings ask for, without memory for them."""
    try:
        num_blocks = _num_blocks(settings)
        if num_blocks > num_tensors:  # building so many takes very long, even without memory
            raise ValueError(f"it asks for {num_blocks} residual blocks, but the weights are {num_tensors} tensors.")
        with torch.device("meta"):
            state = network.from_config(dict(settings)).state_dict()
    except Exception as error:  # settings of unknown origin fail in many ways: ValueError, TypeError, RuntimeError, ..
        raise ValueError(f"{part}/config.json does not describe a network: {error}") from error
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _num_blocks(settings: Mapping[str, Any]) -> int:
    """How many blocks a network has, from its settings alone."""
    if "enc_blocks" in settings:  # of VDVAE; applying a block very often takes as long as building many
        texts = [str(settings[name]) for name in ("enc_blocks", "dec_blocks")]
        found = [_REPEATED.findall(text) for text in texts]
        if sum(int(number) * int(times or 1) for each in found for number, times in each) > MOST_APPLIED:
            raise ValueError(f"it applies more than {MOST_APPLIED} blocks.")
        single = sum(text.count(",") + 1 for text in texts) - sum(map(len, found))
        return single + sum(int(number) for each in found for number, _ in each)
    layers = settings.get("layers_per_block", 1)
    return sum(layers) if isinstance(layers, (list, tuple)) else layers * len(settings["block_out_channels"])


def _compare(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], part: str) -> None:
    """Raise a ValueError that names the first tensor of the files that is not as the configuration has it."""
    missing, surplus = expected.keys() - found.keys(), found.keys() - expected.keys()
    for kind, names in (("lack", missing), ("have a surplus of", surplus)):
        if names:
            raise ValueError(
                f"The weights do not fit {part}/config.json: they {kind} {len(names)} tensors, such as {min(names)}."
            )
    for name, shape in expected.items():
        if found[name] != shape:
            raise ValueError(
                f"The weights do not fit {part}/config.json: {name} is {found[name]} in the file and {shape} by the "
                "configuration."
            )
