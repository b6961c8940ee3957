"""The one place that turns image files into arrays, and arrays into PNG files. No torch here.

The policy, in the order of `decode`:

* only regular files are opened, and only PNG, JPEG, WebP, GIF, BMP, TIFF, PPM/PGM/PBM and, where Pillow can, AVIF content is tried,
  whatever the suffix says; HEIC and HEIF by pillow-heif, the extra `heif`, which is asked directly and not registered with Pillow;
* the size in the header is checked before pixels are allocated; compressed text chunks are limited by Pillow to 1 MB each;
* all pixels are decoded: a truncated file is an error (Pillow's `verify` accepts cut JPEGs);
* the first frame of an animation is taken, EXIF orientation is applied, an invalid orientation is ignored;
* 16-bit grey is divided by 257 (Pillow's own conversion clips it), 16-bit colour keeps the high byte;
* float and 32-bit integer pixels are refused, because their range would be a guess;
* transparent pixels are composited on `background`, so colours hidden under alpha 0 never appear;
* CMYK and YCbCr become RGB; grey stays grey (one channel), everything else gets three.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import secrets
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from models.errors import UserError, printable

_AVIF = features.check("avif")  # in Pillow from 11.3 on, where it was built so
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", *(["AVIF"] if _AVIF else []))
_USUAL = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
HEIF = (".heic", ".heif", ".hif")  # looked at without pillow-heif as well: a phone's photos should not be missing without a word
SUFFIXES = (*_USUAL, *([".avif"] if _AVIF else []), *HEIF)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2")
FITS = ("crop", "pad", "stretch")
WHITE = (255, 255, 255)
MAX_PIXELS = 89_478_485  # Pillow's own threshold for a suspicious image; 256 MiB as RGB
MAX_CUT = 10.0  # `crop` refuses an image of which it would show less than a tenth

Colour = tuple[int, int, int]
Source = str | os.PathLike[str] | bytes


class BadImage(Exception):
    """An image that cannot be used; the text is the reason. Whoever knows the path adds it."""


@dataclass(frozen=True)
class Header:
    """What can be told about an image without decoding it."""

    height: int  # after EXIF orientation
    width: int
    channels: int  # 1 or 3: what `decode` will return
    mode: str  # Pillow's name of the pixel format


@dataclass(frozen=True)
class Decoded:
    """A decoded image with what `lgm data check` reports about its file."""

    array: np.ndarray  # uint8 (H, W, 1 or 3)
    mode: str  # Pillow's name of the file's pixel format
    frames: int  # more than 1: an animation or a multi-page file, of which `array` is the first
    format: str  # Pillow's name of the file's format


def decode(source: Source, *, background: Colour = WHITE) -> np.ndarray:
    """Decode one image file (a path) or the bytes of one.

    Returns uint8 (H, W, C), upright; C is 1 for grey sources and 3 for colour. Raises BadImage with the reason.
    """
    return decode_with_info(source, background=background).array


def decode_with_info(source: Source, *, background: Colour = WHITE) -> Decoded:
    """`decode`, together with the file's pixel format and number of frames."""
    with _opened(source) as image:
        # Asked before load(), which turns some modes into others.
        mode, deep_rgb, tiff_depth = image.mode, _is_deep_rgb(image), _tiff_grey(image)
        image.load()
        array = _pixels(image, background, deep_rgb, tiff_depth)
        array = _upright(array, _orientation(image))
        # MPO is what phones call a JPEG with a second view or a depth map: no animation.
        frames = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
        return Decoded(np.ascontiguousarray(array), mode, frames, str(image.format))


def read_header(source: Source, *, background: Colour = WHITE) -> Header:
    """Size and channels that `decode` will give, from the header alone. Raises BadImage."""
    with _opened(source) as image:
        width, height = image.size
        tags = getattr(image, "tag_v2", None)
        if image.format == "TIFF" and tags:  # some versions of Pillow announce the turned size, some the stored one
            width, height = int(tags.get(256, width)), int(tags.get(257, height))
        if _orientation(image) >= 5:
            width, height = height, width
        return Header(height, width, _channels(image, background), image.mode)


# ---- opening -------------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[Image.Image]:
    """The opened image, with every failure inside the block turned into BadImage."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_PILLOW_WARNINGS)
        file: IO[bytes] = stack.enter_context(io.BytesIO(source) if isinstance(source, bytes) else _open_regular(source))
        start = file.read(32)
        file.seek(0)
        try:
            image: Image.Image = stack.enter_context(_open_heif(file) if _is_heif(start) else Image.open(file, formats=FORMATS))
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadImage(f"{width}x{height} pixels are more than the limit of {MAX_PIXELS:,} (make it smaller first)")
            yield image
        except BadImage:
            raise
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise BadImage(f"more pixels than the limit of {MAX_PIXELS:,} (make it smaller first)") from error
        except UnidentifiedImageError as error:
            raise BadImage(_what_it_is(start)) from error
        except ValueError as error:
            # Raised for a compressed PNG chunk that would expand to more than 1 MB; Pillow calls colour profiles text, too.
            bomb = "MAX_TEXT" in str(error)
            raise BadImage("a text or profile chunk is too large" if bomb else f"damaged: {printable(error)}") from error
        except MemoryError as error:
            raise BadImage("not enough memory to decode it") from error
        except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error and more
            raise BadImage(f"damaged: {printable(error) or type(error).__name__}") from error


def _is_heif(start: bytes) -> bool:
    """Whether a file begins as HEIC or HEIF. AVIF may call itself mif1 as well."""
    brands = [start[n : n + 4] for n in (8, *range(16, min(int.from_bytes(start[:4], "big"), len(start)), 4))]
    return start[4:8] == b"ftyp" and any(brand in _HEIF_BRANDS for brand in brands) and not {b"avif", b"avis"} & {*brands}


def _open_heif(file: IO[bytes]) -> Image.Image:
    try:
        plugin = importlib.import_module("pillow_heif")
    except ImportError as error:
        raise BadImage("HEIC is read by pillow-heif: pip install pillow-heif") from error
    image: Image.Image = plugin.HeifImageFile(file)
    return image


def _open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a regular file. Anything else (directory, FIFO, socket, device) is not touched: opening could block or have effects."""
    try:
        kind = os.stat(path).st_mode
        if not stat.S_ISREG(kind):
            raise BadImage(f"not a regular file but {kind_of_file(kind)}")
        return open(path, "rb")
    except FileNotFoundError as error:
        raise BadImage("no such file") from error
    except PermissionError as error:
        raise BadImage("permission denied") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise BadImage(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def kind_of_file(mode: int) -> str:
    """The kind of a non-regular file in words, from its `st_mode`."""
    kinds = ((stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))
    return next((name for test, name in kinds if test(mode)), "a device")


_STARTS = (
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"%PDF", "PDF"),
    (b"8BPS", "a Photoshop file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)


def _what_it_is(start: bytes) -> str:
    """The reason for a file that no decoder recognised, guessed from its first bytes for the message's sake."""
    accepted = "not an image of a known format (PNG, JPEG, WebP, GIF, BMP, TIFF, PPM, HEIC)"
    if not start:
        return "an empty file (0 bytes)"
    known = next((name for magic, name in _STARTS if start.startswith(magic)), None)
    if known is None and start[4:8] == b"ftyp":
        known = "AVIF or a video"
    if known is None and start.lstrip()[:1] == b"<":
        known = "HTML or XML"
    if known is None and all(byte in b"\t\n\r" or byte >= 32 for byte in start):
        known = "text"
    return f"{accepted}; the content looks like {known}" if known else f"{accepted}, or its header is damaged"


class _PillowWarnings:
    """While anyone decodes: Pillow's decompression bomb warning is an error, its other warnings are silent (the library never prints).

    The filters of `warnings` belong to the whole process, so with several decoding threads the first one in sets them and the last one
    out restores them; a `catch_warnings` per thread would restore the filters in the wrong order.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._saved = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
                warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._saved.__exit__(None, None, None)


_PILLOW_WARNINGS = _PillowWarnings()


# ---- pixels --------------------------------------------------------------------------------------------------------------------------


def _channels(image: Image.Image, background: Colour) -> int:
    """1 where the picture can hold only grey (composited on a grey background, if it has transparency), else 3."""
    grey = image.mode in ("1", "L", "LA", "La", "I") or image.mode.startswith("I;16")
    return 1 if grey and (len(set(background)) == 1 or not image.has_transparency_data) else 3


def _pixels(image: Image.Image, background: Colour, deep_rgb: bool, tiff_grey: tuple[int, bool]) -> np.ndarray:
    """uint8 (H, W, 1 or 3) of a loaded image, before orientation."""
    channels = _channels(image, background)
    if image.mode == "F":
        raise BadImage("float pixels, whose range is not known; save it as 8 or 16 bit")
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # in these two, mode I holds 16 bits
        raise BadImage("32-bit or signed integer pixels, whose range is not known; save it as 8 or 16 bit")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _deep_grey(image, background, channels, *tiff_grey)
    if image.has_transparency_data:
        # A colour key of a 16-bit PNG has 16 bits, but the pixels that Pillow compares with it have only the high byte.
        key = image.info.get("transparency")
        if deep_rgb and isinstance(key, tuple):
            image.info["transparency"] = tuple(value >> 8 for value in key)
        canvas = Image.new("RGBA", image.size, (*background, 255))
        composed = np.asarray(Image.alpha_composite(canvas, image.convert("RGBA")))
        return composed[:, :, :channels]
    if image.mode not in ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"):
        raise BadImage(f"pixels of the kind {image.mode}, which are not supported; save it as RGB")
    array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return array.reshape(*array.shape[:2], channels)


def _deep_grey(image: Image.Image, background: Colour, channels: int, largest: int, inverted: bool) -> np.ndarray:
    """16-bit grey scaled to 8 bit: 65535 / 257 = 255."""
    wide = np.asarray(image).astype(np.int64)
    scaled = (wide.clip(0, largest) * 255 + largest // 2) // largest
    grey = (255 - scaled if inverted else scaled).astype(np.uint8)
    array = np.repeat(grey[:, :, None], channels, axis=2)
    key = image.info.get("transparency")
    if isinstance(key, int):  # a PNG may name one grey value as transparent
        array[wide == key] = background[:channels]
    return array


def _is_deep_rgb(image: Image.Image) -> bool:
    """Whether a PNG stores 16 bits for each of three channels. Known only before load()."""
    return image.format == "PNG" and bool(getattr(image, "tile", None)) and "RGB;16" in str(image.tile[0].args)  # type: ignore[attr-defined]


def _tiff_grey(image: Image.Image) -> tuple[int, bool]:
    """Largest value of a deep grey TIFF (there are 12-bit ones), and whether 0 means white, which Pillow does not undo for them."""
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None:
        return 65535, False
    bits = int((tags.get(258) or (16,))[0])
    return (1 << bits) - 1, tags.get(262) == 0


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where it is absent, invalid or unreadable."""
    try:
        value = image.getexif().get(0x0112, 1)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error):
        # Damaged EXIF is no reason to refuse the pixels.
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the EXIF orientation of an (H, W, C) array."""
    if orientation >= 5:
        array = array.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array


# ---- size and channels ---------------------------------------------------------------------------------------------------------------


def fit(
    image: np.ndarray | Image.Image,
    size: tuple[int, int],
    mode: str = "crop",
    *,
    background: Colour = WHITE,
    region: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Bring an image to `size` (height, width) with an antialiased bicubic filter.

    Args:
        image: uint8 (H, W, 1 or 3), or a Pillow image of mode L or RGB.
        size: (height, width) of the result.
        mode: `crop` fills the frame and cuts what stands out on both sides alike; `pad` shows the whole image on `background`;
            `stretch` ignores the aspect ratio.
        background: colour of the bars of `pad`.
        region: (left, top, right, bottom) in pixels, may be fractional: look only at this part of the image.

    Returns uint8 (height, width, C). Raises BadImage where `crop` would show less than a tenth of the image.
    """
    array = _as_array(image)
    left, top, right, bottom = region or (0.0, 0.0, float(array.shape[1]), float(array.shape[0]))
    tall, wide = bottom - top, right - left
    height, width = size
    if mode == "stretch":
        return _resample(array, size, (left, top, right, bottom))
    if mode == "crop":
        kept_tall, kept_wide = min(tall, wide * height / width), min(wide, tall * width / height)
        cut = max(tall / kept_tall, wide / kept_wide)
        if cut > MAX_CUT:
            raise BadImage(
                f"{wide:g}x{tall:g} is too long for a crop to {width}x{height}: it would show less than 1/{MAX_CUT:g} (use --fit pad)"
            )
        x, y = left + (wide - kept_wide) / 2, top + (tall - kept_tall) / 2
        if (kept_tall, kept_wide) == (height, width):
            x, y = int(x), int(y)  # the right scale already: cut at whole pixels instead of blurring by half a pixel
        return _resample(array, size, (x, y, x + kept_wide, y + kept_tall))
    if mode == "pad":
        scale = min(height / tall, width / wide)
        inner = (max(1, round(tall * scale)), max(1, round(wide * scale)))
        small = _resample(array, inner, (left, top, right, bottom))
        bars = to_channels(np.array(background, np.uint8).reshape(1, 1, 3), small.shape[2])
        out = np.ascontiguousarray(np.broadcast_to(bars, (height, width, small.shape[2])))
        y, x = (height - inner[0]) // 2, (width - inner[1]) // 2
        out[y : y + inner[0], x : x + inner[1]] = small
        return out
    raise ValueError(f"fit mode must be one of {', '.join(FITS)}, not {mode!r}")


def resized(images: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """uint8 (..., H, W, C) -> (..., *size, C), each pixel the mean of what it covers; the same without a size, or at theirs."""
    if size is None or images.shape[-3:-1] == tuple(size):
        return images
    height, width = images.shape[-3:-1]
    down, across = height // size[0], width // size[1]
    if (down * size[0], across * size[1]) == (height, width):
        blocks = images.reshape(*images.shape[:-3], size[0], down, size[1], across, images.shape[-1])
        return (blocks.mean((-4, -2), dtype=np.float32) + 0.5).astype(np.uint8)
    flat = images.reshape(-1, *images.shape[-3:])
    made = [fit(image, (size[0], size[1]), "stretch") for image in flat]
    return np.stack(made).reshape(*images.shape[:-3], *size, images.shape[-1])


def _resample(array: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    """The part `box` (left, top, right, bottom) of `array`, resized to `size` (height, width)."""
    left, top, right, bottom = box
    if (bottom - top, right - left) == size and left == int(left) and top == int(top):
        return np.ascontiguousarray(array[int(top) : int(bottom), int(left) : int(right)])
    limited = (max(left, 0.0), max(top, 0.0), min(right, array.shape[1]), min(bottom, array.shape[0]))  # rounding may leave the image
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    out = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC, box=limited))
    return out.reshape(*size, array.shape[2])


def _as_array(image: np.ndarray | Image.Image) -> np.ndarray:
    array = np.asarray(image)
    array = array[:, :, None] if array.ndim == 2 else array
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3):
        raise ValueError(f"an image must be uint8 (H, W, 1 or 3), not {array.dtype} {array.shape}")
    return array


def to_channels(array: np.ndarray, channels: int) -> np.ndarray:
    """uint8 (..., 1 or 3) with `channels` channels: grey is repeated, colour becomes its luma (ITU-R 601, as in JPEG and Pillow)."""
    if array.shape[-1] == channels:
        return array
    if channels == 3:
        return np.repeat(array, 3, axis=-1)
    weighted = array @ np.array([19595, 38470, 7471], np.uint32)  # 16-bit fixed point, the constants of Pillow's own conversion
    return ((weighted + 0x8000) >> 16).astype(np.uint8)[..., None]


def is_grey(array: np.ndarray) -> bool:
    """Whether an image (H, W, 1 or 3) has one channel, or three that are equal, of which `to_channels` loses nothing."""
    return array.shape[2] == 1 or bool((array[..., 0] == array[..., 1]).all() and (array[..., 1] == array[..., 2]).all())


# ---- writing -------------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file to write to that appears under `path` only when the block ends well; a failure leaves nothing behind.

    Raises UserError where it cannot be written (no folder, no permission, disk full).
    """
    path = Path(path)
    temporary = path.parent / f".lgm-{os.getpid()}-{secrets.token_hex(4)}.tmp"  # the same folder, so that the rename is atomic
    try:
        try:
            with open(temporary, "xb") as file:
                yield file
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise UserError(
            f"cannot write the file ({error.strerror or error})", path, "check the folder, its permissions and free space"
        ) from error


def png_bytes(array: np.ndarray) -> bytes:
    """uint8 (H, W), (H, W, 1) or (H, W, 3) as the content of a PNG file."""
    pixels, out = _as_array(array), io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(out, format="PNG")
    return out.getvalue()


def save_png(array: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write uint8 (H, W), (H, W, 1) or (H, W, 3) as a PNG file, atomically. Raises UserError where it cannot be written."""
    data = png_bytes(array)
    with atomic_file(path) as file:
        file.write(data)
