"""VDVAEPipeline: images, temperatures, and one image per generator; saved, loaded, and refused when damaged."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from ssd import VDVAEPipeline
from ssd.commands.errors import UsageError
from ssd.pipeline_vdvae import from_grey_levels, to_grey_levels
from ssd.pipelines.staging import STAGED
from ssd.publishing.saving import load_pipeline, load_vdvae, load_vdvae_pipeline, save_pipeline
from ssd.publishing.vdvae_card import vdvae_card
from vdvae import VDVAEModel

WEIGHTS = "diffusion_pytorch_model.safetensors"


def small_pipeline(seed: int = 0) -> VDVAEPipeline:
    """Random weights, of which none is zero, so that everything has an effect."""
    torch.manual_seed(seed)
    model = VDVAEModel(8, 1, "8x1,8d2,4x1r2,4d4,1x1", "1x1,4m1,4x1r2,8m4", width=8, latent_channels=2, num_mixtures=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return VDVAEPipeline(model.eval())


@pytest.fixture(scope="module")
def pipeline() -> VDVAEPipeline:
    return small_pipeline()


def generators(seeds) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def draw(pipeline: VDVAEPipeline, seeds, **options) -> torch.Tensor:
    (images,) = pipeline(len(seeds), generator=generators(seeds), output_type="latent", return_dict=False, **options)
    return images


def test_images_are_grey_levels_of_the_model(pipeline) -> None:
    images = draw(pipeline, range(4))
    assert images.shape == (4, 1, 8, 8)
    assert torch.equal(from_grey_levels(to_grey_levels(images, 256), 256), images)
    assert [picture.mode for picture in pipeline(2).images] == ["L", "L"]
    assert pipeline(2, output_type="np").images.shape == (2, 8, 8, 1)


def test_grey_levels_there_and_back() -> None:
    for levels in (2, 17, 32, 256):
        whole = torch.arange(levels)
        assert torch.equal(to_grey_levels(from_grey_levels(whole, levels), levels), whole)


def test_an_image_depends_on_its_own_generator_alone(pipeline) -> None:
    together = draw(pipeline, [5, 6, 7, 8])
    assert torch.equal(draw(pipeline, [7, 5, 3])[:2], together[[2, 0]])
    assert not torch.equal(together[0], together[1])


def test_one_temperature_per_resolution(pipeline) -> None:
    assert pipeline.resolutions == [1, 4, 8]
    assert pipeline.temperatures_of_cells([0.1, 0.2, 0.3]) == [0.1, 0.2, 0.2, 0.2, 0.3]
    assert torch.equal(draw(pipeline, range(3), temperature=[0.7] * 3), draw(pipeline, range(3), temperature=0.7))
    coarse, fine = (draw(pipeline, range(3), temperature=t) for t in ([0.0, 1.0, 1.0], [1.0, 1.0, 0.0]))
    assert not torch.equal(coarse, fine)


def test_at_temperature_zero_only_the_pixels_are_random(pipeline) -> None:
    states = [pipeline.top_down(3, 0.0, generators(seeds)).features for seeds in ((1, 2, 3), (4, 5, 6))]
    assert torch.equal(*states)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"output_type": "jpg"}, "output_type must be one of pil, np, pt, latent"),
        ({"temperature": -1}, "temperature must be at least 0, got -1"),
        ({"temperature": float("nan")}, "temperature must be at least 0"),
        ({"temperature": [1, 1]}, "one for each of the resolutions 1, 4, 8; got 2"),
        ({"batch_size": 2, "generator": [torch.Generator()]}, "2 images; got 1"),
    ],
)
def test_arguments_that_do_not_fit(pipeline, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(**options)


def test_a_saved_pipeline_draws_the_same_bits(pipeline, tmp_path) -> None:
    save_pipeline(pipeline, tmp_path, vdvae_card(pipeline, "runs/a", {"Data": "digits"}, "Yours."))
    images = draw(pipeline, range(4))
    for loaded in (VDVAEPipeline.from_pretrained(tmp_path), load_vdvae_pipeline(str(tmp_path), "cpu")):
        assert torch.equal(draw(loaded, range(4)), images)
    assert load_vdvae(tmp_path).num_parameters() == pipeline.vdvae.num_parameters()
    save_pipeline(small_pipeline(1), tmp_path)
    assert not torch.equal(draw(load_vdvae_pipeline(str(tmp_path), "cpu"), range(4)), images)
    assert "- Cells: 5 applied, 4 with weights of their own" in (tmp_path / "README.md").read_text()
    assert not (tmp_path / STAGED).exists()


def test_a_pipeline_of_the_other_kind_is_refused(pipeline, tmp_path) -> None:
    save_pipeline(pipeline, tmp_path)
    with pytest.raises(UsageError, match=r"cannot be loaded as an SSDPipeline: .*names the class 'VDVAEPipeline'"):
        load_pipeline(str(tmp_path))
    with pytest.raises(UsageError, match="is not a pipeline: give a folder with"):
        load_vdvae_pipeline(str(tmp_path / "nothing"))


def change_settings(folder, **settings) -> None:
    path = folder / "vdvae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def flip_a_byte(folder) -> None:
    path = folder / "vdvae" / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def rename_a_tensor(folder) -> None:
    path = folder / "vdvae" / WEIGHTS
    tensors = load_file(path)
    tensors["more"] = tensors.pop("out_conv.bias")
    save_file(tensors, path, {"format": "pt"})


DAMAGES = {
    "a flipped byte": (flip_a_byte, "The files of weights are not those that pipeline.json was written with"),
    "another name": (
        rename_a_tensor,
        "The weights do not fit vdvae/config.json: they lack 1 tensors, such as out_",
    ),
    "no weights": (lambda f: (f / "vdvae" / WEIGHTS).unlink(), f"vdvae/{WEIGHTS} is missing"),
    "wider": (lambda f: change_settings(f, width=16), "The weights do not fit vdvae/config.json: "),
    "many blocks": (lambda f: change_settings(f, enc_blocks="8x999"), r"it asks for \d+ residual blocks"),
    "many repeats": (lambda f: change_settings(f, enc_blocks="8x1r9999,8x1r9999"), "applies more than 10000 blocks"),
    "not a layout": (lambda f: change_settings(f, dec_blocks="8m4"), "vdvae/config.json does not describe a network"),
    "a text": (lambda f: change_settings(f, width="wide"), "width cannot be 'wide'"),
    "unknown": (lambda f: change_settings(f, depth=3), "settings that this version does not know: depth"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named(pipeline, damage: str, tmp_path) -> None:
    save_pipeline(pipeline, tmp_path)
    make, message = DAMAGES[damage]
    make(tmp_path)
    with pytest.raises(UsageError, match=message) as caught:
        load_vdvae_pipeline(str(tmp_path))
    assert "\n" not in str(caught.value)
