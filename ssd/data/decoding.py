"""From a picture as it is stored to what a viewer of the file sees: upright, opaque, 8-bit RGB, or grey of that.

H x W pixels.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageColor, ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from ..commands.errors import UsageError
from .conversions import Conversion

PILLOW_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for damaged files, by format."""

ORIENTATION = ExifTags.Base.Orientation
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of that EXIF orientation upright; angles are counter-clockwise."""

TOLERANCE = 1e-3
"""How far floats may fall below 0, or exceed 1 or 255, the latter relative to it: what half precision rounds."""


class Decoded(NamedTuple):
    """A picture, 8-bit RGB or grey, and what was done to it."""

    picture: Image.Image
    conversions: Conversion


def decode(image: Image.Image, background: str = "white", channels: int = 3) -> Decoded:
    """What a viewer of the file sees. This is the only decoder of training, preparing and evaluation.

    - A picture is turned by its EXIF orientation.
    - Transparency of any kind (an alpha channel, a palette with alpha, a transparent colour) is composited over
      `background`, in 8 bits.
    - Grey of 16 bits is divided by 65535 (in a TIFF of 12 bits by 4095, of signed 16 bits by 32767). Files of 32-bit
      integers often hold fewer bits: the range is the first of 255, 65535 and all bits (2^31 - 1 signed, 2^32 - 1
      unsigned) that no value exceeds.
    - Floats that lie in 0..1 are multiplied by 255. Floats that lie in 0..255 and reach 2 are grey levels. With a
      maximum between 1 and 2 they are refused, since they could be either.
    - All else is Pillow's `convert("RGB")`, also of colours of 16 bits, of which Pillow reads the upper 8. Colour
      profiles are not applied.
    - With one channel, the picture after all this becomes grey; see `with_channels`.

    Parameters
    ----------
    image : PIL.Image.Image
        As `PIL.Image.open` returns it, not loaded yet.
    background : str
        A name or code of `PIL.ImageColor`.
    channels : {3, 1}
        3 for RGB, 1 for grey.

    Returns
    -------
    Decoded

    Raises
    ------
    ValueError
        For negative grey levels, for floats outside both ranges, and for NaN.
    OSError, SyntaxError, EOFError, struct.error, PIL.Image.DecompressionBombError
        What Pillow raises for damaged files.
    """
    if isinstance(image, ImageFile.ImageFile):
        image.filename = ""  # else Pillow maps raw TIFF files into memory, at the size that they have after turning
    raw_mode = _png_raw_mode(image)  # this, and a TIFF's orientation, are gone once the pixels are loaded
    orientation = orientation_of(image)
    image.load()
    conversions = Conversion(0)
    if is_deep(image):
        picture, alpha, scaled = _decode_deep(image)
        conversions |= Conversion.SCALED if scaled else Conversion(0)
    else:
        picture, alpha = _decode_eight_bits(image, raw_mode)
    if alpha is not None and alpha.getextrema()[0] != 255:
        picture = Image.composite(picture, Image.new("RGB", picture.size, background), alpha)
        conversions |= Conversion.COMPOSITED
    if orientation != 1:
        conversions |= Conversion.TURNED
        if image.format != "TIFF":  # which Pillow has turned while it loaded the pixels
            picture = picture.transpose(TRANSPOSITIONS[orientation])
    picture, greyed = with_channels(picture, channels)
    return Decoded(picture, conversions | greyed)


def with_channels(picture: Image.Image, channels: int) -> Decoded:
    """An 8-bit picture as RGB, or as grey, Pillow's mode L: the luma of ITU-R 601, 0.299 R + 0.587 G + 0.114 B.

    Only a picture with colour in it loses something: grey that is stored as RGB keeps every bit.

    Examples
    --------
    >>> picture, conversions = with_channels(Image.new("RGB", (2, 2), "red"), channels=1)
    >>> picture.getpixel((0, 0)), conversions
    (76, <Conversion.GREYED: 8>)
    """
    mode = "RGB" if channels == 3 else "L"
    converted = picture if picture.mode == mode else picture.convert(mode)
    return Decoded(converted, Conversion.GREYED if channels == 1 and has_colour(picture) else Conversion(0))


def has_colour(picture: Image.Image) -> bool:
    """Whether an 8-bit picture, RGB or grey, is not all grey."""
    if picture.mode == "L":
        return False
    red, green, blue = picture.split()
    return any(ImageChops.difference(red, other).getbbox() is not None for other in (green, blue))


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; a damaged tag turns nothing. The header is enough for most files."""
    if isinstance(image, PngImageFile) and _has_late_metadata(image):
        image.load()
    try:
        orientation = Image.Image.getexif(image).get(ORIENTATION, 1)  # PNG's own getexif would read the pixels
    except PILLOW_ERRORS:
        return 1
    return orientation if orientation in TRANSPOSITIONS else 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of what `decode` will return; see `orientation_of`."""
    width, height = image.size
    if isinstance(image, TiffImageFile):  # whose size is the one after turning in some versions of Pillow
        width, height = (image.tag_v2[tag] for tag in (ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength))
    return (height, width) if orientation_of(image) >= 5 else (width, height)


def is_deep(image: Image.Image) -> bool:
    """Whether a picture is grey of more than 8 bits, integer or floating point; the header is enough."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def background_name(colour: str) -> str:
    """The one name of a background colour: of CSS where it has one, else #rrggbb.

    Raises
    ------
    UsageError
        For anything that is not an opaque colour.

    Examples
    --------
    >>> background_name("#FFF"), background_name("#12ab00")
    ('white', '#12ab00')
    """
    rgb: tuple[int, ...] = ()
    with suppress(ValueError):
        rgb = ImageColor.getrgb(colour)
    if len(rgb) != 3:
        raise UsageError(
            f"The background {colour!r} is not an opaque colour: give a name such as white, or a code such as #ffffff."
        )
    code = "#{:02x}{:02x}{:02x}".format(*rgb)
    return next((name for name in list(ImageColor.colormap) if ImageColor.getrgb(name) == rgb), code)


def _png_raw_mode(image: Image.Image) -> str:
    """How a PNG stores its samples, such as "L;4"; empty for other formats."""
    tiles = getattr(image, "tile", [])
    return str(tiles[0][3]) if image.format == "PNG" and tiles else ""


def _has_late_metadata(image: PngImageFile) -> bool:
    """Whether the file of a PNG that is not loaded has EXIF or text after its pixels, where some programs put them."""
    if image.fp is None or not image.tile:
        return False
    position, found = image.fp.tell(), False
    image.fp.seek(image.tile[0][2] - 8)  # length and name of the first chunk of pixels
    while len(head := image.fp.read(8)) == 8 and not found:
        length, name = struct.unpack(">I4s", head)
        found = name in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
        image.fp.seek(length + 4, os.SEEK_CUR)
    image.fp.seek(position)
    return found


def _decode_eight_bits(image: Image.Image, raw_mode: str) -> tuple[Image.Image, Image.Image | None]:
    """Colours, RGB, and alpha, L, which is None without transparency."""
    if not image.has_transparency_data:
        return image.convert("RGB"), None
    _rescale_transparent_colour(image, raw_mode)
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    both = image.convert("RGBA")
    return both.convert("RGB"), both.getchannel("A")


def _rescale_transparent_colour(image: Image.Image, raw_mode: str) -> None:
    """Bring the transparent colour of a PNG from the depth of the file, in which Pillow leaves it, to 8 bits."""
    colour: Any = image.info.get("transparency")
    if raw_mode in ("L;2", "L;4"):
        image.info["transparency"] = colour * {"L;2": 85, "L;4": 17}[raw_mode]
    elif raw_mode == "RGB;16B":
        image.info["transparency"] = tuple(sample >> 8 for sample in colour)


def _decode_deep(image: Image.Image) -> tuple[Image.Image, Image.Image | None, bool]:
    """Grey as RGB, alpha where a value is transparent, and whether the values were scaled."""
    values = np.asarray(image)
    key = image.info.get("transparency")
    alpha = None if key is None else Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F":
        top = _float_range(values)
    else:
        values, top = _integer_range(image, values, tags)
    if top == 255:
        return image.convert("L").convert("RGB"), alpha, False
    grey = np.rint(values.clip(0, top) * (255 / top)).astype(np.uint8)
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0 and image.mode != "F":
        grey = 255 - grey  # white is zero, which Pillow heeds in 8 bits only
    return Image.fromarray(grey).convert("RGB"), alpha, True


def _integer_range(image: Image.Image, values: np.ndarray, tags: Mapping[int, Any]) -> tuple[np.ndarray, int]:
    """The values, and the one that is white; see `decode`."""
    bits = tags.get(ExifTags.Base.BitsPerSample, (32,))[0]
    unsigned = tags.get(ExifTags.Base.SampleFormat, (1,))[0] == 1
    if image.mode != "I" or image.format in ("PNG", "PPM"):
        return values, 4095 if image.mode == "I;16" and bits == 12 else 65535
    if tags and unsigned and bits == 32:
        values = values.view(np.uint32)
    if values.min() < 0:
        raise ValueError(f"its grey levels begin at {values.min()}, and negative ones have no meaning")
    if bits == 16:
        return values, 32767
    all_bits = np.iinfo(values.dtype).max
    return values, next(int(top) for top in (255, 65535, all_bits) if values.max() <= top)


def _float_range(values: np.ndarray) -> int:
    """1 or 255, the value that is white; see `decode`."""
    low, high = float(values.min()), float(values.max())
    for begin, top in ((0, 1), (2, 255)):
        if low >= -TOLERANCE and begin <= high <= (1 + TOLERANCE) * top:
            return top
    if np.isnan(values).any():
        raise ValueError("it holds NaN")
    raise ValueError(f"its floating-point values reach from {low:.4g} to {high:.4g}, neither 0..1 nor 0..255")
