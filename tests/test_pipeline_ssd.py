"""SSDPipeline: sampling, reproducibility, components, saving and loading."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

from flexi_unet import FlexiUNet2DModel
from ssd import SSDPipeline, SSDScheduler
from ssd.pipelines.samplers import SAMPLERS, with_sampler
from ssd.seeding import torch_generator

from .numerics import network_rounding, plain_attention, relative_error

MOMENTS = {"mean": [0.3, 0.2, -0.1], "variances": [0.4, 0.3, 0.25]}


def small_pipeline(prediction_type: str = "sample", **unet_settings) -> SSDPipeline:
    torch.manual_seed(0)
    settings = {"sample_size": 16, "block_out_channels": (32, 64, 64), "attention_resolutions": (8,)} | unet_settings
    unet = FlexiUNet2DModel(**settings)
    for parameter in unet.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    scheduler = SSDScheduler(sample_size=16, num_levels=3, prediction_type=prediction_type, data_moments=MOMENTS)
    pipeline = SSDPipeline(unet.eval(), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module", params=["sample", "preconditioned"])
def pipeline(request) -> SSDPipeline:
    return small_pipeline(request.param)


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
    np.testing.assert_array_equal(results["np"], results["pt"].permute(0, 2, 3, 1).numpy())
    np.testing.assert_array_equal(np.array(results["pil"][1]), (results["np"][1] * 255).round().astype("uint8"))
    assert torch.equal(results["pt"], (results["latent"] / 2 + 0.5).clamp(0, 1))
    assert isinstance(pipeline(1, num_inference_steps=3, return_dict=False), tuple)


def test_same_pixels_in_a_new_process_that_leaves_diffusers_alone(pipeline, tmp_path) -> None:
    here = pipeline(2, num_inference_steps=6, generator=seeded(3), output_type="np").images
    pipeline.save_pretrained(tmp_path)
    code = (
        "import sys, ssd\n"
        "assert not {'torch', 'diffusers'} & set(sys.modules), 'import ssd is meant to be cheap'\n"
        "assert not hasattr(ssd, 'nothing')\n"
        "import numpy as np, torch\n"
        "from ssd import SSDPipeline\n"
        "pipe = SSDPipeline.from_pretrained(sys.argv[1])\n"
        "images = pipe(2, num_inference_steps=6, generator=torch.Generator().manual_seed(3), output_type='np').images\n"
        "np.save(sys.argv[1] + '/images.npy', images)\n"
        "import diffusers\n"
        "assert not hasattr(diffusers, 'SSDPipeline')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), here)
    assert not list(tmp_path.rglob("*.bin")), "only safetensors is written"


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_an_image_does_not_depend_on_its_batch(pipeline, eta: float) -> None:
    def images(indices) -> torch.Tensor:
        generators = [torch_generator(7, "image", i) for i in indices]
        return pipeline(len(indices), num_inference_steps=8, eta=eta, generator=generators, output_type="latent").images

    together = images(range(7))
    for indices in ([3, 4], [5, 3, 0], [0, 1, 2, 3, 4], [3]):
        found = images(indices)[indices.index(3)]
        assert relative_error(found, together[3]) < 8 * network_rounding(pipeline.unet)  # eight calls
        assert relative_error(found, together[2]) > 0.1


def test_callback_sees_the_image_grow_and_may_change_it(pipeline) -> None:
    sizes, predictions = [], []

    def watch(pipe, index, timestep, tensors) -> None:
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
    assert len(sizes) == 12
    zero = pipeline(
        1,
        num_inference_steps=3,
        output_type="latent",
        callback_on_step_end=lambda pipe, i, t, tensors: {"latents": torch.zeros_like(tensors["latents"])},
    ).images
    assert zero.abs().max() == 0


def test_number_of_timesteps_is_that_of_the_last_call() -> None:
    pipeline = small_pipeline()
    assert pipeline.num_timesteps is None
    pipeline(1, num_inference_steps=4)
    assert pipeline.num_timesteps == 4


@pytest.mark.parametrize("last", [1, 6])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_interrupted_chain_returns_its_state_and_can_be_continued(pipeline, sampler: str, last: int) -> None:
    """Exactly with first order; second order has forgotten the predictions, and goes on with a first-order step."""
    pipeline.scheduler = with_sampler(pipeline.scheduler, sampler)
    states = []

    def stop(pipe, index, timestep, tensors) -> None:
        assert not pipe.interrupt
        states.append(tensors["latents"])
        pipe._interrupt = index == last

    whole = pipeline(2, num_inference_steps=20, generator=seeded(), output_type="latent").images
    chain, generator = pipeline.scheduler.timesteps.tolist(), seeded()
    state = pipeline(
        2, num_inference_steps=20, generator=generator, output_type="latent", callback_on_step_end=stop
    ).images
    assert pipeline.interrupt
    assert len(states) == last + 1
    assert torch.equal(state, states[-1])
    assert state.shape[-2:] == pipeline.scheduler.size_at(chain[last + 1])
    assert state.shape[-1] < 16
    rest = pipeline(2, timesteps=chain[last + 1 :], latents=state, generator=generator, output_type="latent").images
    assert not pipeline.interrupt
    assert torch.equal(rest, whole) == (sampler == "paper")
    assert bool(torch.isfinite(rest).all())


def test_given_latents_replace_the_first_draw(pipeline) -> None:
    latents = torch.randn(1, 3, 4, 4, generator=seeded())
    a, b, c = (
        pipeline(1, num_inference_steps=5, latents=start, generator=seeded(1), output_type="pt").images
        for start in (latents, latents, -latents)
    )
    assert torch.equal(a, b)
    assert relative_error(a, c) > 0.01


def test_generators_in_a_tuple_are_those_of_a_list(pipeline) -> None:
    one, other = (
        pipeline(2, num_inference_steps=4, generator=kind([seeded(1), seeded(2)]), output_type="latent").images
        for kind in (list, tuple)
    )
    assert torch.equal(one, other)


def test_half_precision_network(pipeline) -> None:
    half = small_pipeline(pipeline.scheduler.config.prediction_type).to(torch.bfloat16)
    for each in (pipeline, half):  # an untrained network magnifies what second order extrapolates
        each.scheduler = with_sampler(each.scheduler, "paper")
    with plain_attention():
        images = half(2, num_inference_steps=4, generator=seeded(), output_type="latent").images
    assert images.dtype == torch.float32  # the state keeps full precision
    expected = pipeline(2, num_inference_steps=4, generator=seeded(), output_type="latent").images
    assert relative_error(images, expected) < 4 * network_rounding(pipeline.unet, torch.bfloat16)  # four calls


def test_second_order_keeps_full_precision_whatever_the_network_gives() -> None:
    """Predictions in bfloat16 make the states that the same numbers in float32 make."""
    states = []
    for dtype in (torch.bfloat16, torch.float32):
        scheduler = with_sampler(small_pipeline().scheduler, "second_order")
        scheduler.set_timesteps(9)
        generator, x = seeded(), torch.randn(2, 3, 4, 4, generator=seeded(1))
        for t in scheduler.timesteps.tolist():
            output = torch.randn(2, 3, *scheduler.prediction_size(t), generator=seeded(t)).bfloat16().to(dtype)
            x = scheduler.step(output, t, x, generator=generator).prev_sample
            assert x.dtype == torch.float32
        states.append(x)
    assert torch.equal(*states)


@pytest.mark.parametrize("limit", [2, 3, (4, 5, 9), (2, 100, 100)])
@pytest.mark.parametrize("guided", [False, True])
def test_groups_of_coarse_and_fine_levels_change_no_image(limit, guided: bool) -> None:
    pipeline = small_pipeline(num_class_embeds=4 if guided else None)
    arguments = {"class_labels": [0, 1, 2, 0, 1, 2, 1, 0, 2, 1], "guidance_scale": 2.0} if guided else {}
    calls = []
    pipeline.unet.register_forward_hook(lambda module, inputs, output: calls.append(tuple(output[0].shape)))

    def images(**options) -> torch.Tensor:
        generators = [torch_generator(1, "image", i) for i in range(10)]
        return pipeline(
            10, num_inference_steps=6, generator=generators, output_type="latent", **arguments, **options
        ).images

    whole = images()
    assert {shape[0] for shape in calls} == {10}
    calls.clear()
    grouped = images(max_batch_size_per_level=limit)
    # Six steps; guidance adds the errors of two calls with the weights 2 and 1.
    assert relative_error(grouped, whole) < 6 * (3 if guided else 1) * network_rounding(pipeline.unet)
    allowed = dict(
        zip([(16, 16), (8, 8), (4, 4)], limit if isinstance(limit, tuple) else (limit, 4 * limit, 16 * limit))
    )
    assert {size: max(shape[0] for shape in calls if shape[2:] == size) for size in allowed} == {
        size: -(-10 // -(-10 // limit)) for size, limit in allowed.items()
    }


def test_images_may_enter_a_differentiable_computation(pipeline) -> None:
    images = pipeline(2, num_inference_steps=3, output_type="pt").images
    scale = torch.ones((), requires_grad=True)
    (images * scale).sum().backward()
    torch.testing.assert_close(scale.grad, images.sum())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_batch_size_per_level": [4, 4]}, r"or 3, one per level, got \[4, 4\]"),
        ({"max_batch_size_per_level": 0}, "one positive number"),
        ({"batch_size": 0}, "at least 1"),
        ({"output_type": "jpeg"}, "one of pil, np, pt, latent"),
        ({"batch_size": 2, "generator": [torch.Generator()]}, "1 generators for 2 images"),
        ({"batch_size": 2, "generator": (torch.Generator(),)}, "1 generators for 2 images"),
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


def test_all_but_the_batch_size_is_given_by_name(pipeline) -> None:
    with pytest.raises(TypeError, match="positional arguments"):
        pipeline(1, seeded())


def test_a_foreign_scheduler_is_refused_at_the_call() -> None:
    pipeline = small_pipeline()
    ours = pipeline.scheduler
    pipeline.scheduler = DDIMScheduler.from_config(ours.config)
    with pytest.raises(TypeError, match=r"needs an SSDScheduler, got DDIMScheduler.*call the pipeline with eta=0"):
        pipeline(1, num_inference_steps=3)
    pipeline.scheduler = SSDScheduler(sample_size=32, num_levels=3)
    with pytest.raises(ValueError, match=r"images are 32 x 32 and the network's 16 x 16.*sample_size=\(16, 16\)"):
        pipeline(1, num_inference_steps=3)
    pipeline.scheduler = SSDScheduler(sample_size=16, num_levels=2)
    assert pipeline(1, num_inference_steps=3, output_type="pt").images.shape == (1, 3, 16, 16)


def plain_unet(**settings) -> UNet2DModel:
    """diffusers' network, which has no `output_size`."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    sizes = {"sample_size": 8, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    return UNet2DModel(**blocks, **(sizes | {"attention_head_dim": 4} | settings)).eval()


@pytest.mark.parametrize(
    "settings", [{}, {"in_channels": 1, "out_channels": 1}, {"num_class_embeds": 3}, {"sample_size": None}]
)
def test_unet_of_diffusers_with_one_level(settings: dict, tmp_path) -> None:
    pipeline = SSDPipeline(plain_unet(**settings), SSDScheduler(sample_size=8, num_levels=1))
    labels = {"class_labels": [0, 1], "guidance_scale": 2.0} if "num_class_embeds" in settings else {}

    def images(pipe: SSDPipeline) -> torch.Tensor:
        pipe.set_progress_bar_config(disable=True)
        return pipe(2, num_inference_steps=4, generator=seeded(), output_type="pt", **labels).images

    expected = images(pipeline)
    assert expected.shape == (2, settings.get("in_channels", 3), 8, 8)
    assert len(pipeline(2, num_inference_steps=2, **labels).images) == 2
    pipeline.save_pretrained(tmp_path)
    again = SSDPipeline.from_pretrained(tmp_path)
    assert isinstance(again.unet, UNet2DModel)
    assert relative_error(images(again), expected) < 4 * 3 * network_rounding(pipeline.unet)


def test_components_must_fit() -> None:
    unet = FlexiUNet2DModel(sample_size=16, block_out_channels=(32, 32))
    with pytest.raises(TypeError, match="needs an SSDScheduler, got DDPMScheduler"):
        SSDPipeline(unet, DDPMScheduler())
    with pytest.raises(ValueError, match=r"images are 32 x 32 and the network's 16 x 16"):
        SSDPipeline(unet, SSDScheduler(sample_size=32, num_levels=2))
    with pytest.raises(ValueError, match=r"UNet2DModel cannot enlarge an image.*has 2 levels.*num_levels=1"):
        SSDPipeline(plain_unet(), SSDScheduler(sample_size=8, num_levels=2))
    with pytest.raises(ValueError, match=r"images are 16 x 16 and the network's 8 x 8"):
        SSDPipeline(plain_unet(), SSDScheduler(sample_size=16, num_levels=1))
    with pytest.raises(ValueError, match="predicts 6 channels for images of 3"):
        SSDPipeline(plain_unet(out_channels=6), SSDScheduler(sample_size=8, num_levels=1))
