"""
LoRA: teach a model something new
=================================

`peft` wraps Flexi-UNet like any other module: low-rank adapters beside its linear layers and convolutions learn,
while the weights stay. Here the model of page 3, in `runs/tutorial`, which knows all digits, learns to draw zeros.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from peft import LoraConfig, get_peft_model

from ssd import SSDPipeline
from ssd.commands.picture_grids import image_grid
from ssd.data.open import open_dataset
from ssd.process.losses import denoising_loss, training_pair

if not Path("runs/tutorial").is_dir():
    raise SystemExit("error: This page needs the model of page 3: run docs/tutorial/3_digits.py here first.")
pipe = SSDPipeline.from_pretrained("runs/tutorial")
pipe.set_progress_bar_config(disable=True)
size, channels = pipe.scheduler.config.sample_size, pipe.unet.config.in_channels


def draw(title: str) -> torch.Tensor:
    """Ten images of ten seeds, shown."""
    generators = [torch.Generator().manual_seed(i) for i in range(10)]
    images = pipe(batch_size=10, generator=generators, output_type="latent").images
    _, axis = plt.subplots(figsize=(10, 1.4), layout="constrained")
    axis.imshow(image_grid(images, 10), cmap="gray")
    axis.set_title(title, fontsize="medium")
    axis.axis("off")
    return images


before = draw("before")

# %%
# Adapters
# --------
# `target_modules` are ends of names. `to_q`, `to_k`, `to_v` and `to_out.0` are the linear layers of attention, `conv1`
# and `conv2` the convolutions of residual blocks. `get_peft_model` changes the network in place, so that the pipeline
# has the adapters, too.

targets = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"]
torch.manual_seed(0)
lora = get_peft_model(pipe.unet, LoraConfig(r=4, lora_alpha=8, target_modules=targets))
lora.print_trainable_parameters()
adapted = {type(module.base_layer).__name__ for module in lora.modules() if hasattr(module, "base_layer")}
print("adapted:", sorted(adapted))

# %%
# Train
# -----
# The loop of `train/train_ssd.py` in small: a timestep, its state and its target, both from the process, and the
# weighted error. All images of a batch have one timestep here, so they take one route.

digits = open_dataset("digits", size=size, channels=channels)
zeros = torch.stack([torch.as_tensor(digits[i]["image"]) for i in range(len(digits)) if digits[i]["label"] == 0])
process = pipe.scheduler.process
optimizer = torch.optim.AdamW([p for p in lora.parameters() if p.requires_grad], lr=3e-3)
generator = torch.Generator().manual_seed(0)
losses = []
for _ in range(150):
    x_0 = zeros[torch.randint(len(zeros), (16,), generator=generator)]
    t = torch.randint(process.num_timesteps, (1,), generator=generator).expand(16)
    noise = torch.randn(16, channels, *process.size(t), generator=generator)
    x_t, target = training_pair(process, x_0, t, noise)
    output = lora(x_t, t, output_size=tuple(target.shape[-2:])).sample
    loss = denoising_loss(process, output, target, t, loss="sqrt_snr").mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
print(f"loss: {sum(losses[:30]) / 30:.4f} in the first 30 steps, {sum(losses[-30:]) / 30:.4f} in the last")
lora.eval()
after = draw("with the adapter")

# %%
# Off, and on again
# -----------------
# The weights of the model are as they were. Without the adapter it draws what it drew before.

with lora.disable_adapter():
    without = pipe(
        batch_size=10, generator=[torch.Generator().manual_seed(i) for i in range(10)], output_type="latent"
    ).images
print("without the adapter, off what was drawn before by", float((without - before).abs().max()))

# %%
# Save it
# -------
# Alone an adapter is a small file, which belongs to this model. Merged into the weights the model is a pipeline as any
# other, and every command takes it.

lora.save_pretrained("runs/tutorial_zeros_adapter")
file = Path("runs/tutorial_zeros_adapter/adapter_model.safetensors")
print(f"{file}: {file.stat().st_size // 1024} KiB")

pipe.unet = lora.merge_and_unload()
pipe.save_pretrained("runs/tutorial_zeros")
pipe = SSDPipeline.from_pretrained("runs/tutorial_zeros")
pipe.set_progress_bar_config(disable=True)
merged = draw("merged, saved and loaded")
print("off the adapter's images by", float((merged - after).abs().max()))
plt.show()
