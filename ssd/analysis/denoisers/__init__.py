"""Denoisers as objects of study: `python -m ssd.analysis.denoisers` trains one.

- `bias_free`: networks without additive constants; `training`: how they learn; `saved`: on the disk.
- `exact`: denoisers in closed form, with their Jacobians.
- `coarse_to_fine`: the sampler that follows from a denoiser alone.
- `denoising`: errors, and the distance of two denoisers; `similarity`: cosines of images.
- `images`: data without near duplicates, in two halves.
"""
