"""Model cards: metadata that the Hub understands."""

from __future__ import annotations

from huggingface_hub import ModelCard

from flexi_unet import FlexiUNet2DModel
from ssd import SSDPipeline, SSDScheduler
from ssd.publishing.model_card import model_card


def test_metadata_of_a_card(pipeline: SSDPipeline) -> None:
    card = ModelCard(model_card(pipeline, "runs/a", {"Data": "digits"}, "Yours."))
    assert card.data.to_dict() == {
        "library_name": "diffusers",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["scale-space-diffusion"],
    }
    assert card.text.startswith("\n# Scale Space Diffusion, 16 x 16 pixels, 2 levels")
    assert "- Data: digits" in card.text


def test_data_sets_of_the_hub_are_named(pipeline: SSDPipeline) -> None:
    card = ModelCard(model_card(pipeline, "runs/a", {}, "Yours.", datasets=["ylecun/mnist"]))
    assert card.data.datasets == ["ylecun/mnist"]


def test_classes_are_listed() -> None:
    for count, expected in ((3, "- Classes: 3: n 0, n 1, n 2\n"), (25, ", n 19, and 5 more\n")):
        names = {label: f"n\n{label}" for label in range(count)}
        unet = FlexiUNet2DModel(16, block_out_channels=(32, 32), num_class_embeds=count + 1, id2label=names)
        card = model_card(SSDPipeline(unet, SSDScheduler(sample_size=16, num_levels=2)), "a", {}, "Yours.")
        assert expected in card + "\n"
