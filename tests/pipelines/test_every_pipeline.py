"""What holds for every pipeline: files, seeds, batches, classes, guidance, half precision, what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from PIL import Image

import ssd
from ssd import (
    BlurringScheduler,
    SSDImageToImagePipeline,
    SSDInpaintPipeline,
    SSDPipeline,
    SSDScheduler,
    SSDSuperResolutionPipeline,
)
from ssd.pipelines.denoising import guided_steps
from ssd.pipelines.denoising_pipeline import DenoisingPipeline
from ssd.publishing.saving import load_pipeline, save_pipeline
from ssd.seeding import torch_generator

from ..numerics import network_rounding, plain_attention, relative_error
from ..test_pipeline_ssd import small_pipeline

TINY = {"block_out_channels": (16, 16, 16), "layers_per_block": 1, "norm_num_groups": 4, "attention_resolutions": ()}

STEPS = 9
NAMES = {0: "cat", 1: "dog", 2: "owl"}


def pictures(number: int, side: int = 16) -> torch.Tensor:
    """(number, 3, side, side) in [0, 1]; picture i is the same whatever the number."""
    rows = [torch.rand(3, side, side, generator=torch.Generator().manual_seed(i)) for i in range(number)]
    return torch.stack(rows)


def mask(side: int = 16) -> torch.Tensor:
    """(1, 1, side, side), white in the middle."""
    white = torch.zeros(1, 1, side, side)
    white[..., side // 4 : -side // 4, side // 4 : -side // 4] = 1
    return white


@dataclass(frozen=True)
class Case:
    """A pipeline, and how it is called with the first B of the test's pictures."""

    pipeline: type[DenoisingPipeline]
    inputs: Callable[[int], dict]

    def images(self, pipe: DenoisingPipeline, indices, **options) -> torch.Tensor:
        """Images of these numbers, float32 in about [-1, 1]."""
        inputs = self.inputs(max(indices) + 1)
        chosen = {k: v[list(indices)] if isinstance(v, torch.Tensor) and k == "image" else v for k, v in inputs.items()}
        if "batch_size" in chosen:
            chosen["batch_size"] = len(indices)
        generators = [torch_generator(7, "image", i) for i in indices]
        defaults = {"num_inference_steps": STEPS, "generator": generators, "output_type": "latent"}
        return pipe(**chosen, **(defaults | options)).images


CASES = {
    "noise": Case(SSDPipeline, lambda n: {"batch_size": n}),
    "grow": Case(SSDSuperResolutionPipeline, lambda n: {"image": pictures(n, 8)}),
    "grow_loosely": Case(SSDSuperResolutionPipeline, lambda n: {"image": pictures(n, 4), "consistency": False}),
    "redraw": Case(SSDImageToImagePipeline, lambda n: {"image": pictures(n), "level": 1}),
    "strength": Case(SSDImageToImagePipeline, lambda n: {"image": pictures(n), "strength": 0.7}),
    "inpaint": Case(SSDInpaintPipeline, lambda n: {"image": pictures(n), "mask_image": mask()}),
    "resampled": Case(
        SSDInpaintPipeline, lambda n: {"image": pictures(n), "mask_image": mask(), "resampling_steps": 2}
    ),
}


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


def made(case: Case, **settings) -> DenoisingPipeline:
    pipe = case.pipeline.from_pipe(small_pipeline(**(TINY | settings)))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_it_is_exported(case: Case) -> None:
    assert getattr(ssd, case.pipeline.__name__) is case.pipeline
    assert case.pipeline.__name__ in ssd.__all__


def test_files_of_any_pipeline_load_as_this_one(case: Case, tmp_path) -> None:
    pipe = made(case)
    expected = case.images(pipe, range(2))
    small_pipeline(**TINY).save_pretrained(tmp_path / "sampler")
    save_pipeline(pipe, tmp_path / "own")
    for folder in ("sampler", "own"):
        again = case.pipeline.from_pretrained(tmp_path / folder)
        again.set_progress_bar_config(disable=True)
        assert type(again) is case.pipeline
        assert torch.equal(case.images(again, range(2)), expected)
    assert isinstance(load_pipeline(str(tmp_path / "own"), "cpu"), SSDPipeline)


def test_from_pipe_shares_the_parts_and_keeps_their_dtype(case: Case) -> None:
    whole = small_pipeline(**TINY).to(torch.bfloat16)
    pipe = case.pipeline.from_pipe(whole)
    assert pipe.unet is whole.unet
    assert pipe.dtype == torch.bfloat16
    other = SSDScheduler(sample_size=16, num_levels=2)
    assert case.pipeline.from_pipe(whole, scheduler=other).scheduler is other


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_an_image_depends_on_its_own_seed_alone(case: Case, eta: float) -> None:
    pipe = made(case)
    together = case.images(pipe, range(5), eta=eta)
    assert torch.equal(case.images(pipe, range(5), eta=eta), together)
    calls = STEPS * (2 if case is CASES["resampled"] else 1)
    for indices in ([3, 4], [4, 3, 0], [3]):
        found = case.images(pipe, indices, eta=eta)[indices.index(3)]
        assert relative_error(found, together[3]) < calls * network_rounding(pipe.unet)
        assert relative_error(found, together[2]) > 0.05
    grouped = case.images(pipe, range(5), eta=eta, max_batch_size_per_level=2)
    assert relative_error(grouped, together) < calls * network_rounding(pipe.unet)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "preconditioned"])
def test_every_prediction_type(case: Case, prediction_type: str) -> None:
    images = case.images(made(case, prediction_type=prediction_type), range(2))
    assert images.shape == (2, 3, 16, 16)
    assert bool(images.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(case: Case, dtype: torch.dtype) -> None:
    """The state stays in float32; with first order, since an untrained network magnifies what second extrapolates."""
    settings = {"solver_order": 1, "timestep_spacing": "linspace"}
    results = []
    for kind in (torch.float32, dtype):
        pipe = made(case).to(kind)
        pipe.scheduler = SSDScheduler.from_config(pipe.scheduler.config, **settings)
        with plain_attention():
            results.append(case.images(pipe, range(2), num_inference_steps=4))
    assert results[1].dtype == torch.float32
    calls = 4 * (2 if case is CASES["resampled"] else 1)
    assert relative_error(results[1], results[0]) < calls * network_rounding(made(case).unet, dtype)


def test_classes_by_number_and_by_name(case: Case) -> None:
    pipe = made(case, num_class_embeds=4, id2label=NAMES)
    assert pipe.class_names == ["cat", "dog", "owl"]
    expected = case.images(pipe, range(2), class_labels=[2, 0])
    for labels in (["owl", "cat"], ["owl", 0], torch.tensor([2, 0])):
        assert torch.equal(case.images(pipe, range(2), class_labels=labels), expected)
    assert relative_error(case.images(pipe, range(2), class_labels="cat"), expected) > 1e-4
    assert torch.equal(
        case.images(pipe, range(2), class_labels="cat"), case.images(pipe, range(2), class_labels=["cat", "cat"])
    )
    with pytest.raises(ValueError, match=r"^This model has no class 'catt'; of its 3 classes the nearest are 'cat'.$"):
        case.images(pipe, range(2), class_labels="catt")
    with pytest.raises(ValueError, match=r"give class_labels, 2 integers in 0\.\.3"):
        case.images(pipe, range(2))
    with pytest.raises(ValueError, match="no names of classes, got 'cat': give their numbers"):
        case.images(made(case, num_class_embeds=4), range(2), class_labels="cat")


def test_guidance_in_a_part_of_the_chain(case: Case) -> None:
    pipe = made(case, num_class_embeds=4)
    calls = []
    pipe.unet.register_forward_pre_hook(lambda module, inputs: calls.append(int(inputs[1])))

    def counted(**options) -> tuple[torch.Tensor, dict[int, int]]:
        calls.clear()
        images = case.images(pipe, range(2), class_labels=[0, 2], **options)
        return images, {t: calls.count(t) for t in calls}

    plain, once = counted()
    guided, twice = counted(guidance_scale=3.0)
    assert pipe.guidance_scale == 3.0
    assert twice == {t: 2 * number for t, number in once.items()}
    assert relative_error(guided, plain) > 1e-4
    chain = pipe.scheduler.timesteps.tolist()
    some, part = counted(guidance_scale=3.0, guidance_start=0.4, guidance_end=0.8)
    allowed = {t for t, on in zip(chain, guided_steps(STEPS, 0.4, 0.8)) if on}
    assert {t for t in part if part[t] > once[t]} == allowed & set(once)
    assert relative_error(some, guided) > 1e-5
    assert torch.equal(counted(guidance_scale=3.0, guidance_end=0.0)[0], plain)

    def off(pipeline, index, t, tensors) -> None:
        pipeline._guidance_scale = 1.0

    until, changed = counted(guidance_scale=3.0, callback_on_step_end=off)
    assert [t for t in changed if changed[t] > once[t]] == list(once)[:1]
    assert bool(until.isfinite().all())
    with pytest.raises(ValueError, match=r"0 <= start <= end <= 1, got 0\.8 and 0\.4"):
        counted(guidance_start=0.8, guidance_end=0.4)


@pytest.mark.parametrize("embeddings", [None, 4])
def test_a_weaker_network_guides(case: Case, embeddings: int | None) -> None:
    pipe = made(case, num_class_embeds=embeddings)
    guide = small_pipeline(**(TINY | {"block_out_channels": (8, 8), "num_class_embeds": embeddings})).unet
    classes = {} if embeddings is None else {"class_labels": [0, 2, 1]}
    plain = case.images(pipe, range(3), **classes)
    options = classes | {"guide": guide, "guidance_scale": 2.0}
    guided = case.images(pipe, range(3), **options)
    assert relative_error(guided, plain) > 1e-4
    assert torch.equal(case.images(pipe, range(3), **(options | {"guide": pipe.unet})), plain)
    assert torch.equal(case.images(pipe, range(3), **options, guidance_end=0.0), plain)
    assert torch.equal(case.images(pipe, range(3), **(options | {"guidance_scale": 1.0})), plain)
    # Guidance adds the errors of two calls with the weights 2 and 1.
    calls = 3 * STEPS * (2 if case is CASES["resampled"] else 1)
    grouped = case.images(pipe, range(3), **options, max_batch_size_per_level=2)
    assert relative_error(grouped, guided) < calls * network_rounding(pipe.unet)
    other = small_pipeline(**(TINY | {"in_channels": 1, "out_channels": 1, "num_class_embeds": embeddings})).unet
    with pytest.raises(ValueError, match=r"its in_channels is 1 and the network's 3: use an earlier checkpoint"):
        case.images(pipe, range(3), **(options | {"guide": other}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_guide_in_half_precision(case: Case, dtype: torch.dtype) -> None:
    """The two predictions are put together in float32."""
    pipe = made(case).to(dtype)
    pipe.scheduler = SSDScheduler.from_config(pipe.scheduler.config, solver_order=1, timestep_spacing="linspace")
    guide = small_pipeline(**(TINY | {"block_out_channels": (8, 8)})).unet
    results = []
    for kind in (torch.float32, dtype):
        with plain_attention():
            options = {"guide": guide.to(kind), "guidance_scale": 1.5, "num_inference_steps": 4}
            results.append(case.images(pipe.to(kind), range(2), **options))
    assert results[1].dtype == torch.float32
    calls = 2 * 4 * (2 if case is CASES["resampled"] else 1)
    assert relative_error(results[1], results[0]) < calls * network_rounding(pipe.unet, dtype)


def test_callbacks_stop_the_chain_and_count_its_own_steps(case: Case) -> None:
    pipe, seen = made(case), []

    def stop(pipeline, index, timestep, tensors) -> None:
        seen.append((index, timestep))
        pipeline._interrupt = index == 1

    state = case.images(pipe, range(2), callback_on_step_end=stop)
    chain = pipe.scheduler.timesteps.tolist()
    used = chain[-pipe.num_timesteps :]
    assert seen == list(enumerate(used[:2]))
    assert state.shape[-2:] == pipe.scheduler.size_at(used[2])
    assert case.images(pipe, range(2)).shape == (2, 3, 16, 16)
    assert not pipe.interrupt
    assert pipe.first_fault() is None


class Halving(PipelineCallback):
    """A callback as diffusers has them: from the cutoff on, states are halved."""

    tensor_inputs = ["latents", "pred_original_sample"]  # noqa: RUF012 (as diffusers' own)

    def callback_fn(self, pipeline, step_index, timesteps, callback_kwargs) -> dict:
        assert set(callback_kwargs) == set(self.tensor_inputs)
        if step_index >= int(pipeline.num_timesteps * self.config.cutoff_step_ratio):
            callback_kwargs["latents"] = callback_kwargs["latents"] / 2
        return callback_kwargs


def test_callbacks_of_diffusers(case: Case) -> None:
    pipe = made(case)
    plain, last = case.images(pipe, range(2)), 1 - 0.5 / pipe.num_timesteps
    halved = case.images(pipe, range(2), callback_on_step_end=Halving(cutoff_step_ratio=last))
    assert torch.equal(halved, plain / 2)
    both = MultiPipelineCallbacks([Halving(cutoff_step_ratio=last), Halving(cutoff_step_ratio=last)])
    assert torch.equal(case.images(pipe, range(2), callback_on_step_end=both), plain / 4)

    class Other(Halving):
        tensor_inputs = ["prompt_embeds"]  # noqa: RUF012

    with pytest.raises(ValueError, match="may hold latents, pred_original_sample, got"):
        case.images(pipe, range(2), callback_on_step_end=Other())


def test_faults_name_the_timestep(case: Case) -> None:
    pipe = made(case)
    with torch.no_grad():
        pipe.unet.conv_out.bias[1] = float("inf")
    case.images(pipe, range(2))
    assert pipe.first_fault() == (0, pipe.scheduler.timesteps.tolist()[-pipe.num_timesteps])


def test_output_types(case: Case) -> None:
    pipe = made(case)
    kinds = {kind: case.images(pipe, range(2), output_type=kind) for kind in ("latent", "pt", "np", "pil")}
    assert torch.equal(kinds["pt"], (kinds["latent"] / 2 + 0.5).clamp(0, 1))
    np.testing.assert_array_equal(np.asarray(kinds["pil"][1]), (kinds["np"][1] * 255).round().astype("uint8"))
    generators = [torch_generator(7, "image", i) for i in range(2)]
    inputs = case.inputs(2) | {"num_inference_steps": STEPS, "generator": generators, "output_type": "latent"}
    assert torch.equal(pipe(**inputs, return_dict=False)[0], kinds["latent"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_type": "jpeg"}, "one of pil, np, pt, latent"),
        ({"generator": [torch.Generator()] * 3}, "3 generators for 2 images"),
        ({"class_labels": [1, 2]}, "unconditional"),
        ({"guidance_scale": 2.0}, "class-conditional model"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "may hold latents, pred_original_sample"),
        ({"num_inference_steps": 2}, r"in 3\.\.1000"),
        ({"eta": 2.0}, r"eta must be in \[0, 1\]"),
    ],
)
def test_wrong_arguments_are_explained(case: Case, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        case.images(made(case), range(2), **options)


def test_unknown_arguments_are_refused(case: Case) -> None:
    with pytest.raises(TypeError, match="guidance"):
        case.images(made(case), range(2), guidance=2.0)


def test_foreign_schedulers_are_refused(case: Case) -> None:
    pipe = made(case)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(TypeError, match="needs an SSDScheduler"):
        case.images(pipe, range(2))
    if case.pipeline is not SSDPipeline:
        pipe.scheduler = BlurringScheduler(sample_size=16)
        with pytest.raises(TypeError, match="got BlurringScheduler"):
            case.images(pipe, range(2))


GIVEN = [name for name in CASES if name != "noise"]


@pytest.mark.parametrize("name", GIVEN)
def test_a_single_picture_has_as_many_results_as_are_asked_for(name: str) -> None:
    case = CASES[name]
    pipe = made(case)
    one = {k: v[:1] if k == "image" else v for k, v in case.inputs(1).items()}
    generators = [torch_generator(0, "image", i) for i in range(3)]
    images = pipe(**one, batch_size=3, num_inference_steps=STEPS, generator=generators, output_type="latent").images
    assert images.shape == (3, 3, 16, 16)
    assert relative_error(images[0], images[1]) > 1e-4
    with pytest.raises(ValueError, match="batch_size must be the number of pictures, 2, or left out"):
        pipe(**case.inputs(2), batch_size=3)


@pytest.mark.parametrize("name", GIVEN)
def test_pictures_of_any_kind_and_size(name: str) -> None:
    case = CASES[name]
    pipe = made(case)
    eight_bits = (case.inputs(2)["image"] * 255).round().to(torch.uint8)
    rows = eight_bits.permute(0, 2, 3, 1).numpy()
    kinds = [eight_bits, rows, rows / 255.0, [Image.fromarray(row) for row in rows]]
    results = []
    for image in kinds:
        inputs = case.inputs(2) | {"image": image, "num_inference_steps": STEPS, "output_type": "latent"}
        results.append(pipe(**inputs, generator=[torch_generator(0, "image", i) for i in range(2)]).images)
    for found in results[1:]:
        assert relative_error(found, results[0]) < 1e-3  # float64 in [0, 1] rounds differently
    for odd in (Image.new("L", (40, 21), 90), Image.new("RGBA", (3, 5)), np.zeros((1, 7, 9, 3))):
        inputs = case.inputs(1) | {"image": odd, "num_inference_steps": STEPS, "output_type": "pt"}
        assert pipe(**inputs).images.shape == (1, 3, 16, 16)


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ("cat.png", TypeError, "image must be PIL pictures, arrays or tensors, got str"),
        ([], ValueError, "image holds no picture"),
        (torch.zeros(1, 1, 8, 8), ValueError, r"image must have 3 channels.*\(1, 1, 8, 8\)"),
        (np.zeros((8, 8)), ValueError, "image must have 3 channels"),
        (torch.zeros(8, 8), ValueError, "image must have 3 channels"),
        (
            torch.full((1, 3, 8, 8), 2.0),
            ValueError,
            r"floats in \[0, 1\] or 8-bit integers, got .* in 2\.\.2",
        ),
        (torch.full((1, 3, 8, 8), -1.0), ValueError, r"in -1\.\.-1"),
        (torch.full((1, 3, 8, 8), torch.nan), ValueError, r"in nan\.\.nan"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), ValueError, "got torch.int64"),
    ],
)
def test_what_is_not_a_picture_is_explained(name: str, image, error, message: str) -> None:
    case = CASES[name]
    with pytest.raises(error, match=message):
        made(case)(**(case.inputs(1) | {"image": image}))
