"""SSDPipeline: sampling, reproducibility, saving and loading."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from torch.utils._python_dispatch import TorchDispatchMode

from flexi_unet import FlexiUNet2DModel
from ssd import SSDPipeline, SSDScheduler
from ssd.sampling.pictures import to_uint8
from ssd.seeding import torch_generator


def small_pipeline(**unet_settings) -> SSDPipeline:
    torch.manual_seed(0)
    unet = FlexiUNet2DModel(16, block_out_channels=(32, 64, 64), attention_resolutions=(8,), **unet_settings)
    for parameter in unet.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    pipeline = SSDPipeline(unet.eval(), SSDScheduler(sample_size=16, num_levels=3))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def pipeline() -> SSDPipeline:
    return small_pipeline()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_output_types(pipeline) -> None:
    results = {
        kind: pipeline(2, num_inference_steps=5, generator=seeded(), output_type=kind).images
        for kind in ("pil", "np", "pt", "latent")
    }
    assert results["pt"].shape == results["latent"].shape == (2, 3, 16, 16)
    assert results["np"].shape == (2, 16, 16, 3)
    assert results["pil"][0].size == (16, 16)
    np.testing.assert_allclose(results["np"], results["pt"].permute(0, 2, 3, 1).numpy())
    np.testing.assert_array_equal(np.array(results["pil"][1]), (results["np"][1] * 255).round().astype("uint8"))
    torch.testing.assert_close(results["pt"], (results["latent"] / 2 + 0.5).clamp(0, 1))
    assert isinstance(pipeline(1, num_inference_steps=3, return_dict=False), tuple)


def test_same_pixels_in_a_new_process(pipeline, tmp_path) -> None:
    here = pipeline(2, num_inference_steps=6, generator=seeded(3), output_type="np").images
    pipeline.save_pretrained(tmp_path)
    code = (
        "import sys, numpy as np, torch\n"
        "from ssd import SSDPipeline\n"
        "pipe = SSDPipeline.from_pretrained(sys.argv[1])\n"
        "images = pipe(2, num_inference_steps=6, generator=torch.Generator().manual_seed(3), output_type='np').images\n"
        "np.save(sys.argv[1] + '/images.npy', images)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), here)
    assert isinstance(DiffusionPipeline.from_pretrained(tmp_path), SSDPipeline)
    assert not list(tmp_path.rglob("*.bin")), "only safetensors is written"


def test_diffusers_finds_the_pipeline_after_import_ssd(pipeline, tmp_path) -> None:
    pipeline.save_pretrained(tmp_path)
    code = (
        "import sys, ssd\n"
        "assert 'ssd.pipeline_ssd' not in sys.modules, 'import ssd is meant to be cheap'\n"
        "from diffusers import DiffusionPipeline\n"
        "print(type(DiffusionPipeline.from_pretrained(sys.argv[1])).__name__)\n"
        "import diffusers\n"
        "assert not hasattr(diffusers, 'NoSuchPipeline') and not hasattr(ssd, 'nothing')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout == "SSDPipeline\n", done.stderr


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_an_image_does_not_depend_on_its_batch(pipeline, eta: float) -> None:
    def images(indices):
        generators = [torch_generator(7, "image", i) for i in indices]
        return pipeline(len(indices), num_inference_steps=8, eta=eta, generator=generators, output_type="pil").images

    together = images(range(7))
    for indices in ([3, 4], [5, 3, 0], [0, 1, 2, 3, 4]):
        np.testing.assert_array_equal(np.array(images(indices)[indices.index(3)]), np.array(together[3]))
    # A batch of one takes another convolution kernel: the same up to rounding (`ssd.sampling.many_images` avoids it).
    np.testing.assert_allclose(np.array(images([3])[0], dtype=float), np.array(together[3], dtype=float), atol=1)


def test_callback_sees_the_image_grow_and_may_change_it(pipeline) -> None:
    sizes, predictions = [], []

    def watch(pipe, index, timestep, tensors):
        sizes.append(tensors["latents"].shape[-1])
        predictions.append(tensors["pred_original_sample"].shape[-1])

    pipeline(
        1,
        num_inference_steps=12,
        callback_on_step_end=watch,
        callback_on_step_end_tensor_inputs=["latents", "pred_original_sample"],
    )
    assert sizes == predictions == sorted(sizes)
    assert set(sizes) == {4, 8, 16}
    assert pipeline.num_timesteps == len(sizes) == 12
    zero = pipeline(
        1,
        num_inference_steps=3,
        output_type="latent",
        callback_on_step_end=lambda pipe, i, t, tensors: {"latents": torch.zeros_like(tensors["latents"])},
    ).images
    assert zero.abs().max() == 0


def test_given_latents_replace_the_first_draw(pipeline) -> None:
    latents = torch.randn(1, 3, 4, 4, generator=seeded())
    a, b = (
        pipeline(1, num_inference_steps=5, latents=latents, generator=seeded(1), output_type="pt").images
        for _ in range(2)
    )
    assert torch.equal(a, b)


def test_guidance_is_the_linear_extrapolation() -> None:
    pipeline = small_pipeline(num_class_embeds=4)
    x, labels = torch.randn(2, 3, 8, 8), torch.tensor([0, 2])
    t = torch.tensor([600])
    conditional = pipeline._guided(x, t, (8, 8), labels, 1.0)
    unconditional = pipeline._guided(x, t, (8, 8), torch.tensor([3, 3]), 1.0)
    guided = pipeline._guided(x, t, (8, 8), labels, 2.5)
    torch.testing.assert_close(guided, unconditional + 2.5 * (conditional - unconditional))
    assert pipeline(2, num_inference_steps=3, class_labels=[0, 2], guidance_scale=2.0, output_type="pt").images.shape


def test_half_precision_network(pipeline) -> None:
    half = small_pipeline().to(torch.bfloat16)
    images = half(2, num_inference_steps=4, generator=seeded(), output_type="latent").images
    assert images.dtype == torch.float32  # the state keeps full precision
    expected = pipeline(2, num_inference_steps=4, generator=seeded(), output_type="latent").images
    assert (images - expected).abs().mean() < 0.1


@pytest.mark.parametrize("limit", [2, 3, (4, 5, 9), (2, 100, 100)])
@pytest.mark.parametrize("guided", [False, True])
def test_groups_of_coarse_and_fine_levels_change_no_image(limit, guided: bool) -> None:
    pipeline = small_pipeline(num_class_embeds=4 if guided else None)
    arguments = {"class_labels": [0, 1, 2, 0, 1, 2, 1, 0, 2, 1], "guidance_scale": 2.0} if guided else {}
    calls = []
    pipeline.unet.register_forward_pre_hook(lambda module, inputs: calls.append((len(inputs[0]), inputs[2])))

    def images(**options) -> torch.Tensor:
        generators = [torch_generator(1, "image", i) for i in range(10)]
        return pipeline(
            10, num_inference_steps=6, generator=generators, output_type="latent", **arguments, **options
        ).images

    whole = images()
    assert {count for count, _ in calls} == {10}
    calls.clear()
    grouped = images(max_batch_size_per_level=limit)
    if guided:  # the products of class embeddings round by the number of their rows, and the chain amplifies it
        assert np.abs(to_uint8(grouped).astype(int) - to_uint8(whole)).max() <= 1
    else:
        assert torch.equal(grouped, whole)
    allowed = dict(
        zip([(16, 16), (8, 8), (4, 4)], limit if isinstance(limit, tuple) else (limit, 4 * limit, 16 * limit))
    )
    assert all(count <= allowed[size] for count, size in calls)
    assert {size: max(count for count, s in calls if s == size) for size in allowed} == {
        size: -(-10 // -(-10 // limit)) for size, limit in allowed.items()
    }


def test_one_call_in_groups_equals_one_call() -> None:
    pipeline = small_pipeline(num_class_embeds=4)
    x, t, labels = torch.randn(10, 3, 8, 8), torch.tensor([600]), torch.arange(10) % 3
    whole, grouped = (pipeline._predict(x, t, (16, 16), labels, 2.0, limit) for limit in (10, 3))
    torch.testing.assert_close(grouped, whole, rtol=0, atol=1e-5)


def test_images_may_enter_a_differentiable_computation(pipeline) -> None:
    images = pipeline(2, num_inference_steps=3, output_type="pt").images
    scale = torch.ones((), requires_grad=True)
    (images * scale).sum().backward()
    assert scale.grad == images.sum()


def test_a_step_within_a_level_never_waits_for_the_device() -> None:
    class Transfers(TorchDispatchMode):
        found = ()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            devices = {tensor.device for tensor in (*args, result) if isinstance(tensor, torch.Tensor)}
            if func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_) and len(devices) > 1:
                self.found += (func,)
            return result

    scheduler = SSDScheduler(sample_size=16, num_levels=3)
    scheduler.set_timesteps(20)
    # The meta device computes nothing, and refuses to hand a number back to the program.
    for t in scheduler.timesteps.tolist():
        x_t, x_0 = (
            torch.zeros(2, 3, *scheduler.size_at(i), device="meta") for i in (t, scheduler.previous_timestep(t))
        )
        for eta in (0.0, 1.0):
            with Transfers() as transfers:
                scheduler.step(x_0, t, x_t, eta=eta)
            assert bool(transfers.found) == (t in scheduler.process.resolution.level_changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_batch_size_per_level": [4, 4]}, r"or 3, one per level, got \[4, 4\]"),
        ({"max_batch_size_per_level": 0}, "one positive number"),
        ({"batch_size": 0}, "at least 1"),
        ({"output_type": "jpeg"}, "one of pil, np, pt, latent"),
        ({"batch_size": 2, "generator": [torch.Generator()]}, "1 generators for 2 images"),
        ({"latents": torch.zeros(1, 3, 8, 8)}, r"\(1, 3, 4, 4\), got \(1, 3, 8, 8\)"),
        ({"class_labels": [1]}, "unconditional"),
        ({"guidance_scale": 2.0}, "class-conditional model"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "may hold latents, pred_original_sample"),
        ({"num_inference_steps": 2}, r"in 3\.\.1000"),
    ],
)
def test_wrong_arguments_are_explained(pipeline, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(**({"num_inference_steps": 5} | arguments))


def test_class_labels_are_checked() -> None:
    pipeline = small_pipeline(num_class_embeds=4)
    with pytest.raises(ValueError, match=r"give 2 class_labels, integers in 0\.\.3"):
        pipeline(2, num_inference_steps=3)
    with pytest.raises(ValueError, match=r"2 integers in 0\.\.3, got \[0, 4\]"):
        pipeline(2, num_inference_steps=3, class_labels=[0, 4])


def test_components_must_fit() -> None:
    unet = FlexiUNet2DModel(sample_size=16, block_out_channels=(32, 32))
    with pytest.raises(TypeError, match="needs an SSDScheduler, got DDPMScheduler"):
        SSDPipeline(unet, DDPMScheduler())
    with pytest.raises(ValueError, match="finest stages"):
        SSDPipeline(unet, SSDScheduler(sample_size=32, num_levels=2))
    with pytest.raises(ValueError, match="finest stages"):
        SSDPipeline(unet, SSDScheduler(sample_size=16, num_levels=3))
