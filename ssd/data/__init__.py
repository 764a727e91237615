"""Data sets: `open_dataset("folder:/path", size=64)`.

- `open`: one way to name a data set; `request`: what was asked for.
- `dataset`: what all data sets share, and those with a length; `stream`: those without.
- `labels`: the classes, numbered without gaps, and their names.
- `sizes`: sizes and channels as users give them; `transforms`: the crop presets; `files`: many picture files.
- `held_out`: a part of the images; `mixed_sizes`: pictures that are smaller than asked for.
- `reading`: one picture, and the errors that name it; `decoding`: what a viewer of it sees; `conversions`: counts of
  what that changed.
- `readers`: a file per kind of data.
- `prepare`: the command that makes a prepared copy; `prepared`: its parts.
"""

from .dataset import ImageData
from .open import DATA_SPECS, open_dataset
from .stream import ImageStream

__all__ = ["DATA_SPECS", "ImageData", "ImageStream", "open_dataset"]
