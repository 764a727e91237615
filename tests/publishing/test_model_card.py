"""Model cards: metadata that the Hub understands."""

from __future__ import annotations

from huggingface_hub import ModelCard

from ssd import SSDPipeline
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
