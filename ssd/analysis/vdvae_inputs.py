"""What the analyses of VDVAE begin with: a saved network, and images as integers.

Shape letters: B images, C channels, S the image's side.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from vdvae import VDVAEModel
from vdvae.noise import draw_normals

from ..commands.errors import BrokenModel, UsageError
from ..data import open_dataset
from ..data.dataset import ImageDataset
from ..evaluation.given_images import GivenImages
from ..pipelines.staging import complete_pipeline
from ..publishing.checkpoint_files import read_checkpoint
from ..seeding import numpy_generator, torch_generator

WEIGHTS = "diffusion_pytorch_model.safetensors"


def load_vdvae(model: str, device: str | None = None) -> VDVAEModel:
    """The network in a folder, in float32, for inference.

    Parameters
    ----------
    model : str
        A folder that `VDVAEModel.save_pretrained` wrote, or one of a pipeline that has it in `vdvae/`.
    device : str, optional
        Default: the accelerator if there is one, else the CPU.

    Raises
    ------
    UsageError
        For anything else, for damaged files, or a device that cannot be used.
    """
    root = Path(model)
    whole = complete_pipeline(root) if root.is_dir() else root
    folder = next((one for one in (whole / "vdvae", whole) if (one / "config.json").is_file()), None)
    if folder is None:
        raise UsageError(
            f"--model {model} is not a VDVAE: give a folder with config.json and {WEIGHTS}, or with both in vdvae/."
        )
    network = _build(folder, model)
    try:
        weights, _ = read_checkpoint(folder / WEIGHTS)
    except (OSError, ValueError) as error:
        raise UsageError(f"--model {model}: its weights {WEIGHTS} cannot be read: {error}") from error
    _check_shapes(network, weights, model)
    network.load_state_dict(weights)
    if device is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = accelerator.type if accelerator is not None else "cpu"
    try:
        return network.to(device).eval().requires_grad_(False)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UsageError(f"--device {device} cannot be used: {error}") from error


def _build(folder: Path, model: str) -> VDVAEModel:
    """A new network with the settings in config.json."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"--model {model}: its config.json is not JSON: {error}") from error
    name = settings.get("_class_name") if isinstance(settings, dict) else None
    if name != "VDVAEModel":
        raise UsageError(f"--model {model} must hold a VDVAEModel, and its config.json names {name!r}.")
    try:
        return VDVAEModel(**{key: value for key, value in settings.items() if not key.startswith("_")})
    except Exception as error:  # settings of unknown origin fail in many ways
        raise UsageError(f"--model {model}: its config.json does not describe a VDVAEModel: {error}") from error


def _check_shapes(network: VDVAEModel, weights: dict[str, torch.Tensor], model: str) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if different := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
        name = different[0]
        raise UsageError(
            f"--model {model}: {len(different)} tensors do not fit its config.json, such as {name}: "
            f"{found.get(name, 'missing')} in the file, {expected.get(name, 'none')} by the configuration."
        )


def grey_levels(model: VDVAEModel) -> int:
    """How many values a pixel can have, as the encoder takes it."""
    return int(model.config.input_levels or model.config.levels)


def to_grey_levels(images: torch.Tensor, levels: int) -> torch.Tensor:
    """Images in [-1, 1] as the nearest integers 0..levels-1, int32.

    Examples
    --------
    >>> to_grey_levels(torch.tensor([-1.0, -0.9, 1.0]), 17)
    tensor([ 0,  1, 16], dtype=torch.int32)
    """
    return ((images.clamp(-1, 1) + 1) * ((levels - 1) / 2)).round().int()


@dataclass(frozen=True)
class NumberedIntegers:
    """Images as a VDVAE takes them, that can be gone through again and again.

    Attributes
    ----------
    images : torch.Tensor
        (N, C, S, S), int32.
    numbers : list of int
        Their numbers in the data set, ascending.
    """

    images: torch.Tensor
    numbers: list[int]

    def batches(self, size: int, title: str) -> Iterator[tuple[torch.Tensor, list[int]]]:
        """Images (B, C, S, S), int64, and their numbers, with a progress bar."""
        for start in tqdm(range(0, len(self.numbers), size), title, delay=2):
            yield self.images[start : start + size].long(), self.numbers[start : start + size]


@dataclass(frozen=True, kw_only=True)
class VDVAEImages(GivenImages):
    """Settings of a command that shows images to a VDVAE; those of `GivenImages`."""

    num: int = 1000

    @property
    def at_once(self) -> int:
        """Images per call of the network."""
        return self.batch_size or 100

    def integers(self, model: VDVAEModel) -> NumberedIntegers:
        """The images, at the model's size.

        Raises
        ------
        UsageError
            For a stream, which has no length, and for data of one image.
        """
        given: dict[str, Any] = {"preset": self.crop_preset, "split": self.split}
        dataset = open_dataset(
            self.data,
            model.config.sample_size,
            channels=model.config.in_channels,
            **{name: value for name, value in given.items() if value is not None},
        )
        if not isinstance(dataset, ImageDataset):
            raise UsageError(f"--data {self.data} is a stream: give data with a length, such as prepared:DIR.")
        count = min(self.num, len(dataset))
        if count < 2:
            raise UsageError(f"--data {self.data} has one image, and a spread needs two.")
        drawn = sorted(numpy_generator(self.seed, "given images").choice(len(dataset), count, replace=False).tolist())
        levels = grey_levels(model)
        images = [
            to_grey_levels(torch.as_tensor(dataset[number]["image"]), levels)
            for number in tqdm(drawn, "images", delay=2)
        ]
        return NumberedIntegers(torch.stack(images), drawn)


def noise_of_cells(model: VDVAEModel, numbers: Sequence[int], seed: int, purpose: str) -> list[torch.Tensor]:
    """Standard normals for every cell applied, (B, Z, R, R); those of an image depend on the seed and its number alone.

    Examples
    --------
    >>> model = VDVAEModel(4, 1, "4x1,4d2,2x1", "2x1,4m2", width=8, latent_channels=2, num_mixtures=2)
    >>> two, one = (noise_of_cells(model, numbers, 0, "doc") for numbers in ([3, 5], [5]))
    >>> [bool((a[1:] == b).all()) for a, b in zip(two, one)]
    [True, True]
    """
    generators = [torch_generator(seed, purpose, number) for number in numbers]
    like = next(model.parameters())
    return [draw_normals((len(numbers), *shape), generators, like) for shape in model.latent_shapes]


def check_finite(values: torch.Tensor, what: str) -> None:
    """Raise a `BrokenModel` where a network gave NaN or infinity."""
    if not bool(torch.isfinite(values).all()):
        raise BrokenModel(f"The network gives NaN or infinity: {what}.")
