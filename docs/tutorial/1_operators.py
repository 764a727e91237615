r"""
Operators: how images shrink
============================

In Scale Space Diffusion a noisy image also gets smaller. What makes it smaller is a linear operator :math:`D`, and
everything that the sampler needs follows from its singular values.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

from ssd import SSDScheduler
from ssd.operators import resize_operator
from ssd.operators.kernels import KERNELS

# %%
# One operator
# ------------
# `resize_operator` makes an image of one size into a smaller one. It acts on rows and columns by one small matrix each,
# :math:`D x = R_h\, x\, R_w^\top`, so that its singular values are products of those of the two.

digit = torch.tensor(load_digits().images[4:5, None]) / 8 - 1  # (1, 1, 8, 8) in [-1, 1]
down = resize_operator((8, 8), (4, 4), kernel="bilinear")
small = down.forward(digit)
print(down)
print("an axis:", down.matrices.matrix_h[1])
print("largest singular value:", down.spectral.largest_singular_value())

# %%
# The adjoint :math:`D^\top` goes the other way, and :math:`\langle D x, y \rangle = \langle x, D^\top y \rangle`. It is
# not an inverse: details are gone. The nearest thing to an inverse is
# :math:`D^+ = V \operatorname{diag}(1 / \lambda)\, U^\top`, and :math:`(I - D^+ D)\, x` is what :math:`D` does not see,
# its null space.

y = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
print("<Dx, y> - <x, D'y> =", float((small * y).sum() - (digit * down.adjoint(y)).sum()))

seen = down.spectral.gain(lambda lam: 1 / lam, small)
figure, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained")
for axis, image, title in zip(
    axes, (digit, small, seen, digit - seen), ("x", "D x", "what D sees, $D^+ D x$", "what it does not")
):
    axis.imshow(image[0, 0], cmap="gray", vmin=-1, vmax=1)
    axis.set(title=title, xticks=[], yticks=[])
print("D of what it does not see:", float(down.forward(digit - seen).abs().max()))

# %%
# Five kernels
# ------------
# They differ in how they weigh neighbours, and so in how much of the fine details they let through. `bilinear` is the
# paper's. `area` averages, and so is a projection in the Haar basis; `dct` keeps the lowest frequencies: their singular
# values are all equal, to 1/2 in two dimensions.

figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
for name in KERNELS:
    operator = resize_operator((16, 16), (8, 8), kernel=name)
    values = torch.linalg.svdvals(operator.to_dense())
    axis.plot(values, label=name)
    print(f"{name:9} from {values[0]:.3f} down to {values[-1]:.3f}")
axis.set(xlabel="singular direction", ylabel=r"$\lambda_i$", ylim=(0, None))
axis.legend()

# %%
# All are about 1/2 or less. That is why shrinking by two is always a diffusion step: noise has to grow by more than the
# operator lets through (theorem 1 in :doc:`the mathematics </maths>`).
#
# A chain of them
# ---------------
# A scheduler has levels, and a level for every timestep. The operators between any two timesteps are at hand, and they
# compose: :math:`D_{rt} = D_{st} D_{rs}`.

process = SSDScheduler(sample_size=16, num_levels=3).process
print("levels change at", process.resolution.level_changes)
r, s, t = 100, 700, 950
print(process.operator(r, t), "=", process.operator(s, t), "after", process.operator(r, s))
difference = process.operator(r, t).to_dense() - process.operator(s, t).to_dense() @ process.operator(r, s).to_dense()
print("largest difference:", float(difference.abs().max()))

# %%
# What :math:`x_t` looks like at every level: an image, at its size, with the noise of its timestep.

x_0 = torch.tensor(load_digits().images[:1, None]) / 8 - 1
x_0 = torch.nn.functional.interpolate(x_0, size=(16, 16), mode="bicubic").clamp(-1, 1)
noise = torch.Generator().manual_seed(0)
timesteps = (-1, 100, 300, 600, 800, 950)
figure, axes = plt.subplots(2, len(timesteps), figsize=(10, 3.8), layout="constrained")
for column, t in zip(axes.T, timesteps):
    clean = process.degrade(x_0, t)
    x_t = process.marginal_sample(x_0, t, torch.randn(clean.shape, generator=noise, dtype=clean.dtype))
    for axis, image in zip(column, (x_t, clean)):
        half = image.shape[-1] / 2
        axis.imshow(image[0, 0], cmap="gray", vmin=-1, vmax=1, extent=(8 - half, 8 + half) * 2)
        axis.set(xlim=(0, 16), ylim=(0, 16), xticks=[], yticks=[])
    column[0].set_title("clean" if t == -1 else f"t = {t}")
axes[0, 0].set_ylabel("$x_t$")
axes[1, 0].set_ylabel("$D_t x_0$")
plt.show()
