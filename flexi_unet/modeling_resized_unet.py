"""The full U-Net of Scale Space Diffusion: a plain U-Net that serves every resolution at its own (arXiv:2603.08709,
table 4).

Shape letters: B batch, C image channels, H W the input's size, H' W' the output's size.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

# By name: diffusers looks for ModelMixin in this module when it reads model_index.json.
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401
from diffusers.models.unets.unet_2d import UNet2DModel, UNet2DOutput

from .class_names import NamedClasses, check_no_class, checked_names
from .loading import aligned
from .resizing import asked_sizes, resize
from .routing import Size, stage_sizes


class ResizedUNet2DModel(NamedClasses, UNet2DModel):
    """diffusers' `UNet2DModel` for images of every size: x_t is resized to `sample_size`, and the prediction back.

    Configuration and weights are those of `UNet2DModel`: `ResizedUNet2DModel.from_pretrained` loads what was saved from
    one. For images of `sample_size` both compute the same, bit for bit. Resizing is bilinear, with antialiasing where a
    side shrinks. The whole network runs at every resolution, so coarse ones cost as much as the finest: it is what
    Flexi-UNet is compared with, and the simplest way to scale space diffusion with a U-Net that you have.

    Parameters
    ----------
    sample_size : int or (height, width)
        The full resolution in pixels, at which the network works; each side divisible by 2^(number of stages - 1).
    id2label : dict of int to str, optional
        The names of the classes, one for every class embedding but "no class".
    no_class_label : int, optional
        As in `FlexiUNet2DModel`.
    **settings
        Those of `UNet2DModel`.

    Raises
    ------
    ValueError
        Without a sample_size, or when the network cannot halve it often enough.

    Examples
    --------
    >>> unet = ResizedUNet2DModel(
    ...     16,
    ...     block_out_channels=(32, 32),
    ...     down_block_types=("DownBlock2D", "DownBlock2D"),
    ...     up_block_types=("UpBlock2D", "UpBlock2D"),
    ... )
    >>> unet(torch.zeros(2, 3, 9, 9), timestep=500, output_size=10).sample.shape
    torch.Size([2, 3, 10, 10])
    """

    def __init__(
        self,
        *arguments: Any,
        id2label: dict[int, str] | None = None,
        no_class_label: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **settings)
        config = self.config
        if config.sample_size is None:
            raise ValueError("A ResizedUNet2DModel works at one size: give sample_size, such as sample_size=64.")
        self.stage_sizes = stage_sizes(config.sample_size, len(config.block_out_channels))
        check_no_class(no_class_label, config.num_class_embeds)
        if id2label is not None:
            id2label = checked_names(id2label, config.num_class_embeds, no_class_label)
        self.register_to_config(id2label=id2label, no_class_label=no_class_label)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a saved network, also one that was saved as a `UNet2DModel`; see `FlexiUNet2DModel.from_pretrained`."""
        return aligned(super().from_pretrained(*args, **kwargs))

    def working_sizes(self, input_size: Size, output_size: Size | None = None) -> tuple[Size, Size]:
        """The sizes to which an input, and from which its prediction, is resized: always the full resolution."""
        return self.stage_sizes[0], self.stage_sizes[0]

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        class_labels: torch.Tensor | None = None,
        return_dict: bool = True,
        *,
        output_size: int | Sequence[int] | None = None,
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        """Predict the clean image at the next resolution.

        Parameters
        ----------
        sample : torch.Tensor
            x_t, shape (B, C, H, W), of any size.
        timestep : int, float or tensor of shape (), (1,) or (B,)
        class_labels : torch.Tensor, optional
            Shape (B,), integers; needed exactly when the model has class embeddings.
        return_dict : bool
            Whether to return a `UNet2DOutput` rather than a tuple.
        output_size : int or (height, width), optional
            Default: the input's size. By name only: what stands before it has the order of `UNet2DModel`.

        Returns
        -------
        UNet2DOutput or tuple
            `.sample` of shape (B, C, H', W').
        """
        _, output_size = asked_sizes(sample, output_size)
        prediction = super().forward(
            resize(sample, self.stage_sizes[0]), timestep, class_labels=class_labels, return_dict=False
        )[0]
        prediction = resize(prediction, output_size)
        return UNet2DOutput(sample=prediction) if return_dict else (prediction,)


def _signature_with_classes() -> inspect.Signature:
    """The parameters of `UNet2DModel`, then ours: from it diffusers knows the settings of a saved network."""
    theirs = inspect.signature(UNet2DModel.__init__)
    ours = {"id2label": dict[int, str] | None, "no_class_label": int | None}
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    added = [inspect.Parameter(name, kind, default=None, annotation=each) for name, each in ours.items()]
    return theirs.replace(parameters=[*theirs.parameters.values(), *added])


ResizedUNet2DModel.__init__.__signature__ = _signature_with_classes()  # type: ignore[attr-defined]
