"""Section E of the fault list: images that are broken, hostile or unusual. No torch."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import socket
import subprocess
import sys
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import badfiles
import numpy as np
import pytest
from badfiles import encoded, picture
from PIL import EpsImagePlugin, Image, ImageFile, features

from models.data import images
from models.data.dataset import DataRequest
from models.data.folder import check_folder, list_folder, load_folder
from models.data.images import BadImage, decode, decode_with_info, fit, read_header, to_channels
from models.errors import UserError

BAD = badfiles.bad_files()
RED = (255, 0, 0)


def folder_with(root: Path, **contents: bytes) -> Path:
    """A folder of good images 8x8 and the given files (`name__png=...` is name.png)."""
    (root / "a.png").write_bytes(badfiles.png(picture(8, 8)))
    for name, content in contents.items():
        (root / name.replace("__", ".")).write_bytes(content)
    return root


def request(root: Path, **fields: Any) -> DataRequest:
    return DataRequest(name=str(root), **{"workers": 1, **fields})


# ---- broken --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BAD)
def test_E1_E2_E5_E11_E12_E13_bad_content_is_refused_with_its_reason(name: str) -> None:
    content, word = BAD[name]
    with pytest.raises(BadImage, match=word):
        decode(content)


def test_E1_every_bad_file_is_reported_by_path_and_reason(tmp_path: Path) -> None:
    for name, (content, _) in BAD.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "good.png").write_bytes(badfiles.png(picture(8, 8)))
    report = check_folder(request(tmp_path))
    assert {Path(path).name for path, _ in report.bad} == set(BAD)
    assert report.count == 1
    for path, reason in report.bad:
        assert BAD[Path(path).name][1] in reason

    with pytest.raises(UserError) as error:
        load_folder(request(tmp_path, size=(8, 8)))
    message = str(error.value)
    assert f"{len(BAD)} of {len(BAD) + 1} images" in message
    assert "--skip-bad" in message
    assert "lgm data check" in message
    assert str(tmp_path / "bomb.png") in message
    assert f"and {len(BAD) - 10} more" in message

    data = load_folder(request(tmp_path, skip_bad=True))
    assert len(data) == 1
    assert Path(data.files[0]).name == "good.png"
    assert {Path(path).name for path, _ in data.bad} == set(BAD)
    assert any("--skip-bad" in note for note in data.notes)
    assert np.array_equal(data.images[0], picture(8, 8))


def test_E1_a_skipped_file_leaves_no_trace_in_the_others(tmp_path: Path) -> None:
    (tmp_path / "grey.png").write_bytes(badfiles.png(picture(8, 8, 1)))
    alone = load_folder(request(tmp_path))
    (tmp_path / "cut.png").write_bytes(badfiles.png(picture(40, 30))[:-60])  # its header speaks of colour and another size
    assert load_folder(request(tmp_path, skip_bad=True)).fingerprint() == alone.fingerprint()
    assert check_folder(request(tmp_path)).shape == (8, 8, 1)


def test_E1_only_bad_files_cannot_be_skipped(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(UserError, match="1 of 1") as error:
        load_folder(request(tmp_path, skip_bad=True))
    assert "x.png" in str(error.value)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read_where_pillow_can(tmp_path: Path) -> None:
    smooth = Image.fromarray(np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8))
    content = encoded(smooth, "AVIF", quality=100)
    assert np.abs(decode(content).astype(int) - np.asarray(smooth)).mean() < 3
    (tmp_path / "a.avif").write_bytes(content)
    (tmp_path / "b.png").write_bytes(encoded(smooth, "PNG"))
    assert len(load_folder(request(tmp_path))) == 2
    with pytest.raises(BadImage):
        decode(content[: len(content) // 2])


def heic(image: Image.Image, **options: Any) -> bytes:
    """As a phone writes it."""
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    out = io.BytesIO()
    heif.from_pillow(image).save(out, quality=-1, **options)  # without loss
    return out.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_heic_is_read_by_pillow_heif(mode: str, tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 48 * 64 * 4).reshape(48, 64, 4).astype(np.uint8)
    smooth[..., 3] = 255
    image = Image.fromarray(smooth).convert(mode)
    content = heic(image)
    formats = set(Image.OPEN)
    found = decode_with_info(content)
    wanted = np.asarray(image.convert("L" if mode == "L" else "RGB")).reshape(48, 64, -1)
    assert np.abs(found.array.astype(int) - wanted).mean() < 3
    assert (found.format, found.frames) == ("HEIF", 1)
    header = read_header(content)
    assert (header.height, header.width, header.channels) == found.array.shape
    assert set(Image.OPEN) == formats, "nothing of Pillow is changed"
    (tmp_path / "a.HEIC").write_bytes(content)
    (tmp_path / "b.png").write_bytes(encoded(image, "PNG"))
    assert len(load_folder(request(tmp_path))) == 2
    with ThreadPoolExecutor(4) as threads:
        assert all(np.array_equal(found.array, other) for other in threads.map(decode, [content] * 16))
    for cut in range(8, len(content), 41):
        with pytest.raises(BadImage):
            decode(content[:cut])


def test_heic_stands_upright() -> None:
    tall = np.zeros((64, 32, 3), np.uint8)
    tall[:16] = RED
    exif = Image.Exif()
    exif[0x0112] = 6  # held so that it has to be turned clockwise
    content = heic(Image.fromarray(np.rot90(tall).copy()), exif=exif.tobytes())
    assert (read_header(content).height, read_header(content).width) == (64, 32)
    found = decode(content)
    assert found.shape == tall.shape
    assert np.abs(found.astype(int) - tall).mean() < 4


def test_a_heic_that_claims_too_much_is_a_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    content = heic(Image.new("RGB", (64, 64)))
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 64 - 1)
    with pytest.raises(BadImage, match="more than the limit"):
        decode(content)


def test_without_pillow_heif_a_heic_says_what_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for brands in (b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heix"):
        content = (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + bytes(40)
        with pytest.raises(BadImage, match="pip install pillow-heif"):
            decode(content)
    (tmp_path / "photo.heic").write_bytes(content)
    with pytest.raises(UserError, match="pillow-heif"):
        load_folder(request(tmp_path))
    for other in (b"avif\0\0\0\0mif1", b"isom\0\0\0\0mp42"):
        with pytest.raises(BadImage) as error:
            decode((8 + len(other)).to_bytes(4, "big") + b"ftyp" + other + bytes(40))
        assert "pip install" not in str(error.value)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_E2_cuts_anywhere_in_the_pixels_are_found(file_format: str) -> None:
    whole = encoded(picture(), file_format)
    tail = {"PNG": 20, "GIF": 2}.get(file_format, 0)  # end markers after complete pixels
    for cut in range(tail + 1, len(whole), 37):
        with pytest.raises(BadImage):
            decode(whole[:-cut])


def test_E2_truncated_images_stay_errors() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


# ---- pixel formats -------------------------------------------------------------------------------------------------------------------


def ramp() -> np.ndarray:
    return np.linspace(0, 65535, 64 * 64).round().astype(np.uint16).reshape(64, 64)


@pytest.mark.parametrize("kind", ["png", "tiff", "tiff big-endian", "pgm"])
def test_E3_sixteen_bit_grey_is_scaled(kind: str) -> None:
    wide = ramp()
    content = {
        "png": lambda: badfiles.grey16_png(wide),
        "tiff": lambda: encoded(wide, "TIFF"),
        "tiff big-endian": lambda: encoded(Image.frombytes("I;16B", (64, 64), wide.astype(">u2").tobytes()), "TIFF"),
        "pgm": lambda: b"P5 64 64 65535\n" + wide.astype(">u2").tobytes(),
    }[kind]()
    array = decode(content)
    assert array.shape == (64, 64, 1)
    assert abs(array.mean() - 127.5) < 1
    assert np.array_equal(array[:, :, 0], np.round(wide / 257).astype(np.uint8))


def test_E3_transparent_value_of_sixteen_bit_grey_becomes_background() -> None:
    wide = np.array([[0, 1000], [1001, 65535]], np.uint16)
    array = decode(badfiles.grey16_png(wide, badfiles.chunk(b"tRNS", b"\x03\xe8")), background=RED)
    assert array.tolist() == [[[0, 0, 0], [255, 0, 0]], [[4, 4, 4], [255, 255, 255]]]


def test_E4_sixteen_bit_colour_keeps_the_high_byte() -> None:
    wide = np.random.default_rng(0).integers(0, 65536, (8, 8, 3)).astype(np.uint16)
    assert np.array_equal(decode(badfiles.rgb16_png(wide)), (wide >> 8).astype(np.uint8))


def test_E4_transparent_colour_of_sixteen_bit_png_is_hidden() -> None:
    wide = np.full((4, 4, 3), 0x1234, np.uint16)
    content = badfiles.rgb16_png(wide, badfiles.chunk(b"tRNS", b"\x12\x34" * 3))
    assert (decode(content) == 255).all()


def test_E6_cmyk_and_ycck_white_stays_white() -> None:
    cmyk = encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG")
    for content in (cmyk, badfiles.white_ycck_jpeg()):
        assert Image.open(io.BytesIO(content)).mode == "CMYK"
        array = decode(content)
        assert array.shape == (16, 16, 3)
        assert array.min() >= 253


def transparent_files() -> dict[str, bytes]:
    """Every way to hide red under full transparency."""
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([*RED, 0, 255, 0])
    plain = Image.new("RGB", (4, 4), RED)
    return {
        "RGBA": encoded(Image.new("RGBA", (4, 4), (*RED, 0)), "PNG"),
        "LA": encoded(Image.new("LA", (4, 4), (90, 0)), "PNG"),
        "palette index": encoded(palette, "PNG", transparency=0),
        "palette alphas": encoded(palette, "PNG", transparency=b"\0\xff"),
        "colour key": encoded(plain, "PNG", transparency=RED),
        "grey key": encoded(Image.new("L", (4, 4), 90), "PNG", transparency=90),
        "GIF": encoded(palette, "GIF", transparency=0),
        "WEBP": encoded(Image.new("RGBA", (4, 4), (*RED, 0)), "WEBP", lossless=True, exact=True),
        "TIFF": encoded(Image.new("RGBA", (4, 4), (*RED, 0)), "TIFF"),
    }


@pytest.mark.parametrize("kind", transparent_files())
def test_E7_colour_under_transparency_never_appears(kind: str) -> None:
    content = transparent_files()[kind]
    assert (decode(content) == 255).all()
    blue = decode(content, background=(0, 0, 255))
    assert blue.shape[2] == 3
    assert (blue == (0, 0, 255)).all()
    assert read_header(content, background=(0, 0, 255)).channels == 3


def test_E7_half_transparency_is_mixed_and_grey_stays_grey() -> None:
    array = decode(encoded(Image.new("LA", (4, 4), (0, 128)), "PNG"))
    assert array.shape == (4, 4, 1)
    assert abs(int(array[0, 0, 0]) - 127) <= 1


def test_E8_mixed_modes_become_one_kind_and_are_reported_once(tmp_path: Path) -> None:
    grey = picture(8, 8, 1)
    (tmp_path / "bit.png").write_bytes(encoded(Image.fromarray(grey).convert("1"), "PNG"))
    (tmp_path / "grey.png").write_bytes(badfiles.png(grey))
    only_grey = load_folder(request(tmp_path))
    assert only_grey.images.shape == (2, 8, 8, 1)
    assert not only_grey.notes
    assert set(np.unique(only_grey.images[0])) == {0, 255}
    (tmp_path / "rgb.png").write_bytes(badfiles.png(picture(8, 8)))
    mixed = load_folder(request(tmp_path))
    assert mixed.images.shape == (3, 8, 8, 3)
    assert [note for note in mixed.notes if "2 grey and 1 colour" in note]
    assert len(mixed.notes) == 1
    assert check_folder(request(tmp_path)).modes == {"1": 1, "L": 1, "RGB": 1}
    assert load_folder(request(tmp_path, channels="1")).images.shape == (3, 8, 8, 1)


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """The upright picture for a stored `array`, written from the EXIF standard's table of what row 0 and column 0 show."""
    return {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.swapaxes(a, 0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
        8: lambda a: np.rot90(a, 1),
    }[orientation](array)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF", "JPEG", "TIFF lzw"])
def test_E9_orientation_is_undone(orientation: int, file_format: str) -> None:
    stored = picture(16, 24)
    codecs: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "TIFF lzw": {"compression": "tiff_lzw"}}
    options = codecs.get(file_format, {})
    content = badfiles.with_orientation(stored, orientation, file_format.split()[0], **options)
    reference = turned(decode(encoded(stored, "JPEG")) if file_format == "JPEG" else stored, orientation)
    array = decode(content)
    assert np.array_equal(array, reference)
    header = read_header(content)
    assert (header.height, header.width, header.channels) == array.shape


@pytest.mark.parametrize("value", [0, 9, 99, 65535])
def test_E9_invalid_orientation_is_ignored(value: int) -> None:
    assert np.array_equal(decode(badfiles.with_orientation(picture(), value)), picture())


def test_E9_damaged_exif_is_ignored() -> None:
    content = encoded(picture(), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff broken")
    assert np.array_equal(decode(content), picture())


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_E10_first_frame_of_an_animation(file_format: str, tmp_path: Path) -> None:
    content = badfiles.animation(file_format)
    decoded = decode_with_info(content)
    assert decoded.frames == 3
    assert (decoded.array == RED).all()
    for name in ("a.gif", "b.gif"):
        (tmp_path / name).write_bytes(content)
    notes = load_folder(request(tmp_path)).notes
    assert len(notes) == 1
    assert "2 animations" in notes[0]
    assert "3 frames" in notes[0]
    assert check_folder(request(tmp_path)).frames == {3: 2}


# ---- hostile -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [10_000, 100_000])
def test_E11_size_is_checked_before_allocation(side: int) -> None:
    content = badfiles.huge_header_png(side)
    tracemalloc.start()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(BadImage, match="89,478,485"):
            decode(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not caught
    assert peak < 4 << 20


def test_E11_warning_filters_are_left_as_they_were() -> None:
    def one(number: int) -> int:
        try:
            return decode(badfiles.huge_header_png(10_000) if number % 3 else badfiles.png()).size
        except BadImage:
            return 0

    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(40))) == [one(i) for i in range(40)]
    assert list(warnings.filters) == before


def test_a_picture_beyond_the_limit_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(BadImage, match=r"^12x10 pixels are more than the limit of 100 \(make it smaller first\)$"):
        decode(encoded(Image.new("L", (12, 10)), "PNG"))


def test_E12_text_and_profile_bombs_stay_small() -> None:
    text, profile = badfiles.text_bomb_png(), badfiles.icc_bomb_png()
    tracemalloc.start()
    with pytest.raises(BadImage, match="too large"):
        decode(text)
    with contextlib.suppress(BadImage):  # refused or ignored, as the version of Pillow has it
        decode(profile)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 << 20


def test_E13_no_program_is_started_for_postscript(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **options: Any) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", never)
    monkeypatch.setattr(subprocess, "Popen", never)
    eps = encoded(picture(8, 8), "EPS")
    assert Image.open(io.BytesIO(eps)).format == "EPS"  # Pillow alone would take it
    with pytest.raises(BadImage, match="PostScript"):
        decode(eps)


def test_E14_content_decides_and_suffix_case_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "really_png.jpg").write_bytes(badfiles.png(picture(8, 8)))
    (tmp_path / "UPPER.JPEG").write_bytes(badfiles.jpeg(picture(8, 8)))
    data = load_folder(request(tmp_path))
    assert [Path(f).name for f in data.files] == ["UPPER.JPEG", "really_png.jpg"]
    assert np.array_equal(data.images[1], picture(8, 8))


def test_E15_sizes_from_one_pixel_to_too_long(tmp_path: Path) -> None:
    for name, size in (("tiny", (1, 1)), ("small", (5, 9)), ("large", (300, 200)), ("zlong", (1, 5000))):
        (tmp_path / f"{name}.png").write_bytes(badfiles.png(picture(*size)))
    with pytest.raises(UserError, match="1 of 4") as error:
        load_folder(request(tmp_path))
    assert "zlong.png: 5000x1 is too long" in str(error.value)
    assert "--fit pad" in str(error.value)
    assert load_folder(request(tmp_path, skip_bad=True)).images.shape == (3, 64, 64, 3)
    for mode in ("pad", "stretch"):
        assert load_folder(request(tmp_path, fit=mode)).images.shape == (4, 64, 64, 3)


# ---- file system ---------------------------------------------------------------------------------------------------------------------


def test_E16_directories_fifos_and_sockets_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_with(tmp_path)
    (tmp_path / "dir.png").mkdir()
    os.mkfifo(tmp_path / "fifo.png")
    monkeypatch.chdir(tmp_path)  # socket addresses are short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        data = load_folder(request(tmp_path))
    assert len(data) == 1
    for kind, name in (("directory", "dir.png"), ("FIFO", "fifo.png"), ("socket", "socket.png")):
        assert any(kind in note and name in note for note in data.notes)
    with pytest.raises(BadImage, match="a FIFO"):
        decode(tmp_path / "fifo.png")
    with pytest.raises(BadImage, match="a device"):
        decode("/dev/zero")
    with pytest.raises(BadImage, match="a directory"):
        decode(tmp_path / "dir.png")


def test_E17_links_to_files_are_followed_anywhere_and_links_to_folders_nowhere(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    (root / "a.png").write_bytes(badfiles.png(picture(8, 8)))
    (outside / "1f00").write_bytes(badfiles.png(picture(8, 8, seed=1)))  # a store of files by their hashes: the link has the suffix
    os.mkfifo(outside / "fifo.png")
    (root / "sub" / "loop").symlink_to(root)
    (root / "self.png").symlink_to(root / "self.png")
    (root / "dangling.png").symlink_to(root / "nothing.png")
    (root / "device.png").symlink_to("/dev/zero")
    (root / "fifo.png").symlink_to(outside / "fifo.png")
    (root / "folder").symlink_to(outside)
    (root / "folder.png").symlink_to(outside)
    (root / "stored.png").symlink_to(outside / "1f00")
    (root / "again.png").symlink_to("stored.png")
    (root / "twin.png").symlink_to("a.png")
    data = load_folder(request(root))
    assert [Path(f).name for f in data.files] == ["a.png", "again.png", "stored.png", "twin.png"]
    assert np.array_equal(data.images[2], picture(8, 8, seed=1))
    assert list_folder(request(root)).notes == (
        "dangling link, skipped: dangling.png",
        "a device named like an image, skipped: device.png",
        "a FIFO named like an image, skipped: fifo.png",
        f"link to a folder ({outside}), skipped: folder",
        f"link to a folder ({outside}), skipped: folder.png",
        "2 more entries skipped",  # self.png and sub/loop
    )
    (tmp_path / "link").symlink_to(root)  # the root itself may be a link
    assert len(load_folder(request(tmp_path / "link"))) == 4


def test_E17_a_folder_of_nothing_but_links(tmp_path: Path) -> None:
    """As a store of files leaves it, also with classes; a link that leads nowhere is named where no image remains."""
    (tmp_path / "store").mkdir()
    for number, name in enumerate(("cat/1.png", "cat/2.png", "dog/1.png")):
        (tmp_path / "store" / f"{number}").write_bytes(badfiles.png(picture(8, 8, seed=number)))
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).symlink_to(Path("../../store") / f"{number}")
    data = load_folder(request(tmp_path / "data"))
    assert (data.classes, len(data)) == (("cat", "dog"), 3)
    assert not data.notes
    assert check_folder(request(tmp_path / "data")).count == 3
    for path in (tmp_path / "store").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="no images in this folder") as error:
        load_folder(request(tmp_path / "data"))
    assert f"dangling link, skipped: {Path('cat/1.png')}" in str(error.value)


def test_E18_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_with(tmp_path, locked__png=badfiles.png(picture(8, 8)))

    def guarded(path: Any, *args: Any, **options: Any) -> Any:  # chmod would not stop root
        if "locked" in str(path):
            raise PermissionError(13, "Permission denied")
        return builtins.open(path, *args, **options)

    monkeypatch.setattr(images, "open", guarded, raising=False)
    with pytest.raises(UserError, match=r"locked\.png: permission denied"):
        load_folder(request(tmp_path))


def test_E19_odd_names_work_and_print_escaped(tmp_path: Path) -> None:
    names = ["with space.png", "quote'\".png", "new\nline.png", "\N{GRINNING FACE}.png", "a" * 251 + ".png", os.fsdecode(b"\xff\xfe.png")]
    made = []
    for name in names:
        try:
            (tmp_path / name).write_bytes(badfiles.png(picture(8, 8)))
            made.append(name)
        except OSError:  # a file system that refuses the name
            continue
    data = load_folder(request(tmp_path))
    assert [os.path.basename(f) for f in data.files] == sorted(made, key=os.fsencode)
    for name in made:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError) as error:
        load_folder(request(tmp_path, size=(8, 8)))
    message = str(error.value)
    assert "new\\nline.png" in message
    assert "new\nline" not in message
    message.encode("utf-8")  # no lone surrogates: it can be printed anywhere


def test_E20_litter_of_operating_systems_is_ignored_silently(tmp_path: Path) -> None:
    folder_with(tmp_path, **{".DS_Store": b"x", "Thumbs.db": b"x", "._a.png": b"\0\5\x16\7", ".hidden.png": b""})
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "._a.png").write_bytes(b"\0\5\x16\7")
    data = load_folder(request(tmp_path))
    assert len(data) == 1
    assert not data.notes


def test_E22_the_path_survives_the_threads(tmp_path: Path) -> None:
    content = badfiles.png(picture(4, 4))
    for i in range(1000):
        (tmp_path / f"{i:04d}.png").write_bytes(content if i != 617 else content[:-40])
    with pytest.raises(UserError, match="1 of 1,000") as error:
        load_folder(request(tmp_path, workers=2))
    assert str(tmp_path / "0617.png") in str(error.value)
    data = load_folder(request(tmp_path, workers=2, skip_bad=True))
    assert len(data) == 999
    assert "0617" not in " ".join(data.files)
    assert (data.images == picture(4, 4)).all()


# ---- size, channels, writing ---------------------------------------------------------------------------------------------------------


def test_fit_keeps_what_fits_and_centres_the_rest() -> None:
    array = picture(10, 30)
    assert np.array_equal(fit(array, (10, 30)), array)
    assert np.array_equal(fit(array, (10, 10)), array[:, 10:20])  # the right scale: cut, not resampled
    assert np.array_equal(fit(picture(11, 30), (11, 13)), picture(11, 30)[:, 8:21])
    padded = fit(array, (30, 30), "pad", background=(1, 2, 3))
    assert np.array_equal(padded[10:20], array)
    assert (padded[:10] == (1, 2, 3)).all()
    assert (padded[20:] == (1, 2, 3)).all()
    assert fit(array, (7, 5), "stretch").shape == (7, 5, 3)
    assert fit(picture(20, 20, 1)[:, :, None], (6, 9)).shape == (6, 9, 1)
    with pytest.raises(ValueError, match="crop, pad, stretch"):
        fit(array, (8, 8), "squeeze")


def test_fit_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 255
    assert abs(fit(stripes, (16, 16)).astype(int) - 127).max() <= 12  # picking single pixels would give 0 or 255


def test_channels_follow_pillow() -> None:
    array = picture(64, 64)
    assert np.array_equal(to_channels(array, 1)[:, :, 0], np.asarray(Image.fromarray(array).convert("L")))
    assert np.array_equal(to_channels(array[:, :, :1], 3)[:, :, 2], array[:, :, 0])


def test_save_png_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for array in (picture(5, 7), picture(5, 7, 1), picture(5, 7, 1)[:, :, None]):
        images.save_png(array, tmp_path / "x.png")
        assert np.array_equal(decode(tmp_path / "x.png").squeeze(), array.squeeze())
    before = (tmp_path / "x.png").read_bytes()
    with pytest.raises(UserError, match="nowhere"):
        images.save_png(picture(), tmp_path / "nowhere" / "x.png")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images.os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        images.save_png(picture(9, 9), tmp_path / "x.png")
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]
    assert (tmp_path / "x.png").read_bytes() == before
