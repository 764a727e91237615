"""What a repository on the Hub holds: a self-contained pipeline, its digests, its card and its pictures; nothing else.

README.md  model_index.json  pipeline.json  pipeline_ssd_1a2b3c4d.py  samples.png  coarse_to_fine.gif
scheduler/scheduler_config.json  scheduler/scheduling_ssd_9c0d1e2f.py
unet/config.json  unet/diffusion_pytorch_model.safetensors  unet/modeling_flexi_unet_5e6f7a8b.py
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..commands.files import write_json, write_text
from ..pipeline_ssd import SSDPipeline
from ..pipeline_vdvae import VDVAEPipeline
from ..pipelines.saved_files import DIGESTS, digests_of, read_object
from ..sampling.many_images import SamplingSettings, generate
from ..sampling.outputs import OutputSettings, open_outputs
from ..sampling.pictures import CHANNELS, CoarseToFineRecorder
from ..sampling.vdvae import generate_vdvae, growing_frames, save_growing
from .hub_card import ANIMATION, SAMPLES, hub_card
from .model_card import model_card
from .self_contained import add_code
from .vdvae_card import vdvae_card

UNKNOWN_ORIGIN = {"Weights": "their origin was not written down"}
UNKNOWN_LICENCE = "Not stated; mind the licence of the data that the weights were trained on."
ANIMATION_FRAMES = 40


@dataclass(frozen=True, kw_only=True)
class Presentation:
    """How a model is shown.

    Parameters
    ----------
    num : int
        The number of sample images; 0 for none.
    seed : int
        Image i depends on the seed and on i alone.
    report : mapping, optional
        The content of an evaluation's report.json.
    licence : str, optional
        The licence of the weights, as the Hub names it.
    """

    num: int = 16
    seed: int = 0
    report: Mapping[str, Any] | None = None
    licence: str | None = None


def write_hub_folder(
    folder: Path,
    pipeline: SSDPipeline | VDVAEPipeline,
    repo_id: str,
    shown: Presentation,
    card: str | None = None,
) -> None:
    """Write all that is uploaded into an empty folder.

    Parameters
    ----------
    folder : pathlib.Path
    pipeline : SSDPipeline or VDVAEPipeline
    repo_id : str
        user/name.
    shown : Presentation
    card : str, optional
        The card of the folder from which the pipeline was loaded.
    """
    pipeline.save_pretrained(folder)
    for file in folder.rglob("*.json"):
        _forget_where_it_was(file)
    add_code(folder, type(pipeline))
    write_json(folder / DIGESTS, {"sha256": digests_of(folder)})
    pictured = _write_pictures(folder, pipeline, shown)
    conditional = isinstance(pipeline, SSDPipeline) and pipeline.unet.config.num_class_embeds
    arguments = "batch_size=4" + (", class_labels=[0, 1, 2, 3]" if conditional else "")
    seed = shown.seed if pictured else None
    text = hub_card(
        card or _first_card(pipeline, repo_id),
        repo_id,
        type(pipeline).__name__,
        arguments=arguments,
        seed=seed,
        animated=pictured,
        report=shown.report,
        licence=shown.licence,
    )
    write_text(folder / "README.md", text)


def _forget_where_it_was(file: Path) -> None:
    """Take the folder from which something was loaded, a path of this machine, out of a configuration."""
    settings = read_object(file.parent, file.name)
    if settings.pop("_name_or_path", None) is not None:
        write_json(file, settings)


def _first_card(pipeline: SSDPipeline | VDVAEPipeline, repo_id: str) -> str:
    """A card for a pipeline that has none."""
    if isinstance(pipeline, VDVAEPipeline):
        return vdvae_card(pipeline, repo_id, UNKNOWN_ORIGIN, UNKNOWN_LICENCE)
    return model_card(pipeline, repo_id, UNKNOWN_ORIGIN, UNKNOWN_LICENCE)


def _write_pictures(folder: Path, pipeline: SSDPipeline | VDVAEPipeline, shown: Presentation) -> bool:
    """Draw the sample images and the animation; whether there are any: images of 2 channels are no pictures."""
    network = pipeline.vdvae if isinstance(pipeline, VDVAEPipeline) else pipeline.unet
    if not shown.num or network.config.in_channels not in CHANNELS:
        return False
    settings = OutputSettings(model="", num=shown.num, grid=str(folder / SAMPLES), animation=str(folder / ANIMATION))
    outputs = open_outputs(settings, {})
    if isinstance(pipeline, VDVAEPipeline):
        for indices, images in generate_vdvae(pipeline, outputs.to_draw, seed=shown.seed):
            outputs.keep(indices, images)
        frames = growing_frames(pipeline, range(settings.animated), seed=shown.seed)
        outputs.finish(lambda path: save_growing(frames, path))
        return True
    sampling = SamplingSettings(seed=shown.seed).prepare(pipeline)
    every = -(-len(pipeline.scheduler.timesteps) // ANIMATION_FRAMES)
    recorder = CoarseToFineRecorder(pipeline.scheduler.size_at(-1), settings.animated, every)
    for indices, images in generate(pipeline, outputs.to_draw, sampling, callback=recorder):
        outputs.keep(indices, images)
    outputs.finish(recorder.save)
    return True
