"""A number of different images of a data set, for measurements on the data."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch

from ..seeding import numpy_generator
from .dataset import ImageDataset
from .stream import ImageStream

NUM_IMAGES = 2000
"""What a measurement looks at unless it is told."""


def some_images(dataset: ImageDataset | ImageStream, num: int, seed: int) -> Iterator[torch.Tensor]:
    """At most `num` different images (C, H, W), a function of the data and the seed; of a stream the first ones.

    Where images have several sizes, they are those of the full size.
    """
    if isinstance(dataset, ImageStream):
        yield from (torch.as_tensor(item["image"]) for item in islice(dataset, num))
        return
    full = np.arange(len(dataset)) if dataset.levels is None else np.flatnonzero(dataset.levels == 0)
    chosen = full[numpy_generator(seed, "switches").permutation(len(full))[:num]]
    for index in sorted(chosen.tolist()):
        yield torch.as_tensor(dataset[index]["image"])
