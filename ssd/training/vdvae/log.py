"""What a run of VDVAE writes down."""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator

from vdvae import ElboTerms

from ..log import LogRow, StepLog
from .batches import VDVAEBatch

COLUMNS = ("nll", "rate", "valid_loss", "valid_rate")
"""Of log.csv, in bits per dimension: loss = nll + rate, of the training images and of those that are held out."""


class BoundLog(StepLog):
    """The log of VDVAE: the bound in its parts, in bits per dimension."""

    def __init__(self, accelerator: Accelerator) -> None:
        super().__init__(accelerator, (len(COLUMNS[:2]),))

    def add_batch(self, batch: VDVAEBatch, terms: ElboTerms) -> None:
        """Note the bound of one batch."""
        self._sums += torch.stack([terms.nll.detach().mean(), terms.rate.detach().mean()]) / math.log(2)
        self._batches += 1
        self.add_images(len(batch.images), batch.seconds_waited)

    def row(self, guard_counts: torch.Tensor, stop: bool) -> LogRow:
        """The means since the last row, over all processes; guard_counts: (2,), skipped steps in all and in a row."""
        sums, common, in_a_row, stopping = self.read(guard_counts, stop)
        nll, rate = (total / max(1, self._batches) for total in sums)
        self._reset()
        return LogRow({"loss": nll + rate, "nll": nll, "rate": rate} | common, in_a_row, stopping)

    def _reset(self) -> None:
        super()._reset()
        self._batches = 0
