"""Published checkpoints: converted weights give the published outputs, and every bad file is one clear line."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flexi_unet import FlexiUNet2DModel
from ssd import SSDPipeline
from ssd.publishing.published_checkpoints import build_unet, convert_weights, infer_config, main, read_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
ROUTES = [(8, 8), (8, 16), (16, 16), (16, 32), (32, 32)]
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def published() -> Weights:
    """A published state dict: 32 pixels, widths 32, 64, 64; float16 values."""
    return load_file(GOLDEN / "flexi_unet_32_3l.safetensors")


@pytest.fixture(scope="module")
def unet(published: Weights) -> FlexiUNet2DModel:
    return build_unet(*convert_weights(published))


@pytest.fixture
def checkpoint(published: Weights, tmp_path: Path) -> Path:
    """The published file as its authors write it."""
    path = tmp_path / "ema_0.9999_300000.pt"
    torch.save({"model": published, "step": 300000}, path)
    return path


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command on a file (or on weights to be saved first); return its one line of error."""

    def run(content: Path | Weights, *arguments: str, out: Path = tmp_path / "out") -> str:
        path = content if isinstance(content, Path) else tmp_path / "weights.pt"
        if not isinstance(content, Path):
            torch.save(content, path)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as stop:
            main([str(path), "--levels", "3", "--out", str(out), *arguments])
        captured = capsys.readouterr()
        assert stop.value.code == 2
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
        assert captured.err.endswith("\n")
        assert sorted(tmp_path.rglob("*")) == before  # nothing was written
        return captured.err

    return run


# Outputs


@pytest.mark.parametrize(("size", "output_size"), ROUTES)
def test_the_published_outputs_on_every_route(unet: FlexiUNet2DModel, size: int, output_size: int) -> None:
    io = load_file(GOLDEN / "flexi_unet_32_3l.io.safetensors")
    x, t, expected = (io[f"{size}to{output_size}.{name}"] for name in "xty")
    with torch.no_grad():
        result = unet(x.float(), t, output_size=output_size).sample
    assert result.dtype == torch.float32
    assert (result - expected).abs().max() < 2e-5


def test_the_architecture_is_the_published_one(unet: FlexiUNet2DModel) -> None:
    described = json.loads((GOLDEN / "flexi_unet_32_3l.json").read_text())
    base = described["model_channels"]
    config = unet.config
    assert config.sample_size == described["image_size"]
    assert list(config.block_out_channels) == [int(base * multiplier) for multiplier in described["channel_mult"]]
    assert config.layers_per_block == described["num_res_blocks"]
    assert list(config.attention_resolutions) == described["attention_resolutions"]
    assert config.num_attention_heads == described["num_heads"]
    assert config.time_embed_channels == base
    assert config.num_class_embeds is None
    assert config.decoder_exit == "early"


def test_saving_and_loading_changes_no_output(unet: FlexiUNet2DModel, tmp_path: Path) -> None:
    unet.save_pretrained(tmp_path)
    loaded = FlexiUNet2DModel.from_pretrained(tmp_path)
    for name, tensor in unet.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(x, 700, output_size=16).sample, unet(x, 700, output_size=16).sample)


def test_the_result_shares_no_memory_with_the_file(published: Weights) -> None:
    single = {name: tensor.float() for name, tensor in published.items()}
    _, state_dict = convert_weights(single)
    pointers = {tensor.untyped_storage().data_ptr() for tensor in single.values()}
    assert not pointers & {tensor.untyped_storage().data_ptr() for tensor in state_dict.values()}


# The command


def test_command_end_to_end(checkpoint: Path, unet: FlexiUNet2DModel, tmp_path: Path) -> None:
    out = tmp_path / "models" / "celeba"
    command = [
        sys.executable,
        "-m",
        "ssd.publishing.published_checkpoints",
        str(checkpoint),
        "--levels",
        "2",
        "--out",
        str(out),
    ]
    done = subprocess.run(
        [*command, "--schedule", "equal", "--gamma", "2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert str(out) in done.stdout
    assert not [path for path in out.rglob("*") if path.suffix in (".bin", ".pt", ".tmp")]

    pipeline = SSDPipeline.from_pretrained(out)
    assert pipeline.scheduler.resolutions == [(32, 32), (16, 16)]
    assert pipeline.scheduler.config.resolution_schedule == "equal"
    assert pipeline.scheduler.config.resolution_gamma == 2
    for name, tensor in unet.state_dict().items():
        assert torch.equal(pipeline.unet.state_dict()[name], tensor), name
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(1, num_inference_steps=2, output_type="pt").images.shape == (1, 3, 32, 32)

    card = (out / "README.md").read_text()
    for text in (
        checkpoint.name,
        hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "300000",
        "32, 64, 64",
        "2 levels",
        "equal, gamma 2",
        f'from_pretrained("{out}")',
        "licence of their source",
    ):
        assert text in card, text


def test_command_on_a_bare_state_dict(published: Weights, tmp_path: Path) -> None:
    path, out = tmp_path / "bare.pt", tmp_path / "out"
    torch.save(published, path)
    out.mkdir()  # an empty folder is welcome
    main([str(path), "--levels", "3", "--out", str(out)])
    assert SSDPipeline.from_pretrained(out).scheduler.config.resolution_schedule == "convex_decay"
    assert "not in the file" in (out / "README.md").read_text()


def test_command_on_safetensors(tmp_path: Path) -> None:
    out = tmp_path / "out"
    main([str(GOLDEN / "flexi_unet_32_3l.safetensors"), "--levels", "1", "--out", str(out)])
    assert SSDPipeline.from_pretrained(out).scheduler.resolutions == [(32, 32)]


# Architectures other than the golden one


def published_shapes(
    image_size: int,
    widths: Sequence[int],
    layers: int = 1,
    attention: Sequence[int] = (),
    time_channels: int | None = None,
    classes: int = 0,
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published network, in the order of its modules."""
    base, emb = widths[0], 4 * (time_channels or widths[0])
    names: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int) -> None:
        names[f"{name}.weight"], names[f"{name}.bias"] = shape, shape[:1]

    def resnet(name: str, before: int, after: int) -> None:
        layer(f"{name}.in_layers.0", before)
        layer(f"{name}.in_layers.2", after, before, 3, 3)
        layer(f"{name}.emb_layers.1", 2 * after, emb)
        layer(f"{name}.out_layers.0", after)
        layer(f"{name}.out_layers.3", after, after, 3, 3)
        if before != after:
            layer(f"{name}.skip_connection", after, before, 1, 1)

    def attend(name: str, width: int) -> None:
        layer(f"{name}.norm", width)
        layer(f"{name}.qkv", 3 * width, width, 1)
        layer(f"{name}.proj_out", width, width, 1)

    layer("time_embed.0", emb, emb // 4)
    layer("time_embed.2", emb, emb)
    if classes:
        names["label_emb.weight"] = (classes, emb)
    layer("input_blocks.0.0", base, 3, 3, 3)
    number, width, skips = 0, base, [base]
    for stage, after in enumerate(widths):
        for _ in range(layers):
            number += 1
            resnet(f"input_blocks.{number}.0", width, after)
            width = after
            skips.append(width)
            if image_size >> stage in attention:
                attend(f"input_blocks.{number}.1", width)
        if stage < len(widths) - 1:
            number += 1
            layer(f"input_blocks.{number}.0.op", width, width, 3, 3)
            skips.append(width)
    resnet("middle_block.0", width, width)
    attend("middle_block.1", width)
    resnet("middle_block.2", width, width)
    number = -1
    for stage, after in reversed(list(enumerate(widths))):
        for _ in range(layers + 1):
            number += 1
            resnet(f"output_blocks.{number}.0", width + skips.pop(), after)
            width = after
            if image_size >> stage in attention:
                attend(f"output_blocks.{number}.1", width)
        if stage:
            layer(f"output_blocks.{number}.{2 if image_size >> stage in attention else 1}.conv", width, width, 3, 3)
    layer("out.0", base)
    layer("out.2", 3, base, 3, 3)
    for stage, (before, _) in enumerate(pairwise(widths), start=1):
        if before != base:
            layer(f"adapters_in.{image_size >> stage}", before, base, 1, 1)
    for stage in reversed(range(1, len(widths))):
        if widths[stage] != base:
            layer(f"adapters_out.{image_size >> stage}", base, widths[stage], 1, 1)
    return names


def without_memory(shapes: dict[str, tuple[int, ...]]) -> Weights:
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def test_the_generator_of_names_is_right(published: Weights) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in published.items()}
    assert published_shapes(32, (32, 64, 64), layers=2, attention=(16, 8)) == expected


@pytest.mark.parametrize(
    ("image_size", "multipliers"),
    [
        (32, (1, 2, 4)),
        (64, (1, 2, 3, 4)),
        (128, (1, 1, 2, 3, 4)),
        (256, (1, 1, 2, 2, 4, 4)),
        (512, (0.5, 1, 1, 2, 2, 4, 4)),
        (1024, (0.5, 0.5, 1, 1, 2, 2, 4, 4)),
    ],
)
def test_the_papers_architectures_are_recognized(image_size: int, multipliers: Sequence[float]) -> None:
    widths = tuple(int(128 * multiplier) for multiplier in multipliers)
    shapes = published_shapes(image_size, widths, layers=2, attention=(16, 8), time_channels=128, classes=1000)
    config = infer_config(without_memory(shapes))
    assert config["sample_size"] == image_size
    assert config["block_out_channels"] == widths
    assert config["layers_per_block"] == 2
    assert config["attention_resolutions"] == tuple(size for size in (16, 8) if size >= image_size >> len(widths) - 1)
    assert config["time_embed_channels"] == 128
    assert config["num_class_embeds"] == 1000


@pytest.mark.parametrize("attention", [(), (64,), (16, 8), (32,)])
def test_other_architectures_convert_whole(attention: tuple[int, ...]) -> None:
    """A narrow finest stage, classes, one residual block, attention at odd places: every weight finds its place."""
    shapes = published_shapes(64, (32, 64, 64, 96), 1, attention, time_channels=64, classes=10)
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    shared = {"adapters_in.8": "adapters_in.16", "adapters_out.16": "adapters_out.32"}  # both 64 channels wide
    for kind in ("weight", "bias"):
        weights |= {f"{copy}.{kind}": weights[f"{name}.{kind}"] for copy, name in shared.items()}
    unet = build_unet(*convert_weights(weights, num_attention_heads=2))
    assert unet.stage_sizes[0] == (64, 64)
    assert unet.config.attention_resolutions == attention
    dropped = ("output_blocks.7.", *(f"{copy}." for copy in shared))
    kept = sum(tensor.numel() for name, tensor in weights.items() if not name.startswith(dropped))
    assert unet.num_parameters() == kept
    with torch.no_grad():
        out = unet(torch.zeros(1, 3, 8, 8), 10, class_labels=torch.tensor([3]), output_size=16).sample
    assert out.shape == (1, 3, 16, 16)


def test_command_on_a_class_conditional_network(tmp_path: Path) -> None:
    path, out = tmp_path / "classes.pt", tmp_path / "out"
    shapes = published_shapes(16, (32, 64), classes=10)
    torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, path)
    main([str(path), "--levels", "2", "--out", str(out)])
    assert SSDPipeline.from_pretrained(out).unet.config.num_class_embeds == 10
    card = (out / "README.md").read_text()
    assert "class_labels=[0, 1, 2, 3]" in card
    assert "keep guidance_scale at 1" in card


def test_one_width_needs_the_resolution(fails: Callable[..., str]) -> None:
    weights = without_memory(published_shapes(16, (32, 32)))
    assert infer_config(weights, image_size=16)["sample_size"] == 16
    assert "--res" in fails(weights)


def test_a_resolution_that_contradicts_the_adapters(published: Weights, fails: Callable[..., str]) -> None:
    assert infer_config(published, image_size=32)["sample_size"] == 32
    message = fails(published, "--res", "64")
    assert "32" in message
    assert "64" in message


# Shared adapters


def averaged_weights(published: Weights) -> Weights:
    """As guided-diffusion saves an average: only the first name of the shared adapter receives it."""
    return published | {"adapters_out.8.bias": published["adapters_out.8.bias"] + 1}


def test_copies_of_a_shared_adapter_that_differ_are_refused(published: Weights, fails: Callable[..., str]) -> None:
    message = fails(averaged_weights(published))
    for text in ("adapters_out.8.bias", "adapters_out.16.bias", "--adapter_copies averaged"):
        assert text in message


@pytest.mark.parametrize(
    ("choice", "name"), [("averaged", "adapters_out.8.bias"), ("published", "adapters_out.16.bias")]
)
def test_the_choice_of_a_copy(published: Weights, choice: str, name: str) -> None:
    weights = averaged_weights(published)
    _, state_dict = convert_weights(weights, adapter_copies=choice)  # type: ignore[arg-type]
    assert torch.equal(state_dict["exit_adapters.64.bias"], weights[name].float())


def test_order_in_which_a_shared_module_is_saved_and_loaded(published: Weights) -> None:
    """What the two choices rest on: torch names a shared parameter by its first name, and loads its last one."""
    shared = torch.nn.Linear(1, 1)
    adapters = torch.nn.ModuleDict({"8": shared, "16": shared})  # the decoder's order: coarse to fine
    assert [name for name, _ in adapters.named_parameters()] == ["8.weight", "8.bias"]
    adapters.load_state_dict(
        {name: torch.full_like(p, int(name.split(".")[0])) for name, p in adapters.state_dict().items()}
    )
    assert shared.bias.item() == 16


# Errors


def test_missing_file(tmp_path: Path, fails: Callable[..., str]) -> None:
    assert "does not exist" in fails(tmp_path / "none.pt")
    assert "folder" in fails(tmp_path)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.9])
def test_truncated_file(checkpoint: Path, fails: Callable[..., str], keep: float) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(keep * len(content))])
    message = fails(checkpoint)
    assert "damaged" in message
    assert checkpoint.name in message


def test_truncated_safetensors(tmp_path: Path, fails: Callable[..., str]) -> None:
    path = tmp_path / "short.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-10])
    assert "damaged" in fails(path)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"hello", b"version https://git-lfs"])
def test_no_checkpoint_at_all(tmp_path: Path, fails: Callable[..., str], content: bytes) -> None:
    path = tmp_path / "page.pt"
    path.write_bytes(content)
    assert "no checkpoint" in fails(path)


class RunsCode:
    """A pickle of it creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_with_code_is_refused(tmp_path: Path, fails: Callable[..., str], new_format: bool) -> None:
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    content = {"model": {"a": torch.zeros(1)}, "step": RunsCode(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    message = fails(path)
    assert "could run code" in message
    assert "torch.save(" in message
    assert not trace.exists()
    torch.load(path, weights_only=False)  # the file does what the test says
    assert trace.exists()


@pytest.mark.parametrize("content", [[1, 2], {"model": 3}, {"state": {}, "param_groups": []}, torch.zeros(3)])
def test_content_that_is_no_state_dict(tmp_path: Path, fails: Callable[..., str], content: object) -> None:
    path = tmp_path / "other.pt"
    torch.save(content, path)
    assert "no state dict" in fails(path)


def test_another_network(fails: Callable[..., str]) -> None:
    message = fails({"conv1.weight": torch.zeros(3)})
    assert "guided-diffusion" in message
    assert "conv1.weight" in message


def test_plain_unet_without_adapters(published: Weights, fails: Callable[..., str]) -> None:
    message = fails({name: tensor for name, tensor in published.items() if not name.startswith("adapters")})
    assert "plain guided-diffusion U-Net" in message
    assert "no adapters" in message


def test_resblock_updown(published: Weights, fails: Callable[..., str]) -> None:
    assert "resblock_updown" in fails(published | {"output_blocks.2.2.in_layers.0.weight": torch.zeros(64)})


@pytest.mark.parametrize(
    "names",
    [
        ["time_embed.2.bias"],
        ["adapters_out.8.weight"],
        ["adapters_in.8.weight", "adapters_in.8.bias"],
        ["input_blocks.3.0.op.weight", "middle_block.1.qkv.bias", "out.2.bias"],
        ["time_embed.0.weight"],
    ],
)
def test_missing_tensors(published: Weights, fails: Callable[..., str], names: list[str]) -> None:
    message = fails({name: tensor for name, tensor in published.items() if name not in names})
    assert f"{len(names)} tensor" in message
    assert "missing" in message
    assert all(name in message for name in names)


def test_adapters_that_are_missing_and_leave_the_resolution_open(published: Weights, fails: Callable[..., str]) -> None:
    gone = ("adapters_in.8.weight", "adapters_out.16.weight")
    weights = {name: tensor for name, tensor in published.items() if name not in gone}
    assert "16 or 32" in fails(weights)
    message = fails(weights, "--res", "32")
    assert all(name in message for name in gone)


def test_a_missing_block_names_three_and_counts(published: Weights, fails: Callable[..., str]) -> None:
    message = fails({name: tensor for name, tensor in published.items() if not name.startswith("input_blocks.5.")})
    assert "16 tensors are missing (input_blocks.5.0" in message
    assert "and 13 more" in message


def test_unknown_tensors(published: Weights, fails: Callable[..., str]) -> None:
    message = fails(published | {f"extra.{i}": torch.zeros(1) for i in range(5)})
    assert "5 tensors are unknown (extra.0, extra.1, extra.2 and 2 more)" in message


def test_tensors_of_another_shape(published: Weights, fails: Callable[..., str]) -> None:
    message = fails(published | {"input_blocks.1.0.emb_layers.1.weight": torch.zeros(32, 128)})
    assert "(32, 128) and not (64, 128)" in message
    assert "of another shape" in fails(published | {"middle_block.1.qkv.weight": torch.zeros(100, 64, 1)})
    assert "dimensions" in fails(published | {"out.2.weight": torch.zeros(())})


def test_adapters_that_fit_no_resolution(published: Weights, fails: Callable[..., str]) -> None:
    renamed = {name.replace("adapters_in.8.", "adapters_in.16."): tensor for name, tensor in published.items()}
    assert "adapters_in.16" in fails(renamed)


@pytest.mark.parametrize("levels", ["4", "0", "-1"])
def test_levels_that_the_network_does_not_have(checkpoint: Path, fails: Callable[..., str], levels: str) -> None:
    assert "1 to 3 levels" in fails(checkpoint, "--levels", levels)


@pytest.mark.parametrize("heads", ["0", "5"])
def test_heads_that_do_not_fit(checkpoint: Path, fails: Callable[..., str], heads: str) -> None:
    assert "num_attention_heads" in fails(checkpoint, "--heads", heads)


def test_learned_variance(published: Weights, fails: Callable[..., str]) -> None:
    six = {"out.2.weight": torch.zeros(6, 32, 3, 3), "out.2.bias": torch.zeros(6)}
    assert "learn_sigma" in fails(published | six)


def test_gamma_must_be_positive(checkpoint: Path, fails: Callable[..., str]) -> None:
    assert "gamma must be positive" in fails(checkpoint, "--gamma", "0")


def test_out_that_is_not_empty(checkpoint: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    assert "not empty" in fails(checkpoint, out=full)
    assert "is a file" in fails(checkpoint, out=checkpoint)


def test_unknown_flags_and_values(checkpoint: Path, fails: Callable[..., str]) -> None:
    assert "Did you mean 'heads'" in fails(checkpoint, "--hedas", "4")
    assert "convex_decay" in fails(checkpoint, "--schedule", "linear")


def test_errors_as_a_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ssd.publishing.published_checkpoints", "none.pt", "--levels", "3", "--out", "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: none.pt does not exist.\n"
    assert not any(tmp_path.iterdir())


# Reading


def test_step_and_tensors_are_read(checkpoint: Path, published: Weights) -> None:
    weights, step = read_checkpoint(checkpoint)
    assert step == 300000
    assert weights.keys() == published.keys()
