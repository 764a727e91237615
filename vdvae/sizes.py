"""The arguments of `VDVAEModel` for the data sets of the papers, and for small ones.

cifar10, imagenet32 and imagenet64 are the published networks (arXiv:2011.10650), with the published likelihood apart;
celeba64 has the layout of imagenet64 (arXiv:2301.08187). Their numbers of parameters are known, and tested. A name with
`_ws` shares the weights over time. The paper does not say its layouts; these are ours: about half of the blocks, each
applied twice.
"""

from __future__ import annotations

from typing import Any

from .layout import share_blocks

_IMAGENET64: dict[str, Any] = {
    "sample_size": 64,
    "enc_blocks": "64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5",
    "dec_blocks": "1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12",
    "width": 512,
}

_DISTINCT: dict[str, dict[str, Any]] = {
    "digits": {
        "sample_size": 8,
        "in_channels": 1,
        "enc_blocks": "8x1,8d2,4x1,4d4,1x1",
        "dec_blocks": "1x1,4m1,4x1,8m4,8x1",
        "width": 32,
        "latent_channels": 8,
        "num_mixtures": 5,
        "levels": 17,
    },
    "emoji": {
        "sample_size": 32,
        "enc_blocks": "32x2,32d2,16x2,16d2,8x2,8d2,4x2,4d4,1x2",
        "dec_blocks": "1x2,4m1,4x2,8m4,8x2,16m8,16x2,32m16,32x2",
        "width": 32,
        "latent_channels": 8,
        "num_mixtures": 5,
    },
    "mnist": {
        "sample_size": 32,
        "in_channels": 1,
        "enc_blocks": "32x2,32d2,16x2,16d2,8x2,8d2,4x2,4d4,1x2",
        "dec_blocks": "1x2,4m1,4x2,8m4,8x2,16m8,16x2,32m16,32x2",
        "width": 32,
        "latent_channels": 8,
        "likelihood": "bernoulli",
        "levels": 2,
    },
    "cifar10": {
        "sample_size": 32,
        "enc_blocks": "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3",
        "dec_blocks": "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21",
        "width": 384,
        "input_shift": -120.63838,
        "input_scale": 1 / 64.16736,
    },
    "imagenet32": {
        "sample_size": 32,
        "enc_blocks": "32x15,32d2,16x9,16d2,8x8,8d2,4x6,4d4,1x6",
        "dec_blocks": "1x2,4m1,4x4,8m4,8x9,16m8,16x19,32m16,32x40",
        "width": 512,
        "input_shift": -116.2373,
        "input_scale": 1 / 69.37404,
    },
    "imagenet64": _IMAGENET64 | {"input_shift": -115.92961967, "input_scale": 1 / 69.37404},
    "celeba64": _IMAGENET64,
}


def _shared(arguments: dict[str, Any], repeats: int) -> dict[str, Any]:
    """The arguments with the blocks of both passes shared, each applied `repeats` times."""
    return arguments | {name: share_blocks(arguments[name], repeats) for name in ("enc_blocks", "dec_blocks")}


SIZES: dict[str, dict[str, Any]] = {
    **_DISTINCT,
    **{f"{name}_ws": _shared(arguments, repeats=2) for name, arguments in _DISTINCT.items()},
}
"""Name -> arguments of `VDVAEModel`."""

SIZES["digits_ws"] = _DISTINCT["digits"] | {  # it has single blocks only, so each is applied three times
    "enc_blocks": "8x1r3,8d2,4x1r3,4d4,1x1r3",
    "dec_blocks": "1x1r3,4m1,4x1r3,8m4,8x1r3",
}
SIZES["cifar10_ws"] = _DISTINCT["cifar10"] | {  # 25 million parameters, as the smaller one of the paper's two
    "enc_blocks": "32x6r2,32d2,16x3r2,16d2,8x3r2,8d2,4x2r2,4d4,1x2r2",
    "dec_blocks": "1x1,4m1,4x1r2,8m4,8x3r2,16m8,16x6r2,32m16,32x13r2",
}

PUBLISHED = ("cifar10", "imagenet32", "imagenet64")
"""Names of which there are published checkpoints."""


def small_study(blocks: int, repeats: int = 1) -> dict[str, str]:
    """The two layouts of the paper's small study at 32 pixels: `blocks` blocks per resolution, each `repeats` times.

    Examples
    --------
    >>> small_study(2, repeats=3)["enc_blocks"]
    '32x2r3,32d2,16x2r3,16d2,8x2r3,8d2,4x2r3,4d4,1x2r3'
    """
    times = f"{blocks}r{repeats}" if repeats > 1 else f"{blocks}"
    return {
        "enc_blocks": f"32x{times},32d2,16x{times},16d2,8x{times},8d2,4x{times},4d4,1x{times}",
        "dec_blocks": f"1x{times},4m1,4x{times},8m4,8x{times},16m8,16x{times},32m16,32x{times}",
    }
