"""Every kind of image file a user may bring: it works as expected, or one clear error says what to change."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from experiments.asking.images import MAX_PIXELS, ImageError, load_image


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def solid(mode: str, colour, size=(8, 6)) -> Image.Image:
    return Image.new(mode, size, colour)


def pixel(image: Image.Image) -> tuple[int, int, int]:
    assert image.mode == "RGB"
    return image.getpixel((0, 0))


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_path_bytes_mapping_and_pil_image_give_the_same_picture(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    path = tmp_path / "picture.png"
    picture.save(path)
    sources = [path, str(path), path.read_bytes(), {"bytes": path.read_bytes(), "path": None}, {"path": str(path)}]
    for source in [*sources, picture]:
        assert np.array_equal(np.asarray(load_image(source)), np.asarray(picture))


def test_rgba_is_composited_on_white():
    image = solid("RGBA", (255, 0, 0, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    loaded = load_image(encoded(image))
    assert pixel(loaded) == (255, 255, 255)
    assert loaded.getpixel((1, 0)) == (127, 127, 127)
    assert loaded.getpixel((2, 0)) == (255, 0, 0)


def test_palette_and_its_transparent_colour():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.putpixel((0, 0), 0)
    loaded = load_image(encoded(image, transparency=0))
    assert pixel(loaded) == (255, 255, 255)
    assert loaded.getpixel((1, 1)) == (10, 200, 30)


def test_grey_with_alpha_and_black_and_white():
    assert pixel(load_image(encoded(solid("LA", (0, 0))))) == (255, 255, 255)
    assert pixel(load_image(encoded(solid("1", 1)))) == (255, 255, 255)


def test_cmyk_jpeg_keeps_its_colour():
    red, green, blue = pixel(load_image(encoded(solid("CMYK", (0, 255, 255, 0)), "JPEG", quality=95)))
    assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_values_are_scaled_not_clipped(format):
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    loaded = load_image(encoded(Image.fromarray(values), format))
    assert [loaded.getpixel((x, 0))[0] for x in range(4)] == [0, 1, 128, 255]


def test_values_of_unknown_range_are_refused():
    for values in (np.full((2, 2), 0.5, np.float32), np.full((2, 2), 70000, np.int32)):
        with pytest.raises(ImageError, match=r"range of its values is unknown.*Convert it to 8 or 16 bits"):
            load_image(encoded(Image.fromarray(values), "TIFF"))


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (8, 4), "black")
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    loaded = load_image(encoded(image, exif=exif))
    assert loaded.size == (4, 8)
    assert loaded.getpixel((3, 0)) == (255, 255, 255)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_animation_gives_its_first_frame_and_a_warning(format):
    frames = [solid("RGB", colour) for colour in ("red", "lime", "blue")]
    data = encoded(
        frames[0], format, save_all=True, append_images=frames[1:], **({"lossless": True} if format == "WEBP" else {})
    )
    with pytest.warns(UserWarning, match="3 frames; only the first one is used"):
        assert pixel(load_image(data)) == (255, 0, 0)


@pytest.mark.parametrize(
    "options", [{"format": "JPEG"}, {"format": "MPO", "append_images": [solid("RGB", "blue")], "save_all": True}]
)
def test_a_photograph_gives_no_warning_even_with_a_preview_in_its_file(options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixel(load_image(encoded(solid("RGB", "red"), **options)))[0] > 200


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_truncated_file(tmp_path, format):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path = tmp_path / f"half.{format.lower()}"
    data = encoded(noise, format)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=f"{path.name}.*damaged"):
        load_image(path)


@pytest.mark.parametrize(
    "data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_not_an_image(data):
    with pytest.raises(ImageError, match=r"not an image file, or damaged\. Readable formats: PNG, JPEG"):
        load_image(data)


@pytest.mark.parametrize("side", [10_000, 20_000, 2**31 - 1])
def test_decompression_bomb_is_refused_before_it_is_unpacked(side):
    with pytest.raises(ImageError, match=f"{MAX_PIXELS}.*scale the image down"):
        load_image(png_header(side, side))


def test_missing_file_folder_and_address(tmp_path):
    with pytest.raises(ImageError, match=r"absent\.png: there is no such image file"):
        load_image(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="this is a folder"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="download it first"):
        load_image("https://example.org/cat.png")


@pytest.mark.parametrize("source", [None, "", 3, {"bytes": None, "path": None}, {}])
def test_something_else_than_an_image(source):
    with pytest.raises(ImageError, match="An image is a path, bytes or a PIL image; got"):
        load_image(source)


def test_truncated_pil_image_is_reported_as_well():
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    with pytest.raises(ImageError, match="truncated"):
        load_image(Image.open(io.BytesIO(data[:3000])))
