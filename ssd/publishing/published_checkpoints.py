"""Convert a checkpoint of the paper's own code (prateksha/ScaleSpaceDiffusion) into a pipeline folder.

    python -m ssd.publishing.published_checkpoints ema_0.9999_1000000.pt --levels 4 --out models/celeba64
    python -m ssd.publishing.published_checkpoints ema.pt --levels 6 --adapter_copies averaged --out models/celeba256

The architecture is read off the shapes and the adapters' names. The levels, the resolution schedule and the
attention heads are not in the file: give those that the network was trained with. The folder loads with
ssd.SSDPipeline.from_pretrained, and its README.md says where the weights come from.
"""

# Shape letters: C channels, K attention heads.

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from flexi_unet.modeling_flexi_unet import FlexiUNet2DModel

NUM_GROUPS = 32
"""Groups of every group norm; fixed in guided-diffusion."""

ADAPTER_COPIES = ("equal", "averaged", "published")

RESNET_LAYERS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
QKV = ("to_q", "to_k", "to_v")
ATTENTION_LAYERS = {"group_norm": "norm", **dict.fromkeys(QKV, "qkv"), "to_out.0": "proj_out"}
TOP_LAYERS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding": "label_emb",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}

Weights = Mapping[str, torch.Tensor]


def read_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], int | None]:
    """Tensors of a checkpoint file by name, and the training step if the file holds it; no code of the file is run.

    Parameters
    ----------
    path : str or Path
        A `.safetensors` file, or what `torch.save` wrote of a state dict or of {"model": state dict, "step": int}.

    Raises
    ------
    FileNotFoundError
    ValueError
        For a damaged file, a pickle that could run code, or content that is no state dict.
    """
    path = Path(path)
    if not path.is_file():
        problem = "is a folder: give the checkpoint file in it" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {problem}.")
    content = _load_safetensors(path) if path.suffix == ".safetensors" else _load_pickle(path)
    step = content.get("step") if isinstance(content, dict) else None
    weights = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    ):
        raise ValueError(
            f"{path} holds no state dict: expected tensors by name, or {{'model': tensors by name, 'step': number}}."
        )
    return weights, step if isinstance(step, int) else None


def infer_config(weights: Weights, num_attention_heads: int = 4, image_size: int | None = None) -> dict[str, Any]:
    """Settings of the `FlexiUNet2DModel` that published weights belong to.

    Parameters
    ----------
    weights : mapping of str to torch.Tensor
        State dict under the published names; only names and shapes are read.
    num_attention_heads : int
        Shapes do not tell it; the paper's networks have 4.
    image_size : int, optional
        Full resolution in pixels; needed when there are no adapters, whose names tell it.

    Raises
    ------
    ValueError
        When the weights are none of a Flexi-UNet, or do not tell its architecture.
    """
    modules = {_module(name) for name in weights}
    adapters = _find_adapters(weights)
    _check_kind(weights, modules, bool(adapters))
    stages = _encoder_stages(modules)
    widths = tuple(_stage_width(weights, blocks) for blocks in stages)
    layers = tuple(len(blocks) for blocks in stages)
    size = _infer_image_size(widths, adapters, image_size)
    with_attention = [any(f"input_blocks.{block}.1.qkv" in modules for block in blocks) for blocks in stages]
    return {
        "sample_size": size,
        "in_channels": _size(weights, "input_blocks.0.0.weight", 1),
        "out_channels": _size(weights, "out.2.weight", 0),
        "block_out_channels": widths,
        "layers_per_block": layers[0] if len(set(layers)) == 1 else layers,
        "attention_resolutions": tuple(size >> stage for stage, attention in enumerate(with_attention) if attention),
        "num_attention_heads": num_attention_heads,
        "norm_num_groups": NUM_GROUPS,
        "num_class_embeds": _size(weights, "label_emb.weight", 0) if "label_emb" in modules else None,
        "decoder_exit": "early",
        "time_embed_channels": _size(weights, "time_embed.0.weight", 1),
    }


def convert_weights(
    weights: Weights,
    num_attention_heads: int = 4,
    image_size: int | None = None,
    adapter_copies: Literal["equal", "averaged", "published"] = "equal",
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Configuration and state dict of our network from a published state dict.

    Parameters
    ----------
    weights : mapping of str to torch.Tensor
        State dict under the published names, any floating dtype.
    num_attention_heads, image_size
        See `infer_config`.
    adapter_copies : {"equal", "averaged", "published"}
        A shared adapter is stored once per resolution. guided-diffusion, when it saves averaged weights, replaces
        only the copy that was registered first; the others are the raw weights of that step. equal: refuse copies
        that differ. averaged: take the first one. published: take the last one, which is what remains when the
        published code loads the file.

    Returns
    -------
    config : dict
        Arguments of `FlexiUNet2DModel`.
    state_dict : dict of str to torch.Tensor
        Its weights, float32, sharing no memory with `weights`.

    Raises
    ------
    ValueError
        For names that are missing or unknown, shapes that do not fit, or adapters that differ.
    """
    if adapter_copies not in ADAPTER_COPIES:
        raise ValueError(f"adapter_copies must be one of {', '.join(ADAPTER_COPIES)}, got {adapter_copies!r}.")
    if num_attention_heads < 1:
        raise ValueError(f"num_attention_heads must be at least 1, got {num_attention_heads}.")
    config = infer_config(weights, num_attention_heads, image_size)
    with torch.device("meta"):
        ours = FlexiUNet2DModel(**config).state_dict()
    modules = _published_names(config)
    sources = {name: tuple(f"{copy}.{_kind(name)}" for copy in modules[_module(name)]) for name in ours}
    _check_names_and_shapes(weights, ours, sources, never_run=_never_run(config))
    return config, {
        name: _convert_tensor(name, weights[_choose_copy(weights, copies, adapter_copies)], num_attention_heads)
        for name, copies in sources.items()
    }


def build_unet(config: Mapping[str, Any], state_dict: Mapping[str, torch.Tensor]) -> FlexiUNet2DModel:
    """The network of `convert_weights`, in evaluation mode; it takes over the tensors without a copy."""
    with torch.device("meta"):  # no time spent on weights that are replaced at once
        unet = FlexiUNet2DModel(**config)
    unet.load_state_dict(state_dict, assign=True)
    return unet.eval()


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error}): fetch it again.") from error


def _load_pickle(path: Path) -> Any:
    """What `torch.save` wrote, tensors and plain containers only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; a file that matters fails below
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        problem = (
            f"loading it could run code (it asks for {wanted[1]}, not only for tensors)"
            if wanted
            else "it is damaged, no checkpoint of torch.save, or a pickle whose loading could run code"
        )
        raise ValueError(
            f"{path} is refused: {problem}. If you trust its source, re-save it where it was made with "
            'torch.save({"model": model.state_dict(), "step": int(step)}, path).'
        ) from error
    except Exception as error:  # a damaged file fails in many ways: RuntimeError, EOFError, KeyError, ..
        raise ValueError(f"{path} is damaged, cut short or no checkpoint of torch.save: fetch it again.") from error


def _check_kind(weights: Weights, modules: set[str], has_adapters: bool) -> None:
    """Raise a ValueError for weights of another kind of network."""
    if not {"input_blocks.0.0", "time_embed.0", "out.2"} <= modules:
        examples = ", ".join(sorted(weights)[:3]) or "nothing"
        raise ValueError(
            "These are no weights of a guided-diffusion network: expected names such as input_blocks.0.0.weight, "
            f"found {examples}."
        )
    widths = {
        tensor.numel()
        for name, tensor in weights.items()
        if re.fullmatch(r"input_blocks\.\d+\.0\.out_layers\.3\.bias", name)
    }
    if not has_adapters and len(widths) > 1:
        raise ValueError(
            "This is a plain guided-diffusion U-Net: it has no adapters (adapters_in.*, adapters_out.*), so it is no "
            "Flexi-UNet and cannot be converted, not even with one level."
        )
    if any(re.match(r"output_blocks\.\d+\.[12]\.in_layers\.", name) for name in weights):
        raise ValueError("This network resizes inside residual blocks (resblock_updown), which Flexi-UNet does not.")


def _size(weights: Weights, name: str, dimension: int) -> int:
    """Length of one dimension of a tensor that every published network has."""
    if name not in weights:
        raise ValueError(_misfit([name], [], []))
    shape = weights[name].shape
    if len(shape) <= dimension:
        raise ValueError(_misfit([], [], [f"{name} has {len(shape)} dimensions"]))
    return shape[dimension]


def _encoder_stages(modules: set[str]) -> list[list[int]]:
    """Numbers of the residual blocks among the `input_blocks`, stage by stage, fine to coarse."""
    matches = (re.match(r"input_blocks\.(\d{1,4})\.", name) for name in modules)
    last = max(int(match[1]) for match in matches if match)
    stages: list[list[int]] = [[]]
    for number in range(1, last + 1):  # without gaps, so that a missing block is found to be missing
        if f"input_blocks.{number}.0.op" in modules:
            stages.append([])
        else:
            stages[-1].append(number)
    if not all(stages):
        empty = stages.index([])
        raise ValueError(f"Its encoder stage {empty} of {len(stages)} has no residual blocks (input_blocks.*).")
    return stages


def _stage_width(weights: Weights, blocks: Sequence[int]) -> int:
    """Output channels of an encoder stage's residual blocks, from the first tensor that is there."""
    names = [f"input_blocks.{block}.0.out_layers.3.{kind}" for block in blocks for kind in ("weight", "bias")]
    return _size(weights, next((name for name in names if name in weights), names[0]), 0)


def _find_adapters(weights: Weights) -> dict[tuple[str, int], int]:
    """{("in" or "out", resolution): width}, the width being that of the stage and not the base's."""
    found = {}
    for name in weights:
        match = re.fullmatch(r"adapters_(in|out)\.(\d{1,6})\.weight", name)
        if match:
            found[match[1], int(match[2])] = _size(weights, name, 0 if match[1] == "in" else 1)
    return found


def _expected_adapters(widths: Sequence[int], image_size: int) -> dict[tuple[str, int], int]:
    """The adapters of a network, as `_find_adapters` gives them, in the order in which they were registered.

    The published code goes through the encoder for the entries (fine to coarse) and through the decoder for the
    exits (coarse to fine); an entry has the width that its stage expects, which is that of the stage before.
    """
    base, stages = widths[0], range(1, len(widths))
    entries = {("in", image_size >> stage): widths[stage - 1] for stage in stages}
    exits = {("out", image_size >> stage): widths[stage] for stage in reversed(stages)}
    return {adapter: width for adapter, width in (entries | exits).items() if width != base}


def _infer_image_size(widths: Sequence[int], adapters: Mapping[tuple[str, int], int], given: int | None) -> int:
    """The full resolution at which all adapters belong to stages of their width."""
    if not adapters:
        if given is None:
            raise ValueError(
                "All stages have one width, so there are no adapters whose names would tell the resolution: give it "
                "(--res)."
            )
        return given
    candidates = {resolution << stage for _, resolution in adapters for stage in range(1, len(widths))}
    fits = {size: _expected_adapters(widths, size) for size in candidates}
    fits = {size: expected for size, expected in fits.items() if adapters.items() <= expected.items()}
    if not fits:
        names = ", ".join(f"adapters_{side}.{resolution}" for side, resolution in adapters)
        raise ValueError(
            f"No resolution makes its adapters ({names}) fit a network of the widths {', '.join(map(str, widths))}."
        )
    sizes = " or ".join(map(str, sorted(fits)))
    if given is not None and given not in fits:
        raise ValueError(f"The adapters' names belong to a resolution of {sizes}, not of {given} (--res).")
    if given is None and len(fits) > 1:  # never when all adapters are there
        raise ValueError(f"Adapters are missing, and the others fit a resolution of {sizes}: give it (--res).")
    return next(iter(fits)) if given is None else given


def _published_names(config: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Our modules -> the published ones; a shared adapter has several names, in the order of their registration."""
    names = TOP_LAYERS | _encoder_names(config) | _middle_names() | _decoder_names(config)
    copies: dict[str, tuple[str, ...]] = {ours: (published,) for ours, published in names.items()}
    adapters = _expected_adapters(config["block_out_channels"], config["sample_size"])
    for (side, resolution), width in adapters.items():
        ours = f"{'entry' if side == 'in' else 'exit'}_adapters.{width}"
        copies[ours] = (*copies.get(ours, ()), f"adapters_{side}.{resolution}")
    return copies


def _encoder_names(config: Mapping[str, Any]) -> dict[str, str]:
    """All encoder stages: residual blocks, then the downsampler unless the stage is the coarsest."""
    names: dict[str, str] = {}
    number, layers = 1, _layers(config)
    for stage, num_layers in enumerate(layers):
        for layer in range(num_layers):
            names |= _block_names(f"down_blocks.{stage}", layer, f"input_blocks.{number}")
            number += 1
        if stage < len(layers) - 1:
            names[f"down_blocks.{stage}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
            number += 1
    return names


def _middle_names() -> dict[str, str]:
    names: dict[str, str] = {}
    for layer, block in enumerate(("middle_block.0", "middle_block.2")):
        names |= {f"mid_block.resnets.{layer}.{ours}": f"{block}.{name}" for ours, name in RESNET_LAYERS.items()}
    return names | {
        f"mid_block.attentions.0.{ours}": f"middle_block.1.{name}" for ours, name in ATTENTION_LAYERS.items()
    }


def _decoder_names(config: Mapping[str, Any]) -> dict[str, str]:
    """All decoder stages, coarse to fine; the upsampler is a part of the last block of its stage."""
    names: dict[str, str] = {}
    number, layers = 0, _layers(config)
    for index, stage in enumerate(reversed(range(len(layers)))):
        for layer in range(layers[stage] + 1):
            names |= _block_names(f"up_blocks.{index}", layer, f"output_blocks.{number}")
            number += 1
        # It sits behind the block's attention, where there is one.
        place = 2 if config["sample_size"] >> stage in config["attention_resolutions"] else 1
        names[f"up_blocks.{index}.upsamplers.0.conv"] = f"output_blocks.{number - 1}.{place}.conv"
    return names


def _never_run(config: Mapping[str, Any]) -> str:
    """Prefix of the finest decoder stage's last block: the published code makes it, but no route leads through it."""
    return f"output_blocks.{sum(layers + 1 for layers in _layers(config)) - 1}."


def _layers(config: Mapping[str, Any]) -> list[int]:
    """Residual blocks of every encoder stage, fine to coarse."""
    layers = config["layers_per_block"]
    return [layers] * len(config["block_out_channels"]) if isinstance(layers, int) else list(layers)


def _block_names(stage: str, layer: int, block: str) -> dict[str, str]:
    """Our module name -> the published one, of a residual block and the attention behind it."""
    names = {f"{stage}.resnets.{layer}.{ours}": f"{block}.0.{name}" for ours, name in RESNET_LAYERS.items()}
    return names | {
        f"{stage}.attentions.{layer}.{ours}": f"{block}.1.{name}" for ours, name in ATTENTION_LAYERS.items()
    }


def _check_names_and_shapes(
    weights: Weights, ours: Weights, sources: Mapping[str, tuple[str, ...]], never_run: str
) -> None:
    """Raise a ValueError unless `weights` are exactly the `sources` of `ours`; those of `never_run` may be there."""
    shapes = {
        source: _published_shape(name, tuple(tensor.shape)) for name, tensor in ours.items() for source in sources[name]
    }
    missing = [name for name in shapes if name not in weights]
    unknown = [name for name in weights if name not in shapes and not name.startswith(never_run)]
    misshapen = [
        f"{name} is {tuple(weights[name].shape)} and not {shape}"
        for name, shape in shapes.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    if missing or unknown or misshapen:
        raise ValueError(_misfit(missing, unknown, misshapen))


def _misfit(missing: Sequence[str], unknown: Sequence[str], misshapen: Sequence[str]) -> str:
    """One line on what does not fit, with up to three examples of each kind."""
    parts = []
    for what, items in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen)):
        if items:
            more = f" and {len(items) - 3} more" if len(items) > 3 else ""
            count = "1 tensor is" if len(items) == 1 else f"{len(items)} tensors are"
            parts.append(f"{count} {what} ({', '.join(items[:3])}{more})")
    return f"The weights do not fit the Flexi-UNet that their shapes describe: {'; '.join(parts)}."


def _published_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape under which our tensor `name` is published: attention is made of 1-D convolutions, with q, k, v in one."""
    if ".attentions." not in name:
        return shape
    if _qkv_index(name) is not None:
        shape = (3 * shape[0], *shape[1:])
    return (*shape, 1) if len(shape) == 2 else shape


def _module(name: str) -> str:
    """Module of a tensor's name: 'conv_in.weight' -> 'conv_in'."""
    return name.rpartition(".")[0]


def _kind(name: str) -> str:
    """'weight' or 'bias'."""
    return name.rpartition(".")[2]


def _qkv_index(name: str) -> int | None:
    """0, 1, 2 for the tensors of an attention's to_q, to_k, to_v."""
    layer = _kind(_module(name))
    return QKV.index(layer) if layer in QKV else None


def _choose_copy(weights: Weights, copies: tuple[str, ...], adapter_copies: str) -> str:
    """The name of the copy to use."""
    if adapter_copies == "equal":
        for other in copies[1:]:
            if not torch.equal(weights[copies[0]], weights[other]):
                raise ValueError(
                    f"{copies[0]} and {other} are copies of one adapter but differ, as they can in files of "
                    "averaged weights: choose the average (--adapter_copies averaged) or the one that the published "
                    "code uses (--adapter_copies published)."
                )
    return copies[-1] if adapter_copies == "published" else copies[0]


def _convert_tensor(name: str, tensor: torch.Tensor, num_heads: int) -> torch.Tensor:
    """A published tensor as our tensor `name`: float32, a copy."""
    if ".attentions." in name and tensor.ndim == 3:
        tensor = tensor.squeeze(-1)  # (C_out, C_in, 1) -> (C_out, C_in)
    part = _qkv_index(name)
    if part is not None:  # rows are ordered by head, then q k v: (K 3 C/K, ..) -> (C, ..)
        tensor = tensor.reshape(num_heads, 3, -1, *tensor.shape[1:])[:, part].flatten(0, 1)
    return tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Settings of the conversion command.

    Parameters
    ----------
    checkpoint : str
        The published file, .pt or .safetensors.
    levels : int
        Number of resolutions that the network was trained with.
    out : str
        Folder for the pipeline; new or empty.
    schedule : str
        Resolution schedule that the network was trained with.
    gamma : float
        Shape of the resolution schedule.
    heads : int
        Attention heads.
    res : int, optional
        Full resolution in pixels; needed only where the file does not tell it.
    adapter_copies : str
        Which copy of an adapter shared by several resolutions: equal refuses copies that differ (averaged weights
        can), averaged takes the one that holds the average, published the one that the published code uses.
    """

    checkpoint: str
    levels: int
    out: str
    schedule: Literal["equal", "convex_decay", "sigmoid_like", "tanh_like"] = "convex_decay"
    gamma: float = 0.5
    heads: int = 4
    res: int | None = None
    adapter_copies: Literal["equal", "averaged", "published"] = "equal"


def main(arguments: list[str] | None = None) -> None:
    """The command; `arguments` default to those of the process."""
    # This package imports nothing of ssd, with this one exception: the command writes a whole pipeline.
    from .. import SSDPipeline, SSDScheduler
    from ..commands.errors import exit_on_usage_error
    from ..commands.parser import CommandParser
    from .model_card import model_card
    from .saving import save_pipeline

    parser = CommandParser(prog="python -m ssd.publishing.published_checkpoints", description=__doc__)
    parser.add_argument("checkpoint", type=str, help="The published file, .pt or .safetensors.")
    parser.add_class_arguments(ConvertConfig, skip={"checkpoint"})
    config = ConvertConfig(**parser.parse_args(arguments).as_dict())
    with exit_on_usage_error(ValueError, OSError):
        out = _check_out(config.out)
        weights, step = read_checkpoint(config.checkpoint)
        unet = _convert_for_command(config, weights)
        scheduler = SSDScheduler(
            sample_size=unet.config.sample_size,
            num_levels=config.levels,
            resolution_schedule=config.schedule,
            resolution_gamma=config.gamma,
        )
        pipeline = SSDPipeline(unet, scheduler)
        origin = _origin(config, step, unet.config.num_class_embeds)
    with exit_on_usage_error(OSError):
        save_pipeline(pipeline, out)
        (out / "README.md").write_text(model_card(pipeline, config.out, origin, LICENCE), encoding="utf-8")
    print(f"wrote {out}/: load it with ssd.SSDPipeline.from_pretrained({config.out!r})")  # noqa: T201


LICENCE = (
    "The weights keep the licence of their source: see where the source file comes from. The conversion changes only "
    "their names and layout."
)


def _check_out(out: str) -> Path:
    """The folder to write, which must not hold anything."""
    path = Path(out)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        kind = "is not empty" if path.is_dir() else "is a file"
        raise ValueError(f"--out {out} {kind}: give a new or an empty folder.")
    return path


def _convert_for_command(config: ConvertConfig, weights: Weights) -> FlexiUNet2DModel:
    """The network, after the checks that need its architecture; errors name the file."""
    try:
        unet_config, state_dict = convert_weights(weights, config.heads, config.res, config.adapter_copies)
    except ValueError as error:
        raise ValueError(f"{config.checkpoint} cannot be converted. {error}") from error
    stages = len(unet_config["block_out_channels"])
    if not 1 <= config.levels <= stages:
        raise ValueError(
            f"--levels {config.levels} does not fit {config.checkpoint}: its network has {stages} stages, so 1 to "
            f"{stages} levels."
        )
    if unet_config["in_channels"] != unet_config["out_channels"]:
        raise ValueError(
            f"{config.checkpoint} predicts {unet_config['out_channels']} channels for images of "
            f"{unet_config['in_channels']} (learn_sigma): the process needs a network that predicts images alone."
        )
    return build_unet(unet_config, state_dict)


def _origin(config: ConvertConfig, step: int | None, num_classes: int | None) -> dict[str, str]:
    """Where the weights come from, for the model card."""
    facts = {
        "Source": "a checkpoint of https://github.com/prateksha/ScaleSpaceDiffusion, the paper's own code",
        "File": f"`{Path(config.checkpoint).name}`",
        "SHA-256 of the file": f"`{_sha256(config.checkpoint)}`",
        "Training step": "not in the file" if step is None else str(step),
        "Converted by": "`python -m ssd.publishing.published_checkpoints`",
    }
    if config.adapter_copies != "equal":
        facts["Copies of shared adapters"] = config.adapter_copies
    if num_classes:  # guided-diffusion never leaves the class out, so that no embedding stands for "no class"
        facts["Guidance"] = "not trained without a class: keep guidance_scale at 1"
    return facts


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
