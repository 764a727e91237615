"""
Your own degradation
====================

Any linear map may take the place of downsampling: as a function, or as a `LinearOperator` with a closed form. This
page makes one of each.
"""

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from ssd.operators import ImplicitOperator
from ssd.operators.linear import SeparableOperator
from ssd.operators.sizes import Size
from ssd.process import NoiseSchedule, ResolutionSchedule, ScaleSpaceProcess, make_betas, pyramid

noise = NoiseSchedule.from_betas(make_betas())
sizes = ResolutionSchedule.from_curve(pyramid(8, 2), 1000)

# %%
# A function
# ----------
# `ImplicitOperator` takes a linear function that torch can differentiate. Its adjoint is a vector-Jacobian product, and
# the posterior uses Lanczos iterations in place of a decomposition. Here pixels are averaged over a ring rather than a
# block.

ring = torch.tensor([[1.0, 2.0, 1.0], [2.0, 0.0, 2.0], [1.0, 2.0, 1.0]], dtype=torch.float64) / 12


def over_a_ring(x: torch.Tensor) -> torch.Tensor:
    """(N, 1, H, W) -> (N, 1, H / 2, W / 2)."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, ring.to(x.dtype)[None, None])[..., ::2, ::2]


process = ScaleSpaceProcess(noise, sizes, downsample=lambda fine, coarse: ImplicitOperator(over_a_ring, fine))
print(process.operator(-1, 999), "with largest singular value", process.operator(-1, 999).gain_bound())

# %%
# It is checked: a function that is not linear is refused, and so is an operator with so much gain that noise could not
# keep up (theorem 1).

for wrong in (lambda x: F.max_pool2d(x, 2), lambda x: 3 * F.avg_pool2d(x, 2)):
    try:
        ScaleSpaceProcess(noise, sizes, downsample=lambda fine, coarse, wrong=wrong: ImplicitOperator(wrong, fine))
    except ValueError as error:
        print("refused:", error)

# %%
# With a closed form
# ------------------
# An operator that acts on rows and columns apart only has to say its matrices; composition, adjoint, singular values
# and the exact posterior follow. This one repeats the paper's triangle with a little blur, more of it across than
# along.


def blurred_half(length: int, width: float) -> torch.Tensor:
    """(length / 2, length): pairs of pixels under a Gaussian window, rows that sum to one."""
    centres = 2 * torch.arange(length // 2, dtype=torch.float64)[:, None] + 0.5
    weights = torch.exp(-((torch.arange(length) - centres) ** 2) / (2 * width**2))
    return weights / weights.sum(dim=1, keepdim=True)


class BlurredHalf(SeparableOperator):
    """Half the size, blurred by different widths along the two axes, in pixels."""

    def __init__(self, fine: Size, coarse: Size, width_h: float = 0.7, width_w: float = 1.4) -> None:
        super().__init__(blurred_half(fine[0], width_h), blurred_half(fine[1], width_w))
        if self.out_size != coarse:
            raise ValueError(f"BlurredHalf halves: {fine} gives {self.out_size}, not {coarse}.")


process = ScaleSpaceProcess(noise, sizes, downsample=BlurredHalf)
print(process.operator(-1, 999))

# %%
# The exact posterior of a level change, against a dense matrix inversion:

x_0 = torch.tensor(load_digits().images[2:3, None]) / 8 - 1
t = process.required_timesteps[0]
s = t - 1
generator = torch.Generator().manual_seed(0)
x_t = process.marginal_sample(x_0, t, torch.randn(1, 1, 4, 4, generator=generator, dtype=torch.float64))
posterior = process.posterior(x_0, x_t, s, t)
M = process.signal(t) / process.signal(s) * process.operator(s, t).to_dense()
joint = process.sigma(s) ** 2 * M.T @ torch.linalg.inv(process.sigma(t) ** 2 * torch.eye(16, dtype=torch.float64))
mean = process.signal(s) * x_0.flatten()
mean = mean + joint @ (x_t.flatten() - M @ mean)
print("largest difference of the means:", float((posterior.mean.flatten() - mean).abs().max()))

figure, axes = plt.subplots(1, 3, figsize=(7, 2.6), layout="constrained")
for axis, image, title in zip(
    axes, (x_0, process.degrade(x_0, t), posterior.mean), ("$x_0$", "$D x_0$", "mean of $x_s$")
):
    axis.imshow(image[0, 0], cmap="gray")
    axis.set(title=title, xticks=[], yticks=[])
plt.show()

# %%
# To train with an operator by name, add its kernel to `KERNELS`: :doc:`/contributing` has the three steps, and the
# tests that it then gets.
