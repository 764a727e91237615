"""Images whose best denoiser theory knows: `python -m ssd.analysis.image_classes`. Formulas: `ssd.data.image_classes`.

- `psnr_slopes`: how fast the best denoiser improves; `trained_slope`: how fast a network does.
- `tangents`: the tangent space of a manifold of images, and the best denoiser near it.
"""
