"""
Callbacks, interrupting and continuing
======================================

A callback sees every step of the chain. It may watch, change the state, or stop. This page uses the model of page 3,
in `runs/tutorial`.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

from ssd import SSDPipeline, SSDScheduler

if not Path("runs/tutorial").is_dir():
    raise SystemExit("error: This page needs the model of page 3: run docs/tutorial/3_digits.py here first.")
pipe = SSDPipeline.from_pretrained("runs/tutorial")
pipe.set_progress_bar_config(disable=True)


def seeds(number: int) -> list[torch.Generator]:
    """A generator per image."""
    return [torch.Generator().manual_seed(i) for i in range(number)]


def show(axis, image: torch.Tensor, title: str) -> None:
    """One image in the middle of a field of 16 x 16."""
    half = image.shape[-1] / 2
    axis.imshow(image[0], cmap="gray", vmin=-1, vmax=1, extent=(8 - half, 8 + half) * 2)
    axis.set(xlim=(0, 16), ylim=(0, 16), xticks=[], yticks=[])
    axis.set_title(title, fontsize="small")


# %%
# Watch
# -----
# It is called as `callback(pipeline, index, timestep, tensors)` after every step, with what it asks for: the state
# `latents`, and the prediction of the clean image from which it was drawn.

seen = []


def watch(pipeline, index, timestep, tensors):
    seen.append(
        (pipeline.scheduler.previous_timestep(timestep), tensors["latents"][0], tensors["pred_original_sample"][0])
    )


pipe(
    generator=seeds(1),
    callback_on_step_end=watch,
    callback_on_step_end_tensor_inputs=["latents", "pred_original_sample"],
)
print("sizes:", [tuple(state.shape[-2:]) for _, state, _ in seen])
some = seen[:: len(seen) // 8][-8:]
figure, axes = plt.subplots(2, len(some), figsize=(10, 3), layout="constrained")
for column, (timestep, state, prediction) in zip(axes.T, some):
    show(column[0], state, "clean" if timestep == -1 else f"t = {timestep}")
    show(column[1], prediction, "")
axes[0, 0].set_ylabel("$x_t$")
axes[1, 0].set_ylabel("prediction")

# %%
# `CoarseToFineRecorder` in `ssd.sampling.pictures` is such a callback: it draws the frames of `ssd sample --animation`.
#
# Change the state
# ----------------
# What a callback returns as `latents` takes the place of the state. Here all images get the state of the first one in
# the middle of the chain: what is decided by then they share, and every image draws the rest on its own.


def share(pipeline, index, timestep, tensors):
    state = tensors["latents"]
    return {"latents": state[:1].expand_as(state).clone()} if index == 10 else {}


figure, axes = plt.subplots(2, 8, figsize=(10, 2.8), layout="constrained")
for row, callback, name in zip(axes, (None, share), ("apart", "shared")):
    images = pipe(batch_size=8, generator=seeds(8), callback_on_step_end=callback, output_type="latent").images
    for axis, image in zip(row, images):
        show(axis, image, "")
    row[0].set_ylabel(name)

# %%
# Stop, and continue
# ------------------
# `pipeline._interrupt = True` ends the call after the step, as in diffusers. The state is returned as it is: noisy, and
# at the size of its level. With the timesteps that are left, another call goes on from it.
#
# First order needs nothing but the state, so the continued image is the uninterrupted one. Second order extrapolates
# from earlier predictions, which are gone: its first step after a pause is of first order, and the image is a little
# different.


def stop(pipeline, index, timestep, tensors):
    pipeline._interrupt = index == 11


for name, settings in (
    ("first order ", {"solver_order": 1, "timestep_spacing": "linspace"}),
    ("second order", {"solver_order": 2, "timestep_spacing": "logsnr"}),
):
    pipe.scheduler = SSDScheduler.from_config(pipe.scheduler.config, **settings)
    whole = pipe(generator=seeds(1), num_inference_steps=20, output_type="latent").images
    generator = seeds(1)
    state = pipe(generator=generator, num_inference_steps=20, callback_on_step_end=stop, output_type="latent").images
    rest = pipe.scheduler.timesteps[12:].tolist()
    print(f"{name}: stopped at {tuple(state.shape[-2:])}, {len(rest)} steps left: {rest}")
    image = pipe(latents=state, timesteps=rest, generator=generator, output_type="latent").images
    print(f"{name}: largest difference to the uninterrupted image {float((image - whole).abs().max()):.2g}")

# %%
# A training run is stopped by Ctrl-C, SIGTERM or SIGUSR1, which save a checkpoint, and continued by `--resume`: bit for
# bit as if it had never been stopped. :doc:`/training` says how.
plt.show()
