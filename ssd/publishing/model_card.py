"""Model cards: the README.md beside a saved pipeline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from huggingface_hub import ModelCardData

from ..pipeline_ssd import SSDPipeline

LISTED_CLASSES = 20
"""The most classes that a card names."""

_CARD = """\
---
{metadata}
---

# Scale Space Diffusion, {full_size} pixels, {levels}

A pixel-space diffusion model whose images shrink as they get noisier
([arXiv:2603.08709](https://arxiv.org/abs/2603.08709)). Its network, a Flexi-UNet, runs at every resolution only the
stages that this resolution needs.

## Use

```python
from ssd import SSDPipeline
pipeline = SSDPipeline.from_pretrained({location})
images = pipeline({arguments}).images
```

## Origin

{origin}

## Model

{model}

## Licence

{licence}
"""


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
    metadata = ModelCardData(
        library_name="diffusers",
        pipeline_tag="unconditional-image-generation",
        tags=["scale-space-diffusion"],
        datasets=list(datasets) or None,
    )
    sizes = [_size_text(size) for size in pipeline.scheduler.resolutions]
    classes = ", class_labels=[0, 1, 2, 3]" if pipeline.unet.config.num_class_embeds else ""
    return _CARD.format(
        metadata=metadata.to_yaml(),
        full_size=sizes[0],
        levels="1 level" if len(sizes) == 1 else f"{len(sizes)} levels",
        location=json.dumps(location),
        arguments=f"batch_size=4{classes}",
        origin=_list(origin),
        model=_list(_describe(pipeline)),
        licence=licence,
    )


def _describe(pipeline: SSDPipeline) -> dict[str, str]:
    """Architecture and process, by name."""
    unet, scheduler = pipeline.unet.config, pipeline.scheduler.config
    attention = [size for size in pipeline.unet.stage_sizes if min(size) in tuple(unet.attention_resolutions)]
    layers = unet.layers_per_block
    facts = {
        "Levels": ", ".join(map(_size_text, pipeline.scheduler.resolutions)),
        "Resolution schedule": f"{scheduler.resolution_schedule}, gamma {scheduler.resolution_gamma:g}",
        "Noise schedule": f"{scheduler.beta_schedule} betas {scheduler.beta_start:g} to {scheduler.beta_end:g}, "
        f"{scheduler.num_train_timesteps} timesteps",
        "Network": f"Flexi-UNet, {pipeline.unet.num_parameters() / 1e6:.1f} M parameters",
        "Stage widths": ", ".join(map(str, unet.block_out_channels)),
        "Residual blocks per stage": str(layers) if isinstance(layers, int) else ", ".join(map(str, layers)),
        "Attention": f"{unet.num_attention_heads} heads, in the middle and at "
        + (", ".join(map(_size_text, attention)) or "no stage"),
        "Decoder exit": unet.decoder_exit,
    }
    if unet.num_class_embeds:
        facts["Class embeddings"] = str(unet.num_class_embeds)
    names = getattr(pipeline.unet, "class_names", None)
    if names is not None:
        facts["Classes"] = f"{len(names)}: {_listed(names)}"
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
