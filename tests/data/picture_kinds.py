"""Picture files of every kind, made of samples that are known, and what a viewer of them sees, spelled out in numpy.

H x W pixels. Nothing here uses the decoder of the project. PNG, PGM and TIFF are written by hand, since Pillow writes
few of their kinds; what Pillow writes are plain arrays in lossless formats, or blocks that JPEG keeps.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

WHITE = (255, 255, 255)
SHAPES = [(16, 16), (16, 24), (24, 16)]


@dataclass(frozen=True)
class Picture:
    """A file, and what a viewer sees of it."""

    name: str
    data: bytes
    colours: np.ndarray
    """(H, W, 3), 0..255, upright."""

    alpha: np.ndarray
    """(H, W, 1), 0..1."""

    turned: bool
    scaled: bool

    def over(self, background: tuple[int, int, int] = WHITE) -> np.ndarray:
        """(H, W, 3), 0..255."""
        return self.colours * self.alpha + np.array(background) * (1 - self.alpha)

    @property
    def composited(self) -> bool:
        return bool((self.alpha < 1).any())


@dataclass(frozen=True)
class Stored:
    """A kind of file with some samples: how to write it with an orientation, and what it shows when it is not turned.

    `colours` are (H, W) or (H, W, 3), 0..255; `alpha` is (H, W), 0..1, or 1.
    """

    write: Callable[[int], bytes]
    colours: np.ndarray
    alpha: np.ndarray | float = 1.0
    scaled: bool = False


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF 2.3, tag 0x0112: where row 0 and column 0 of the stored samples are to be seen."""
    return {
        1: image,  # top, left
        2: image[:, ::-1],  # top, right
        3: image[::-1, ::-1],  # bottom, right
        4: image[::-1],  # bottom, left
        5: image.swapaxes(0, 1),  # left, top
        6: image.swapaxes(0, 1)[:, ::-1],  # right, top
        7: image.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
        8: image.swapaxes(0, 1)[::-1],  # left, bottom
    }[orientation]


def make(kind: str, shape: tuple[int, int], orientation: int, seed: int) -> Picture:
    """A picture of a kind of `KINDS`."""
    stored = KINDS[kind](np.random.default_rng(seed), *shape)
    grey = stored.colours.ndim == 2
    colours = np.repeat(stored.colours[..., None], 3, axis=2) if grey else stored.colours
    alpha = np.broadcast_to(stored.alpha, shape)[..., None]
    extension = kind.split()[0]
    return Picture(
        f"{kind.replace(' ', '_')}_{shape[0]}x{shape[1]}_{orientation}.{extension}",
        stored.write(orientation),
        upright(colours.astype(float), orientation),
        upright(alpha, orientation),
        turned=orientation != 1,
        scaled=stored.scaled,
    )


def orientations(kind: str) -> range:
    """Those that files of this kind can carry."""
    return range(1, 9) if kind.split()[0] in ("png", "jpg", "tiff", "webp") else range(1, 2)


def all_pictures(seed: int) -> Iterator[Picture]:
    """Every kind with every orientation, in changing shapes."""
    number = seed
    for kind in KINDS:
        for orientation in orientations(kind):
            number += 1
            yield make(kind, SHAPES[number % len(SHAPES)], orientation, number)


def exif(orientation: int) -> bytes:
    """An EXIF block of that one tag, little endian."""
    return struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def packed(samples: np.ndarray, depth: int) -> bytes:
    """Rows of samples, big endian, each padded to whole bytes."""
    rows = samples.reshape(len(samples), -1).astype(np.int64)
    bits = rows[..., None] >> np.arange(depth)[::-1] & 1
    return b"".join(np.packbits(row.astype(bool)).tobytes() for row in bits)


def png(samples: np.ndarray, depth: int, colour_type: int, **chunks: bytes) -> Callable[[int], bytes]:
    """Samples (H, W) or (H, W, C) in 0..2^depth - 1; `late` puts the EXIF behind the pixels."""
    height, width = samples.shape[:2]
    rows = packed(samples, depth)
    stride = len(rows) // height
    pixels = zlib.compress(b"".join(b"\0" + rows[y * stride : (y + 1) * stride] for y in range(height)))

    def write(orientation: int) -> bytes:
        turning = [("eXIf", exif(orientation))] if orientation != 1 else []
        late = chunks.get("late") is not None
        parts = [("IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))]
        parts += [(name, data) for name, data in chunks.items() if name != "late"]
        parts += [("IDAT", pixels), *turning] if late else [*turning, ("IDAT", pixels)]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + name.encode() + data + struct.pack(">I", zlib.crc32(name.encode() + data))
            for name, data in [*parts, ("IEND", b"")]
        )

    return write


def tiff(samples: np.ndarray, depth: int, sample_format: int = 1, photometric: int = 1) -> Callable[[int], bytes]:
    """Grey samples (H, W), one strip, little endian (but packed where they are not whole bytes)."""
    pixels = packed(samples, depth) if depth % 8 else samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    height, width = samples.shape

    def write(orientation: int) -> bytes:
        tags = {256: width, 257: height, 258: depth, 259: 1, 262: photometric, 273: 8, 274: orientation, 277: 1}
        tags |= {278: height, 279: len(pixels), 339: sample_format}
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        start = 8 + len(pixels)
        return struct.pack("<2sHI", b"II", 42, start) + pixels + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"

    return write


def saved(image: Image.Image, extension: str, **options: object) -> Callable[[int], bytes]:
    """The file that Pillow writes."""

    def write(orientation: int) -> bytes:
        file = io.BytesIO()
        header = b"Exif\0\0" if extension == "jpg" else b""
        turning = {"exif": header + exif(orientation)} if orientation != 1 else {}
        image.save(file, Image.registered_extensions()[f".{extension}"], **turning, **options)
        return file.getvalue()

    return write


def png_kind(channels: int, depth: int, key: bool = False, **chunks: bytes) -> Callable[..., Stored]:
    """Grey (1 channel), grey with alpha (2), RGB (3) or RGBA (4); `key` makes one colour transparent."""

    def kind(rng: np.random.Generator, height: int, width: int) -> Stored:
        samples = rng.integers(0, 2**depth, (height, width, channels))
        own_chunks = dict(chunks)
        alpha: np.ndarray | float = 1.0
        if key:
            samples[rng.random((height, width)) < 0.3] = samples[0, 0]
            alpha = (samples != samples[0, 0]).any(axis=2).astype(float)
            own_chunks["tRNS"] = samples[0, 0].astype(">u2").tobytes()
        elif channels in (2, 4):
            samples[rng.random((height, width)) < 0.5, -1] = rng.choice([0, 2**depth - 1])
        write = png(samples, depth, {1: 0, 2: 4, 3: 2, 4: 6}[channels], **own_chunks)
        # Of several channels of 16 bits Pillow reads the upper half.
        seen = samples >> 8 if depth == 16 and channels > 1 else samples * 255 / (2**depth - 1)
        if channels in (2, 4):
            alpha = seen[..., -1] / 255
        colours = seen[..., 0] if channels < 3 else seen[..., :3]
        return Stored(write, colours, alpha, scaled=depth == 16 and channels == 1)

    return kind


def png_palette(depth: int, transparent: bool) -> Callable[..., Stored]:
    """Indices into a palette, which may have an alpha for every entry."""

    def kind(rng: np.random.Generator, height: int, width: int) -> Stored:
        palette = rng.integers(0, 256, (2**depth, 3))
        alphas = rng.choice([0, 77, 200, 255], 2**depth)
        indices = rng.integers(0, 2**depth, (height, width))
        chunks = {"PLTE": palette.astype(np.uint8).tobytes()}
        if transparent:
            chunks["tRNS"] = alphas.astype(np.uint8).tobytes()
        alpha = alphas[indices] / 255 if transparent else 1.0
        return Stored(png(indices, depth, 3, **chunks), palette[indices], alpha)

    return kind


def tiff_kind(dtype: str, top: int, white: int, photometric: int = 1, depth: int = 0) -> Callable[..., Stored]:
    """Grey numbers in 0..top, of which `white` is the brightest."""

    def kind(rng: np.random.Generator, height: int, width: int) -> Stored:
        numbers = rng.integers(0, top, (height, width), endpoint=True, dtype=np.int64)
        numbers[0, 0] = top
        if dtype == "f4" and top == 1:
            numbers = rng.random((height, width))
        samples = numbers.astype(dtype)
        bits = depth or samples.dtype.itemsize * 8
        formats = {"u": 1, "i": 2, "f": 3}
        seen = samples.astype(float) * 255 / white
        seen = 255 - seen if photometric == 0 else seen
        return Stored(tiff(samples, bits, formats[dtype[0]], photometric), seen, scaled=white != 255)

    return kind


def pillow_kind(mode: str, extension: str, **options: object) -> Callable[..., Stored]:
    """Random samples of 8 bits in one of Pillow's modes."""

    def kind(rng: np.random.Generator, height: int, width: int) -> Stored:
        channels = len(Image.new(mode, (1, 1)).getbands())
        samples = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
        if mode in ("LA", "RGBA"):
            samples[rng.random((height, width)) < 0.5, -1] = rng.choice([0, 255])
        if mode == "1":
            samples = np.where(samples < 128, 0, 255).astype(np.uint8)
            image = Image.fromarray(samples[..., 0]).convert("1", dither=Image.Dither.NONE)
        else:
            image = Image.fromarray(samples[..., 0] if channels == 1 else samples, mode)
        alpha = samples[..., -1] / 255 if mode in ("LA", "RGBA") else 1.0
        if mode == "CMYK":
            colours = (255.0 - samples[..., :3]) * (255.0 - samples[..., 3:]) / 255
        else:
            colours = samples[..., :3] if channels >= 3 else samples[..., 0]
        return Stored(saved(image, extension, **options), colours, alpha)

    return kind


def pillow_palette(extension: str, transparent: bool) -> Callable[..., Stored]:
    """Indices into a palette of 256 colours, one of which may be transparent."""

    def kind(rng: np.random.Generator, height: int, width: int) -> Stored:
        palette = rng.integers(0, 256, (256, 3), dtype=np.uint8)
        indices = rng.integers(0, 256, (height, width), dtype=np.uint8)
        indices[rng.random((height, width)) < 0.3] = 7
        image = Image.fromarray(indices, "P")
        image.putpalette(palette.tobytes())
        options = {"transparency": 7} if transparent else {}
        return Stored(saved(image, extension, **options), palette[indices], indices != 7 if transparent else 1.0)

    return kind


def jpeg_kind(mode: str) -> Callable[..., Stored]:
    """Blocks of 8 x 8 pixels of one colour, which JPEG keeps but for the rounding of its colour space."""

    def kind(rng: np.random.Generator, height: int, width: int) -> Stored:
        channels = {"L": 1, "RGB": 3, "CMYK": 4}[mode]
        samples = rng.integers(0, 256, (1000, channels), dtype=np.uint8)
        if mode == "RGB":  # none that another arithmetic would round differently
            samples = samples[(np.abs(ycbcr(samples) % 1 - 0.5) > 0.05).all(axis=1)]
        samples = samples[: height * width // 64].reshape(height // 8, width // 8, channels)
        samples = samples.repeat(8, axis=0).repeat(8, axis=1)
        image = Image.fromarray(samples[..., 0] if mode == "L" else samples, mode)
        colours = samples[..., 0] if mode == "L" else jfif(samples) if mode == "RGB" else None
        if mode == "CMYK":
            colours = (255.0 - samples[..., :3]) * (255.0 - samples[..., 3:]) / 255
        return Stored(saved(image, "jpg", quality=100, subsampling=0), colours)

    return kind


def ycbcr(rgb: np.ndarray) -> np.ndarray:
    """By the formulas of JFIF 1.02, not rounded."""
    weights = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    return rgb @ weights.T + np.array([0, 128, 128])


def jfif(rgb: np.ndarray) -> np.ndarray:
    """RGB after it was rounded to YCbCr."""
    y, cb, cr = np.moveaxis(np.rint(ycbcr(rgb)).clip(0, 255) - np.array([0, 128, 128]), -1, 0)
    return np.stack((y + 1.402 * cr, y - 0.34414 * cb - 0.71414 * cr, y + 1.772 * cb), axis=-1).clip(0, 255)


def pgm_kind(white: int) -> Callable[..., Stored]:
    """Grey in 0..white."""

    def kind(rng: np.random.Generator, height: int, width: int) -> Stored:
        samples = rng.integers(0, white, (height, width), endpoint=True)
        pixels = samples.astype(">u2" if white > 255 else np.uint8).tobytes()
        data = f"P5\n{width} {height}\n{white}\n".encode() + pixels
        return Stored(lambda orientation: data, samples * 255 / white, scaled=white > 255)

    return kind


LOSSLESS_WEBP = {"lossless": True, "exact": True}
KINDS: dict[str, Callable[..., Stored]] = {
    **{f"png grey {depth}": png_kind(1, depth) for depth in (1, 2, 4, 8, 16)},
    **{f"png grey {depth} key": png_kind(1, depth, key=True) for depth in (1, 2, 4, 8, 16)},
    **{f"png palette {depth}": png_palette(depth, transparent=False) for depth in (1, 2, 4, 8)},
    **{f"png palette {depth} alpha": png_palette(depth, transparent=True) for depth in (1, 2, 4, 8)},
    **{f"png grey alpha {depth}": png_kind(2, depth) for depth in (8, 16)},
    **{f"png rgb {depth}": png_kind(3, depth) for depth in (8, 16)},
    **{f"png rgb {depth} key": png_kind(3, depth, key=True) for depth in (8, 16)},
    **{f"png rgba {depth}": png_kind(4, depth) for depth in (8, 16)},
    "png rgb late": png_kind(3, 8, late=b""),
    "tiff u16": tiff_kind("u2", 65535, 65535),
    "tiff u16 white is zero": tiff_kind("u2", 65535, 65535, photometric=0),
    "tiff u12": tiff_kind("u2", 4095, 4095, depth=12),
    "tiff s16": tiff_kind("i2", 32767, 32767),
    "tiff u32": tiff_kind("u4", 2**32 - 1, 2**32 - 1),
    "tiff s32": tiff_kind("i4", 2**31 - 1, 2**31 - 1),
    "tiff s32 of 16": tiff_kind("i4", 65535, 65535),
    "tiff s32 of 8": tiff_kind("i4", 255, 255),
    "tiff float of 1": tiff_kind("f4", 1, 1),
    "tiff float of 255": tiff_kind("f4", 255, 255),
    **{f"tiff {mode}": pillow_kind(mode, "tiff") for mode in ("1", "L", "LA", "RGB", "RGBA", "CMYK")},
    **{f"tiff {mode} lzw": pillow_kind(mode, "tiff", compression="tiff_lzw") for mode in ("L", "RGBA")},
    "tiff palette": pillow_palette("tiff", transparent=False),
    **{f"webp {mode}": pillow_kind(mode, "webp", **LOSSLESS_WEBP) for mode in ("RGB", "RGBA")},
    **{f"jpg {mode}": jpeg_kind(mode) for mode in ("L", "RGB", "CMYK")},
    "gif": pillow_palette("gif", transparent=False),
    "gif transparent": pillow_palette("gif", transparent=True),
    **{f"pgm {white}": pgm_kind(white) for white in (100, 255, 1000, 65535)},
    **{f"bmp {mode}": pillow_kind(mode, "bmp") for mode in ("1", "L", "RGB")},
    "bmp palette": pillow_palette("bmp", transparent=False),
}
"""Extension and kind -> what makes samples of it: (random numbers, height, width) -> `Stored`."""
