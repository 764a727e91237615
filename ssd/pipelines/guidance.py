"""The network as the pipelines call it: with class labels, with guidance, without gradients.

Guidance extrapolates from a weak prediction beyond the network's own one,

    weak + scale (own - weak),

where the weak one is the network's without a class (classifier-free guidance, arXiv:2207.12598), or that of a guide, a
worse network for the same task, such as an earlier checkpoint, with the same class (autoguidance, arXiv:2406.02507).
Whatever is predicted stands for a clean image by the same affine map, so that clean images are extrapolated alike.

The rule for classes, in this file alone: a network's configuration states as `no_class_label` which of its n class
embeddings stands for "no class", or by -1 that none does. Where it states nothing, as configurations before version 0.2
and those of diffusers' own networks, it is the last one, n - 1. It is what guidance calls unconditional, what training
puts where it drops a label, and what nobody draws images of by default. A pipeline accepts it as a label, which samples
without a class.

Shape letters: B batch, C channels; h w the size of x_t, H W the size of the prediction.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin

from ..operators.sizes import Size

Labels = int | str | Sequence[int | str] | torch.Tensor | None
"""Classes by number or by name: one for each image, or a single one for all."""


def number_of_classes(unet: ModelMixin) -> int:
    """How many classes images can be drawn of: 0 for an unconditional network, else all embeddings but "no class".

    A network with a single embedding has one class.

    Examples
    --------
    >>> from flexi_unet import FlexiUNet2DModel
    >>> unet = FlexiUNet2DModel(sample_size=8, block_out_channels=(32, 32), num_class_embeds=11)
    >>> number_of_classes(unet), no_class_label(unet)
    (10, 10)
    """
    embeddings = unet.config.num_class_embeds
    return max(1, embeddings - has_no_class(unet)) if embeddings else 0


def has_no_class(unet: ModelMixin) -> bool:
    """Whether a class embedding stands for "no class"."""
    stated = getattr(unet.config, "no_class_label", None)
    return bool(unet.config.num_class_embeds) and (stated is None or stated >= 0)


def no_class_label(unet: ModelMixin) -> int:
    """The label that stands for "no class". A ValueError for a network that has none."""
    if not unet.config.num_class_embeds:
        raise ValueError("An unconditional network has no class labels, and no label for 'no class'.")
    if not has_no_class(unet):
        raise ValueError(
            "This network has not been trained without a class: leave guidance_scale at 1, or guide it by another "
            "network."
        )
    stated = getattr(unet.config, "no_class_label", None)
    return unet.config.num_class_embeds - 1 if stated is None else stated


def class_number(unet: ModelMixin, name: str) -> int:
    """The number of the class with this name, which the network's configuration holds as `id2label`.

    Raises
    ------
    ValueError
        For a name that there is not: one sentence, with the nearest names.

    Examples
    --------
    >>> from flexi_unet import FlexiUNet2DModel
    >>> unet = FlexiUNet2DModel(8, block_out_channels=(32, 32), num_class_embeds=3, id2label={0: "cat", 1: "dog"})
    >>> class_number(unet, "dog")
    1
    """
    names = getattr(unet, "class_names", None)
    if not names:
        raise ValueError(f"This model has no names of classes, got {name!r}: give their numbers.")
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:3]
        nearest = " or ".join(repr(other) for other in near)
        raise ValueError(f"This model has no class {name!r}; of its {len(names)} classes the nearest are {nearest}.")
    return names.index(name)


def check_labels(unet: ModelMixin, labels: Labels, batch_size: int, scale: float = 1.0) -> torch.Tensor | None:
    """The labels as a tensor (B,), int64; None for an unconditional network. `scale` is of classifier-free guidance.

    Raises
    ------
    ValueError
        For labels where there must be none, no labels where there must be some, labels that are not B integers in
        0..n-1 or names of classes, or a guidance scale other than 1 without classes or without "no class".
    """
    embeddings = unet.config.num_class_embeds
    if not embeddings:
        if labels is not None:
            raise ValueError("This model is unconditional: it takes no class_labels.")
        if scale != 1.0:
            raise ValueError(f"guidance_scale={scale} needs a class-conditional model and class_labels, or a guide.")
        return None
    besides = f" ({no_class_label(unet)} means no class)" if has_no_class(unet) else ""
    wanted = f"{batch_size} integers in 0..{embeddings - 1}{besides}"
    if scale != 1.0:
        no_class_label(unet)
    if labels is None:
        raise ValueError(f"The model is class-conditional: give class_labels, {wanted}.")
    if isinstance(labels, (int, str)):
        labels = [labels] * batch_size
    if not isinstance(labels, torch.Tensor):
        labels = [class_number(unet, label) if isinstance(label, str) else label for label in labels]
    tensor = torch.as_tensor(labels)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"class_labels must be {wanted}, got numbers of type {tensor.dtype}.")
    if tensor.shape != (batch_size,) or int(tensor.min()) < 0 or int(tensor.max()) >= embeddings:
        raise ValueError(f"class_labels must be {wanted}, got {tensor.tolist()}.")
    return tensor.to(torch.int64)


def check_guide(unet: ModelMixin, guide: ModelMixin | None, device: torch.device) -> None:
    """Raise a ValueError with what differs unless `guide`, if there is one, does the network's task on the device."""
    if guide is None:
        return
    own, other = _task_of(unet), _task_of(guide)
    differing = [name for name in own if own[name] != other[name]]
    if differing:
        name = differing[0]
        raise ValueError(
            f"A guide is a network for the same task, but its {name} is {other[name]} and the network's {own[name]}: "
            "use an earlier checkpoint, or a smaller network that was trained on the same data."
        )
    if guide.device.type != device.type:
        raise ValueError(f"The guide is on {guide.device} and the pipeline on {device}: move it with guide.to(..).")


def _task_of(unet: ModelMixin) -> dict[str, Any]:
    """What a network is given and asked for."""
    side = unet.config.sample_size
    return {
        "sample_size": (side, side) if isinstance(side, int) else tuple(side or ()),
        **{name: unet.config[name] for name in ("in_channels", "out_channels", "num_class_embeds")},
        "ability to enlarge images": hasattr(unet, "working_sizes"),
    }


@dataclass(frozen=True)
class GuidedNetwork:
    """A network, the classes of a batch, and how strongly they guide.

    Attributes
    ----------
    unet : ModelMixin
        A `FlexiUNet2DModel`, or a `UNet2DModel` where the image keeps its size.
    labels : torch.Tensor or None
        (B,), int64, on the network's device; None for an unconditional network.
    scale : float
        The strength of guidance; 1 is off and costs a single call, others two.
    guide : ModelMixin or None
        The network of the weak predictions; None is classifier-free guidance.
    """

    unet: ModelMixin
    labels: torch.Tensor | None = None
    scale: float = 1.0
    guide: ModelMixin | None = None

    def __call__(self, x_t: torch.Tensor, timestep: torch.Tensor, output_size: Size) -> torch.Tensor:
        """The prediction of D_s x_0 in the dtype of x_t: (B, C, h, w) -> (B, C, H, W); `timestep` has shape (1,)."""
        own = _predict(self.unet, x_t, timestep, output_size, self.labels)
        if self.scale == 1.0:
            return own
        if self.guide is not None:
            weak = _predict(self.guide, x_t, timestep, output_size, self.labels)
        elif self.labels is not None:
            no_class = torch.full_like(self.labels, no_class_label(self.unet))
            weak = _predict(self.unet, x_t, timestep, output_size, no_class)
        else:
            return own
        return weak + self.scale * (own - weak)

    def with_scale(self, scale: float) -> GuidedNetwork:
        """The same with another strength of guidance."""
        return replace(self, scale=scale)

    def split(self, parts: int) -> list[GuidedNetwork]:
        """The same for consecutive parts of the batch, of lengths as `torch.Tensor.tensor_split` makes them."""
        if self.labels is None:
            return [self] * parts
        return [replace(self, labels=labels) for labels in self.labels.tensor_split(parts)]


def _predict(
    unet: ModelMixin, x_t: torch.Tensor, timestep: torch.Tensor, output_size: Size, labels: torch.Tensor | None
) -> torch.Tensor:
    """One call of the network."""
    grows = {} if tuple(x_t.shape[-2:]) == output_size else {"output_size": output_size}
    with torch.inference_mode():
        prediction = unet(x_t.to(unet.dtype), timestep, labels, return_dict=False, **grows)[0]
    # A copy is an ordinary tensor, and safe from CUDA graphs, which write the next result into this one.
    return prediction.to(x_t.dtype, copy=True)
