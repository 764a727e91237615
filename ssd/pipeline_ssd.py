"""SSDPipeline: unconditional and class-conditional sampling with Scale Space Diffusion.

Shape letters: B batch, C channels, H W full resolution, h w the size of the current state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor

# Imported by their modules' names, which `from_pretrained` resolves when it reads model_index.json.
from flexi_unet.modeling_flexi_unet import FlexiUNet2DModel

from .scheduling_ssd import SSDScheduler

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


class SSDPipeline(DiffusionPipeline):
    """Images from noise, coarse to fine.

    Parameters
    ----------
    unet : FlexiUNet2DModel
    scheduler : SSDScheduler
        Its `sample_size` must be the network's, and its levels among the network's stages.

    Examples
    --------
    >>> unet = FlexiUNet2DModel(sample_size=16, block_out_channels=(32, 32))
    >>> pipe = SSDPipeline(unet, SSDScheduler(sample_size=16, num_levels=2))
    >>> pipe.set_progress_bar_config(disable=True)
    >>> pipe(batch_size=2, num_inference_steps=3, output_type="pt").images.shape
    torch.Size([2, 3, 16, 16])
    """

    model_cpu_offload_seq = "unet"
    _callback_tensor_inputs = ["latents", "pred_original_sample"]  # noqa: RUF012 (diffusers reads a list)

    def __init__(self, unet: FlexiUNet2DModel, scheduler: SSDScheduler) -> None:
        super().__init__()
        if not isinstance(scheduler, SSDScheduler):
            raise TypeError(f"SSDPipeline needs an SSDScheduler, got {type(scheduler).__name__}, which never resizes.")
        sizes = getattr(unet, "stage_sizes", None)
        if sizes is not None and scheduler.resolutions != sizes[: len(scheduler.resolutions)]:
            raise ValueError(
                f"The scheduler's levels {scheduler.resolutions} are not the network's finest stages {sizes}."
            )
        self.register_modules(unet=unet, scheduler=scheduler)

    @property
    def num_timesteps(self) -> int:
        """Number of steps of the last call."""
        return self._num_timesteps

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        num_inference_steps: int | None = None,
        eta: float = 1.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        class_labels: Sequence[int] | torch.Tensor | None = None,
        guidance_scale: float = 1.0,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        timesteps: Sequence[int] | None = None,
        max_batch_size_per_level: int | Sequence[int] | None = None,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Sample images.

        Parameters
        ----------
        batch_size : int
            B.
        num_inference_steps : int, optional
            Number of steps, default 100; at least the number of levels.
        eta : float
            In [0, 1]: 1 is ancestral sampling, 0 DDIM's deterministic step within a level.
        generator : optional
            One generator, or a list of B: then every image depends on its own generator alone.
        latents : torch.Tensor, optional
            Starting noise x_t at the first timestep, (B, C, h, w) of the coarsest level.
        class_labels : optional
            B integers, for class-conditional models.
        guidance_scale : float
            Classifier-free guidance: unconditional + scale * (conditional - unconditional); 1 is off.
            The model's last class embedding stands for "no class".
        output_type : {"pil", "np", "pt", "latent"}
            PIL images; float arrays (B, H, W, C) in [0, 1]; tensors (B, C, H, W) in [0, 1]; tensors as the
            process leaves them, about [-1, 1].
        return_dict : bool
            Return an `ImagePipelineOutput` rather than a tuple.
        callback_on_step_end : callable, optional
            Called as (pipeline, step index, timestep, tensors) after every step; may return new `latents`.
        callback_on_step_end_tensor_inputs : sequence of str
            Which of "latents" (x_s) and "pred_original_sample" (prediction of D_s x_0) it receives.
        timesteps : sequence of int, optional
            An explicit descending list instead of `num_inference_steps`.
        max_batch_size_per_level : int or sequence of int, optional
            Images per call of the network where the batch is larger: one number for every level, fine to coarse;
            or one number n for the full resolution, and n 4^l at level l, which has as many pixels. Default: the whole
            batch at once. It changes speed and memory, not the images (but for the rounding of last bits, see
            docs/performance.md).
        """
        labels = self._check_inputs(
            batch_size,
            generator,
            class_labels,
            guidance_scale,
            output_type,
            callback_on_step_end_tensor_inputs,
        )
        device = self._execution_device
        if timesteps is None and num_inference_steps is None:
            num_inference_steps = min(100, len(self.scheduler))
        self.scheduler.set_timesteps(num_inference_steps, timesteps=timesteps)
        chain = self.scheduler.timesteps.tolist()  # plain integers: no device synchronisation in the loop
        self._num_timesteps = len(chain)
        timesteps_on_device = self.scheduler.timesteps.to(device)
        labels = None if labels is None else labels.to(device)
        limits = self._images_per_call(batch_size, max_batch_size_per_level)
        # The state stays in float32 even when the network runs in half precision.
        latents = self._initial_state(batch_size, chain[0], generator, latents, device)

        for index, t in enumerate(self.progress_bar(chain)):
            output_size = self.scheduler.size_at(self.scheduler.previous_timestep(t))
            timestep = timesteps_on_device[index : index + 1]
            prediction = self._predict(latents, timestep, output_size, labels, guidance_scale, limits[output_size])
            latents, pred_original_sample = self.scheduler.step(
                prediction, t, latents, eta=eta, generator=generator, return_dict=False
            )
            if callback_on_step_end is not None:
                tensors = {"latents": latents, "pred_original_sample": pred_original_sample}
                wanted = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
                latents = (callback_on_step_end(self, index, t, wanted) or {}).get("latents", latents)

        images = self._postprocess(latents, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _check_inputs(
        self,
        batch_size: int,
        generator: torch.Generator | list[torch.Generator] | None,
        class_labels: Sequence[int] | torch.Tensor | None,
        guidance_scale: float,
        output_type: str,
        callback_inputs: Sequence[str],
    ) -> torch.Tensor | None:
        """Raise a ValueError for arguments that do not fit; return the labels as a tensor."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}, got {output_type!r}.")
        if isinstance(generator, list) and len(generator) != batch_size:
            raise ValueError(f"Got {len(generator)} generators for {batch_size} images: give one, or one per image.")
        unknown = [name for name in callback_inputs if name not in self._callback_tensor_inputs]
        if unknown:
            allowed = ", ".join(self._callback_tensor_inputs)
            raise ValueError(f"callback_on_step_end_tensor_inputs may hold {allowed}, got {unknown}.")
        num_classes = self.unet.config.num_class_embeds
        if class_labels is None:
            if num_classes:
                raise ValueError(
                    f"The model is class-conditional: give {batch_size} class_labels, integers in 0..{num_classes - 1}."
                )
            if guidance_scale != 1.0:
                raise ValueError(f"guidance_scale={guidance_scale} needs a class-conditional model and class_labels.")
            return None
        labels = torch.as_tensor(class_labels, dtype=torch.int64)
        if not num_classes:
            raise ValueError("This model is unconditional: it takes no class_labels.")
        if labels.shape != (batch_size,) or int(labels.min()) < 0 or int(labels.max()) >= num_classes:
            raise ValueError(
                f"class_labels must be {batch_size} integers in 0..{num_classes - 1}, got {labels.tolist()}."
            )
        return labels

    def _initial_state(
        self,
        batch_size: int,
        t: int,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        device: torch.device,
    ) -> torch.Tensor:
        shape = (batch_size, self.unet.config.in_channels, *self.scheduler.size_at(t))
        if latents is None:
            return randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        if tuple(latents.shape) != shape:
            raise ValueError(
                f"latents must have the shape of x_t at timestep {t}, {shape}, got {tuple(latents.shape)}."
            )
        return latents.to(device, torch.promote_types(latents.dtype, torch.float32))

    def _images_per_call(self, batch_size: int, limit: int | Sequence[int] | None) -> dict[tuple[int, int], int]:
        """How many images the network takes at once, by the size of its output."""
        sizes = self.scheduler.resolutions
        if limit is None:
            return dict.fromkeys(sizes, batch_size)
        if isinstance(limit, int):
            limit = [limit * math.prod(sizes[0]) // math.prod(size) for size in sizes]
        if len(limit) != len(sizes) or min(limit) < 1:
            raise ValueError(
                f"max_batch_size_per_level must be one positive number or {len(sizes)}, one per level, got {limit}."
            )
        return dict(zip(sizes, limit))

    def _predict(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        output_size: tuple[int, int],
        labels: torch.Tensor | None,
        guidance_scale: float,
        max_batch_size: int,
    ) -> torch.Tensor:
        """The network's D_s x_0 for every image, in the dtype of the state."""
        calls = -(-len(latents) // max_batch_size)
        groups = zip(latents.tensor_split(calls), [None] * calls if labels is None else labels.tensor_split(calls))
        predictions = [self._guided(x, timestep, output_size, y, guidance_scale) for x, y in groups]
        return predictions[0] if calls == 1 else torch.cat(predictions)

    def _guided(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        output_size: tuple[int, int],
        labels: torch.Tensor | None,
        guidance_scale: float,
    ) -> torch.Tensor:
        """One call of the network, or two with classifier-free guidance."""
        inputs = latents.to(self.unet.dtype)

        def network(class_labels: torch.Tensor | None) -> torch.Tensor:
            with torch.inference_mode():
                prediction = self.unet(inputs, timestep, output_size, class_labels, return_dict=False)[0]
            # A copy is an ordinary tensor, and safe from CUDA graphs, which write the next result into this one.
            return prediction.to(latents.dtype, copy=True)

        if labels is None or guidance_scale == 1.0:
            return network(labels)
        unconditional = network(torch.full_like(labels, self.unet.config.num_class_embeds - 1))
        return unconditional + guidance_scale * (network(labels) - unconditional)

    def _postprocess(self, latents: torch.Tensor, output_type: str) -> Any:
        if output_type == "latent":
            return latents
        images = (latents / 2 + 0.5).clamp(0, 1)
        if output_type == "pt":
            return images
        array = VaeImageProcessor.pt_to_numpy(images)
        return array if output_type == "np" else self.numpy_to_pil(array)
