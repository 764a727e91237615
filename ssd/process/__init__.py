"""The diffusion processes in closed form: `from ssd.process import ScaleSpaceProcess, NoiseSchedule`."""

from .blurring import BlurringProcess
from .corrective_noise import CorrectiveNoiseProcess
from .diffusion import DiffusionProcess
from .noise import NoiseSchedule, make_betas
from .posterior import GaussianPosterior
from .resolution import ResolutionSchedule, pyramid
from .scale_space import ScaleSpaceProcess

__all__ = [
    "BlurringProcess",
    "CorrectiveNoiseProcess",
    "DiffusionProcess",
    "GaussianPosterior",
    "NoiseSchedule",
    "ResolutionSchedule",
    "ScaleSpaceProcess",
    "make_betas",
    "pyramid",
]
