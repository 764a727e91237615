r"""
The process: forward, and exactly back
======================================

:math:`x_t = a_t D_t x_0 + \sigma_t \varepsilon`: the image fades, shrinks, and noise takes its place. This page goes
forward one step, back one step with theorem 3, and checks both against plain linear algebra.
"""

import matplotlib.pyplot as plt
import torch

from ssd.process import NoiseSchedule, ResolutionSchedule, ScaleSpaceProcess, make_betas, pyramid
from ssd.process.transition import transition

process = ScaleSpaceProcess(
    NoiseSchedule.from_betas(make_betas()), ResolutionSchedule.from_curve(pyramid(8, 3), 1000, "convex_decay", 0.5)
)
for t in (-1, 0, 500, 555, 889, 999):
    print(f"t = {t:3}: {process.size(t)[0]} pixels, a = {process.signal(t):.4f}, sigma = {process.sigma(t):.4f}")

# %%
# A step forward, theorem 1
# -------------------------
# From :math:`x_s` to :math:`x_t` the image is multiplied by :math:`M = (a_t / a_s) D_{st}`, and new noise is added with
# the covariance :math:`\sigma_t^2 I - \sigma_s^2 M M^\top`. Then :math:`x_t` has the noise that it should have: white,
# of variance :math:`\sigma_t^2`. At a change of level the new noise is not white itself.

s, t = 554, 555
print("the level changes:", process.size(s), "->", process.size(t))
step = transition(process, torch.zeros(1, 1, 8, 8, dtype=torch.float64), s, t)
M = process.signal(t) / process.signal(s) * process.operator(s, t).to_dense()
total = process.sigma(s) ** 2 * M @ M.T + step.covariance.to_dense()
print(
    "noise of x_t, off sigma_t^2 I by",
    float((total - process.sigma(t) ** 2 * torch.eye(16, dtype=torch.float64)).abs().max()),
)

# %%
# A step back, theorem 3
# ----------------------
# Given :math:`x_t` and the clean image, :math:`x_s` is Gaussian. Its mean takes from :math:`x_t` what that shows, and
# its covariance has the full noise in all directions that :math:`x_t` does not show: that is how new details come in.
#
# The textbook gets the same from the joint Gaussian of :math:`(x_s, x_t)` by inverting a matrix. The code never forms
# one.

generator = torch.Generator().manual_seed(0)
x_0 = torch.randn(1, 1, 8, 8, generator=generator, dtype=torch.float64)
x_t = torch.randn(1, 1, 4, 4, generator=generator, dtype=torch.float64)
posterior = process.posterior(process.degrade(x_0, s), x_t, s, t)

mu_s = process.signal(s) * process.degrade(x_0, s).flatten()
gain = process.sigma(s) ** 2 * M.T / process.sigma(t) ** 2
mean = mu_s + gain @ (x_t.flatten() - M @ mu_s)
covariance = process.sigma(s) ** 2 * (torch.eye(64, dtype=torch.float64) - gain @ M)
print("mean, largest difference:      ", float((posterior.mean.flatten() - mean).abs().max()))
print("covariance, largest difference:", float((posterior.covariance.to_dense() - covariance).abs().max()))

# %%
# The spectrum of that covariance: 16 directions of which the small image knows something, and 48 that are drawn anew,
# with variance :math:`\sigma_s^2`.

figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
axis.plot(torch.linalg.eigvalsh(covariance), ".-")
axis.axhline(process.sigma(s) ** 2, color="k", linewidth=1, linestyle="--", label=r"$\sigma_s^2$")
axis.set(xlabel="direction", ylabel="variance")
axis.legend()

# %%
# Forward and back keeps the marginal
# -----------------------------------
# Draw :math:`x_t` from its marginal, step back knowing :math:`x_0`, and look at :math:`x_s`: mean and variance are
# those of its own marginal, for every :math:`\eta`. This is what makes sampling exact but for the network.

number = 20_000
for eta in (1.0, 0.5, 0.0):
    noise = torch.randn(number, 1, 4, 4, generator=generator, dtype=torch.float64)
    start = process.marginal_sample(x_0.expand(number, -1, -1, -1), t, noise)
    x_s = process.posterior(process.degrade(x_0, s), start, s, t, eta=eta).sample(generator)
    off = (x_s.mean(dim=0) - process.signal(s) * process.degrade(x_0, s)[0]).abs().max()
    variance = x_s.var(dim=0).mean() / process.sigma(s) ** 2
    print(f"eta = {eta:3}: mean off by at most {off:.3f}, variance {variance:.3f} of what it should be")

# %%
# With one level it is DDPM
# -------------------------
# Nothing shrinks, :math:`D = I`, and theorem 3 is the posterior that diffusers' `DDPMScheduler` has.

flat = ScaleSpaceProcess(NoiseSchedule.from_betas(make_betas()), ResolutionSchedule.from_curve([(8, 8)], 1000))
x_t = torch.randn(1, 1, 8, 8, generator=generator, dtype=torch.float64)
s, t = 499, 500
alpha_bar, before = flat.signal(t) ** 2, flat.signal(s) ** 2
beta = 1 - alpha_bar / before
ddpm = before.sqrt() * beta / (1 - alpha_bar) * x_0 + (1 - beta).sqrt() * (1 - before) / (1 - alpha_bar) * x_t
print("mean, off DDPM's by", float((flat.posterior(x_0, x_t, s, t).mean - ddpm).abs().max()))
plt.show()
