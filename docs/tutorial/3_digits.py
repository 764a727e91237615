"""
Train on digits, sample, grow and redraw
========================================

A whole model in about a minute of one core, by the commands that you would use for your own pictures. It is smaller
than the one of `make demo` and trains a quarter as long, so its digits are worse. `ssd train` is
`train/train_ssd.py`, and takes the same flags.
"""

import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from ssd import SSDImageToImagePipeline, SSDPipeline, SSDSuperResolutionPipeline
from ssd.commands.console import folder_of
from ssd.commands.picture_grids import image_grid
from ssd.data.open import open_dataset
from ssd.training.log import read_log


def ssd(*words: str) -> None:
    """Run a command, and print what it says after its settings, which come first."""
    done = subprocess.run([sys.executable, "-m", "ssd", *words], stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout[done.stdout.index("Data: ") :])


def show(images: torch.Tensor, columns: int, title: str) -> None:
    """A grid of images in [-1, 1]."""
    _, axis = plt.subplots(figsize=(columns, len(images) // columns + 0.4), layout="constrained")
    axis.imshow(image_grid(images, columns), cmap="gray")
    axis.set_title(title, fontsize="medium")
    axis.axis("off")


# %%
# Train
# -----
# The preset of the digits, with fewer channels and steps. `OUT` receives the pipeline, checkpoints, a log and the
# settings.

OUT = "runs/tutorial"
ssd(
    *("train", "--config", str(folder_of("configs") / "digits.yaml"), "--out", OUT, "--overwrite"),
    *("--block_out_channels", "[32, 32, 32]", "--layers_per_block", "1", "--global_batch_size", "32"),
    *("--max_steps", "400", "--learning_rate", "0.002", "--lr_scheduler", "cosine", "--ema_decays", "[0.98]"),
    *("--sample_every", "0", "--log_every", "25", "--cpu_threads", "1", "--seed", "0"),
)

# %%
# The residual of a level is the error relative to that of the best linear filter: 1 is no better than that. Coarse
# states are nearly noise, so there is little to win there.

rows = read_log(Path(OUT, "log.csv"))
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for level in ("16x16", "8x8", "4x4"):
    points = [(int(row["step"]), float(row[f"residual_{level}"])) for row in rows if row[f"residual_{level}"]]
    axis.plot(*zip(*points), label=level.replace("x", " x "))
axis.axhline(1, color="k", linewidth=1, linestyle="--")
axis.set(xlabel="step", ylabel="residual", ylim=(0, 2))
axis.legend()

# %%
# Sample
# ------
# Twenty steps of second order are the default. With a generator per image, image i depends on its own seed alone,
# whatever the batch.

pipe = SSDPipeline.from_pretrained(OUT)
pipe.set_progress_bar_config(disable=True)
images = pipe(
    batch_size=20, generator=[torch.Generator().manual_seed(i) for i in range(20)], output_type="latent"
).images
show(images, 10, "twenty new digits, seeds 0 to 19")

alone = pipe(generator=[torch.Generator().manual_seed(7)], output_type="latent").images
print("image 7, drawn alone, differs by", float((alone[0] - images[7]).abs().max()))

# %%
# Grow
# ----
# A small picture enters the chain at its level, and the model draws its details. With `consistency`, the default, the
# result made small again is the picture. The model has learned from these very digits; on ones that it has not seen see
# :doc:`/editing`.

digits = open_dataset("digits", size=16, channels=1)
originals = torch.stack([torch.as_tensor(digits[i]["image"]) for i in range(10)])
process = pipe.scheduler.process
coarsest = process.num_timesteps - 1
small = process.degrade(originals, coarsest)
grow = SSDSuperResolutionPipeline.from_pipe(pipe)
grow.set_progress_bar_config(disable=True)
seeds = [torch.Generator().manual_seed(i) for i in range(10)]
grown = grow((small / 2 + 0.5).clamp(0, 1), generator=seeds, output_type="latent").images
enlarged = torch.nn.functional.interpolate(small, size=(16, 16), mode="nearest")
smooth = torch.nn.functional.interpolate(small, size=(16, 16), mode="bicubic")
show(torch.cat([enlarged, smooth, grown, originals]), 10, "4 x 4 pixels; bicubic; grown; the originals")
print("made small again, grown digits differ by", float((process.degrade(grown, coarsest) - small).abs().max()))

# %%
# Redraw
# ------
# Keep what a digit is at 4 x 4 pixels, and draw new details: variations.

redraw = SSDImageToImagePipeline.from_pipe(pipe)
redraw.set_progress_bar_config(disable=True)
seeds = [torch.Generator().manual_seed(i) for i in range(9)]
variations = redraw(originals[2:3] / 2 + 0.5, level=2, batch_size=9, generator=seeds, output_type="latent").images
show(torch.cat([originals[2:3], variations]), 10, "a digit, and nine that are the same at 4 x 4 pixels")
plt.show()
