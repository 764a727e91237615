"""The models of the paper's table 2, its full U-Net and its corrective noise: what sets each apart, what is spent.

Everything else is the same for all of them: data, widths, steps, images per step, learning rate, seed.
"""

from __future__ import annotations

from dataclasses import dataclass

SHARED: dict[str, str] = {
    "res": "16",
    "block_out_channels": "[32, 64, 64]",
    "attention_resolutions": "[8, 4]",
    "global_batch_size": "64",
    "learning_rate": "0.001",
    "ema_decays": "[0.995]",
    "random_flip": "false",
    "num_workers": "0",
    "sample_every": "0",
    "save_every": "250",
    "checkpoints_total_limit": "1",
    "report_to": "none",
}
"""Settings of `train/train_ssd.py` for all models; --settings changes them, for other data."""

RECIPES: dict[str, tuple[str, dict[str, str]]] = {
    "ddpm_eps": (
        "DDPM, noise",
        {
            "levels": "1",
            "prediction_type": "epsilon",
            "variance_type": "fixed_large",
            "loss": "simple",
            "decoder_exit": "full",
        },
    ),
    "ddpm_x0": ("DDPM, image", {"levels": "1", "variance_type": "fixed_large", "decoder_exit": "full"}),
    "blurring": ("Blurring diffusion", {"process": "blurring", "loss": "simple", "decoder_exit": "full"}),
    "ssd_2l": ("SSD, 2 levels", {"levels": "2"}),
    "ssd_3l": ("SSD, 3 levels", {"levels": "3"}),
    "full_unet_3l": ("SSD, 3 levels, full U-Net", {"levels": "3", "network": "resized_unet"}),
    "corrective_3l": (
        "3 levels, corrective noise",
        {"process": "corrective_noise", "levels": "3", "resolution_schedule": "equal"},
    ),
}
"""Name -> title and settings. One level has the plain U-Net, whose finest stage runs its last block, as published."""


@dataclass(frozen=True)
class Scale:
    """How much a comparison spends on each model.

    Attributes
    ----------
    steps : int
        Training steps.
    images : int
        Images that are drawn and measured.
    sampling_steps : int
    """

    steps: int
    images: int
    sampling_steps: int


SCALES = {"tiny": Scale(2, 16, 4), "small": Scale(700, 256, 100)}
"""tiny tries the command out; small takes about half an hour on two CPU cores."""
