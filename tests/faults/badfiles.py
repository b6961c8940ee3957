"""Image files made in memory from a few bytes: broken, hostile and merely unusual ones. No binary fixtures in git."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CODE_EXIF_ORIENTATION = 0x0112


def encoded(image: Image.Image | np.ndarray, file_format: str, **options: Any) -> bytes:
    """The bytes of `image` as a file of that format."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def picture(height: int = 24, width: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Noise, uint8 (H, W, 3) or (H, W): what no codec can shorten, so a cut always cuts pixels."""
    shape = (height, width, 3) if channels == 3 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def png(array: np.ndarray | None = None) -> bytes:
    return encoded(picture() if array is None else array, "PNG")


def jpeg(array: np.ndarray | None = None, **options: Any) -> bytes:
    return encoded(picture() if array is None else array, "JPEG", **options)


# ---- PNG by hand ---------------------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG from its header fields, its unfiltered rows (each after a zero byte) and further chunks between the two."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def rows_of(array: np.ndarray) -> bytes:
    """PNG rows of big-endian samples, each with filter type 0."""
    samples = array.astype(">u2") if array.dtype == np.uint16 else array
    return b"".join(b"\0" + row.tobytes() for row in samples)


def grey16_png(array: np.ndarray, extra: bytes = b"") -> bytes:
    return raw_png(array.shape[1], array.shape[0], 16, 0, rows_of(array), extra)


def rgb16_png(array: np.ndarray, extra: bytes = b"") -> bytes:
    return raw_png(array.shape[1], array.shape[0], 16, 2, rows_of(array), extra)


def huge_header_png(side: int) -> bytes:
    """A PNG of a few bytes that announces side x side pixels."""
    return raw_png(side, side, 8, 2, b"\0\0\0\0")


def text_bomb_png(size: int = 8 << 20) -> bytes:
    """A valid PNG with a compressed text chunk that expands to `size` bytes."""
    return raw_png(1, 1, 8, 0, b"\0\x80", chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * size)))


def icc_bomb_png(size: int = 8 << 20) -> bytes:
    return raw_png(1, 1, 8, 0, b"\0\x80", chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"a" * size)))


def flipped_idat_png() -> bytes:
    """One bit of the compressed pixels is wrong."""
    good = bytearray(png())
    good[good.index(b"IDAT") + 4 + 40] ^= 0x10
    return bytes(good)


# ---- unusual but good ----------------------------------------------------------------------------------------------------------------


def with_orientation(array: np.ndarray, value: int, file_format: str = "PNG", **options: Any) -> bytes:
    exif = Image.Exif()
    exif[CODE_EXIF_ORIENTATION] = value
    return encoded(array, file_format, exif=exif.tobytes(), **options)


def white_ycck_jpeg() -> bytes:
    """A white YCCK JPEG, which Pillow cannot write: a CMYK one with the planes of white in YCCK, and its Adobe marker changed."""
    data = bytearray(encoded(Image.new("CMYK", (16, 16), (255, 127, 127, 0)), "JPEG", quality=100))
    marker = data.index(b"Adobe")
    assert data[marker + 11] == 0  # the transform: 0 is CMYK, 2 is YCCK
    data[marker + 11] = 2
    return bytes(data)


def animation(file_format: str, colours: Sequence[tuple[int, int, int]] = ((255, 0, 0), (0, 255, 0), (0, 0, 255))) -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in colours]
    options = {"lossless": True} if file_format == "WEBP" else {}
    return encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)


# ---- the collection ------------------------------------------------------------------------------------------------------------------


def bad_files() -> dict[str, tuple[bytes, str]]:
    """File name -> (content, a word that the reason must contain)."""
    return {
        "empty.png": (b"", "empty"),
        "text.jpg": (b"this is not a picture at all\n", "text"),
        "page.png": (b"<!DOCTYPE html><html><body>404 not found</body></html>", "HTML"),
        "lfs.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "LFS"),
        "half.jpg": (jpeg(picture(64, 64))[:2000], "truncated"),
        "cut2.jpg": (jpeg()[:-2], "truncated"),
        "half.png": (png()[: len(png()) // 2], "truncated"),
        "flipped.png": (flipped_idat_png(), "damaged"),
        "half.webp": (encoded(picture(), "WEBP", lossless=True)[:200], "damaged"),
        "half.gif": (encoded(picture(), "GIF")[:-100], "truncated"),
        "half.bmp": (encoded(picture(), "BMP")[:-100], "truncated"),
        "half.tif": (encoded(picture(), "TIFF", compression="tiff_lzw")[:-100], "damaged"),
        "half.ppm": (encoded(picture(), "PPM")[:-100], "truncated"),
        "float.tif": (encoded(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8), "TIFF"), "float"),
        "int32.tif": (encoded(np.arange(64, dtype=np.int32).reshape(8, 8), "TIFF"), "32-bit"),
        "huge.png": (huge_header_png(100_000), "89,478,485"),
        "large.png": (huge_header_png(10_000), "89,478,485"),
        "bomb.png": (text_bomb_png(), "chunk is too large"),
        "eps.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n", "PostScript"),
        "pdf.png": (b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", "PDF"),
        "psd.png": (b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(64), "Photoshop"),
    }
