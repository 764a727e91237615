"""Data sets without random access: shards that are read from front to back."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch.utils.data import IterableDataset, get_worker_info

from ..seeding import numpy_generator
from .conversions import Conversion, StreamTally
from .dataset import ImageData, Item
from .decoding import Decoded
from .labels import Classes
from .reading import ReadError, UnreadableImage, read_picture
from .request import DataRequest
from .transforms import fills, pixels_to_tensor


@dataclass(frozen=True)
class Sample:
    """A picture that is not decoded yet.

    Parameters
    ----------
    name : str
        For messages.
    open_image : callable
        Returns the picture.
    label : int, optional
    """

    name: str
    open_image: Callable[[], Image.Image]
    label: int | None = None


class ImageStream(ImageData, IterableDataset[Item]):
    """Images in shards, read in order. A subclass supplies `read_shard` and `content_hash`.

    By itself it is one pass in the order of the shards, for statistics; `set_position` turns it into an endless
    shuffled stream for training. The work is divided over processes and their `DataLoader` workers: by shards where
    there are at least as many, else every part reads all shards and keeps its share of the images.

    Unlike data sets with a length, a stream does not resume exactly. It begins a new pass in a new order, which depends
    on (seed, first_sample), so that nothing has to be read again and no beginning is seen twice. While uninterrupted,
    the order is a function of (seed, first_sample, world_size, number of workers).

    Parameters
    ----------
    request : DataRequest
    split : str
        Proper name of the split.
    num_shards : int
    count : int, optional
        Number of images, where it is known.
    classes : Classes, optional
    """

    SHUFFLE_BUFFER = 1000
    """Undecoded images among which the next one is drawn."""

    def __init__(
        self,
        request: DataRequest,
        split: str,
        num_shards: int,
        count: int | None = None,
        classes: Classes | None = None,
    ) -> None:
        super().__init__(request, split, count, classes)
        self.num_shards = num_shards
        self._rank, self._world_size = 0, 1
        self._first_sample, self._seed = 0, 0
        self._endless = False
        self._tally = StreamTally()

    @abstractmethod
    def read_shard(self, shard: int) -> Iterator[Sample]:
        """The samples of one shard, in order."""

    def set_position(self, first_sample: int, rank: int = 0, world_size: int = 1, seed: int = 0) -> None:
        """An endless shuffled stream for training; to be called before the `DataLoader` is iterated.

        Parameters
        ----------
        first_sample : int
            Images that training has seen so far, over all processes (step times global batch size).
        rank, world_size : int
            This process and the number of processes.
        seed : int
        """
        self._rank, self._world_size, self._endless = rank, world_size, True
        self._first_sample, self._seed = first_sample, seed

    def conversion_counts(self) -> dict[str, int]:
        """As of every data set; a picture that is read in several passes counts in each."""
        return self._tally.counts()

    def __iter__(self) -> Iterator[Item]:
        worker = get_worker_info()
        workers, worker_id = (worker.num_workers, worker.id) if worker else (1, 0)
        part, parts = self._rank * workers + worker_id, self._world_size * workers
        if not self._endless:
            yield from self._decoded(self._share(range(self.num_shards), part, parts))
            return
        for number in itertools.count():
            before = len(self.bad_images)
            empty = True
            for item in self._decoded(self._shuffled_pass(number, part, parts)):
                empty = False
                yield item
            if empty:
                bad = len(self.bad_images) - before
                raise ReadError(
                    f"{self.request.spec} has no image for part {part + 1} of {parts} (processes times workers)"
                    f"{f', {bad} are unreadable' if bad else ''}: use fewer workers or more images."
                )

    def _shuffled_pass(self, number: int, part: int, parts: int) -> Iterator[Sample]:
        key = (self._first_sample, number)
        order = numpy_generator(self._seed, "shards", *key).permutation(self.num_shards)
        buffer_order = numpy_generator(self._seed, "stream", *key, part)
        return shuffle(self._share(order, part, parts), buffer_order, self.SHUFFLE_BUFFER)

    def _share(self, shards: range | np.ndarray, part: int, parts: int) -> Iterator[Sample]:
        if len(shards) >= parts:
            return self._read_shards(shards[part::parts])
        return itertools.islice(self._read_shards(shards), part, None, parts)

    def _read_shards(self, shards: range | np.ndarray) -> Iterator[Sample]:
        for shard in shards:
            try:
                yield from self.read_shard(int(shard))
            except UnreadableImage as error:  # the shard is damaged; the others may be whole
                self._skip(f"shard {shard}", error)

    def _decoded(self, samples: Iterator[Sample]) -> Iterator[Item]:
        for sample in samples:
            try:
                picture, conversions = self._read(sample)
            except UnreadableImage as error:
                self._skip(sample.name, error)
                continue
            enlarged = Conversion(0) if fills(picture.size[::-1], self.size) else Conversion.ENLARGED
            self._tally.note(conversions | enlarged)
            pixels = self.request.preset.apply(picture, self.size, sample.name)
            image = pixels_to_tensor(pixels[None].copy())[0]
            yield {"image": image} if sample.label is None else {"image": image, "label": sample.label}

    def _read(self, sample: Sample) -> Decoded:
        return read_picture(sample.open_image, sample.name, self.request.background, self.request.channels)

    def _skip(self, name: str, error: UnreadableImage) -> None:
        if not self.request.skip_bad_images:
            raise error
        self.note_bad(name, str(error))


def shuffle(samples: Iterator[Sample], generator: np.random.Generator, size: int) -> Iterator[Sample]:
    """Draw the next sample among the following `size` ones."""
    buffer = list(itertools.islice(samples, size))
    for sample in samples:
        position = int(generator.integers(len(buffer)))
        yield buffer[position]
        buffer[position] = sample
    for position in generator.permutation(len(buffer)):
        yield buffer[position]
