"""The diffusion process in closed form: `from ssd.process import ScaleSpaceProcess, NoiseSchedule`."""

from .noise import NoiseSchedule, make_betas
from .posterior import GaussianPosterior
from .resolution import ResolutionSchedule, pyramid
from .scale_space import ScaleSpaceProcess

__all__ = ["GaussianPosterior", "NoiseSchedule", "ResolutionSchedule", "ScaleSpaceProcess", "make_betas", "pyramid"]
