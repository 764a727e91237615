"""Model cards: the README.md beside a saved pipeline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCardData

from flexi_unet import FlexiUNet2DModel

from ..pipeline_ssd import SSDPipeline
from ..pipelines.guidance import has_no_class, no_class_label

LISTED_CLASSES = 20
"""The most classes that a card names."""

_CARD = """\
---
{metadata}
---

# {title}

{what}

## Use

```python
from ssd import {pipeline}
pipeline = {pipeline}.from_pretrained({location})
images = pipeline({arguments}).images
```

## Origin

{origin}

## Model

{model}

## Licence

{licence}
"""


_WHAT = {
    "SSDScheduler": "A pixel-space diffusion model whose images shrink as they get noisier\n"
    "([arXiv:2603.08709](https://arxiv.org/abs/2603.08709)).",
    "BlurringScheduler": "A pixel-space diffusion model whose images are blurred as they get noisier\n"
    "([arXiv:2209.05557](https://arxiv.org/abs/2209.05557)).",
    "CorrectiveNoiseScheduler": "A pixel-space diffusion model at several resolutions, with corrective noise where the "
    "image\ngrows (an ablation of [arXiv:2603.08709](https://arxiv.org/abs/2603.08709)).",
}
"""What a model is, by its scheduler."""


def model_card(
    pipeline: SSDPipeline, location: str, origin: Mapping[str, str], licence: str, datasets: Sequence[str] = ()
) -> str:
    """Text of the model card, Markdown with the Hub's metadata.

    Parameters
    ----------
    pipeline : SSDPipeline
        The network and the process that are described.
    location : str
        What the example gives to `from_pretrained`.
    origin : mapping of str to str
        Where the weights come from: one line of the card per entry, Markdown.
    licence : str
        A sentence on the licence of the weights.
    datasets : sequence of str
        Names on the Hub of the data sets that the weights were trained on, where they are known.
    """
    sizes = [_size_text(size) for size in pipeline.scheduler.resolutions]
    classes = ", class_labels=[0, 1, 2, 3]" if pipeline.unet.config.num_class_embeds else ""
    levels = "1 level" if len(sizes) == 1 else f"{len(sizes)} levels"
    return card_text(
        f"Scale Space Diffusion, {sizes[0]} pixels, {levels}",
        _WHAT[type(pipeline.scheduler).__name__],
        "SSDPipeline",
        location,
        origin,
        _describe(pipeline),
        licence,
        arguments=f"batch_size=4{classes}",
        datasets=datasets,
    )


def card_text(
    title: str,
    what: str,
    pipeline: str,
    location: str,
    origin: Mapping[str, str],
    model: Mapping[str, str],
    licence: str,
    *,
    tag: str = "scale-space-diffusion",
    arguments: str = "batch_size=4",
    datasets: Sequence[str] = (),
) -> str:
    """Text of the card of any pipeline.

    Parameters
    ----------
    title, what : str
        A line, and a sentence.
    pipeline : str
        The name of its class.
    location, origin, licence, datasets
        As in `model_card`.
    model : mapping of str to str
        The architecture, by name.
    tag : str
        By which the Hub finds it.
    arguments : str
        Of the call in the example.
    """
    metadata = ModelCardData(
        library_name="diffusers",
        pipeline_tag="unconditional-image-generation",
        tags=[tag],
        datasets=list(datasets) or None,
    )
    return _CARD.format(
        metadata=metadata.to_yaml(),
        title=title,
        what=what,
        pipeline=pipeline,
        location=json.dumps(location),
        arguments=arguments,
        origin=_list(origin),
        model=_list(model),
        licence=licence,
    )


def _describe(pipeline: SSDPipeline) -> dict[str, str]:
    """Architecture and process, by name."""
    scheduler, unet = pipeline.scheduler, pipeline.unet
    facts = {
        "Process": f"{type(scheduler).__name__}, the network predicts {scheduler.config.prediction_type}",
        "Levels": ", ".join(map(_size_text, scheduler.resolutions)),
    }
    facts |= _schedules(scheduler.config)
    if scheduler.config.get("switch_jitter"):
        bands = ", ".join(f"{band[0]}..{band[-1]}" for band in scheduler.switch_bands)
        facts["Switches"] = f"a call with `switches=[..]` may move them, within {bands}"
    facts |= _network(unet)
    if unet.config.num_class_embeds:
        last = f", of which {no_class_label(unet)} means no class" if has_no_class(unet) else ", none for no class"
        facts["Class embeddings"] = f"{unet.config.num_class_embeds}{last}"
    names = getattr(unet, "class_names", None)
    if names is not None:
        facts["Classes"] = f"{len(names)}: {_listed(names)}"
    return facts


def _schedules(config: Any) -> dict[str, str]:
    """The schedules that a process has: of resolutions and betas, or of blur."""
    facts = {}
    if config.get("switches"):
        facts["Resolution schedule"] = f"coarser levels from timesteps {', '.join(map(str, config.switches))} on"
    elif "resolution_schedule" in config:
        facts["Resolution schedule"] = f"{config.resolution_schedule}, gamma {config.resolution_gamma:g}"
    timesteps = f"{config.num_train_timesteps} timesteps"
    if "beta_schedule" in config:
        betas = f"{config.beta_schedule} betas {config.beta_start:g} to {config.beta_end:g}"
        facts["Noise schedule"] = f"{betas}, {timesteps}"
    else:
        facts["Noise schedule"] = f"cosine, {timesteps}"
    if config.get("blur_sigma_max"):
        facts["Blur"] = f"{config.blur_sigma_max:g} pixels wide at the end"
    return facts


def _network(unet: Any) -> dict[str, str]:
    """The network's architecture; attention is told where the network tells it."""
    config, layers = unet.config, unet.config.layers_per_block
    facts = {
        "Network": f"{type(unet).__name__}, {unet.num_parameters() / 1e6:.1f} M parameters",
        "Stage widths": ", ".join(map(str, config.block_out_channels)),
        "Residual blocks per stage": str(layers) if isinstance(layers, int) else ", ".join(map(str, layers)),
    }
    if isinstance(unet, FlexiUNet2DModel):
        attention = [size for size in unet.stage_sizes if min(size) in tuple(config.attention_resolutions)]
        where = ", ".join(map(_size_text, attention)) or "no stage"
        facts["Attention"] = f"{config.num_attention_heads} heads, in the middle and at {where}"
        facts["Decoder exit"] = config.decoder_exit
        if config.patch_size > 1:
            facts["Patches"] = f"{config.patch_size} x {config.patch_size} pixels"
        if config.downsample_type == "average":
            facts["Between stages"] = "means of 2 x 2 pixels, and repeated pixels"
    return facts


def _listed(names: Sequence[str]) -> str:
    """The first names, each on one line."""
    first = [" ".join(name.split()) for name in names[:LISTED_CLASSES]]
    more = [f"and {len(names) - LISTED_CLASSES} more"] if len(names) > LISTED_CLASSES else []
    return ", ".join(first + more)


def _size_text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _list(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())
