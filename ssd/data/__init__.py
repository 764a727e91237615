"""Data sets: `open_dataset("folder:/path", size=64)`."""

from .open import DATA_SPECS, open_dataset

__all__ = ["DATA_SPECS", "open_dataset"]
