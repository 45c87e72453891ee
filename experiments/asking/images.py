"""Any image file a user may bring, as the 8-bit RGB picture a model expects - or one clear error."""

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Pillow's own bound, above which it suspects a decompression bomb: a small file that unpacks to gigabytes.
MAX_PIXELS = 89_478_485

# Picture formats only. Pillow would also run Ghostscript on an EPS file.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")

ImageSource = str | Path | bytes | Mapping[str, Any] | Image.Image


class ImageError(ValueError):
    """An image that cannot be used; the message says why and what to do."""


def load_image(source: ImageSource) -> Image.Image:
    """Read one image and convert it to RGB, 8 bits a channel, upright, fully decoded.

    Transparency is composited on white, 16-bit values are scaled to 8 bits, the EXIF orientation is applied, and of an
    animation (or a file of several pages) the first frame is taken, with a warning.

    Args:
        source: a path, the bytes of an image file, a `{"bytes": ..., "path": ...}` mapping as stored in a parquet file
            by Hugging Face Datasets, or a PIL image.

    Returns:
        A new image of mode RGB; `source` itself if it is an upright RGB image already.

    Raises:
        ImageError: missing, unreadable or truncated file, more than `MAX_PIXELS` pixels, or pixel values whose range
            is unknown (floating point, 32-bit integers beyond 16 bits).
    """
    if isinstance(source, Image.Image):
        return _convert(source, "image")
    if isinstance(source, Mapping):
        source = source["bytes"] if source.get("bytes") is not None else source.get("path")
    if isinstance(source, bytes | bytearray | memoryview):
        name, file = "image given as bytes", io.BytesIO(source)
    elif isinstance(source, str | Path) and str(source):
        name, file = str(source), _open_file(Path(source))
    else:
        raise ImageError(f"An image is a path, bytes or a PIL image; got {source!r}.")
    with file:
        return _convert(_decode(file, name), name)


def _open_file(path: Path) -> io.BytesIO:
    if "://" in str(path) or str(path).startswith(("http:", "https:", "data:")):
        raise ImageError(f"{path}: images are read from local files; download it first and give its path.")
    try:
        return io.BytesIO(path.read_bytes())
    except FileNotFoundError:
        raise ImageError(f"{path}: there is no such image file. Check the path (now in {Path.cwd()}).") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: this is a folder; give the path of one image file.") from None
    except OSError as error:
        raise ImageError(f"{path}: the image file cannot be read: {error.strerror or error}.") from error


def _decode(file: io.BytesIO, name: str) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `_check_size` is stricter
        try:
            image = Image.open(file, formats=FORMATS)
            _check_size(image, name)
            image.load()
        except ImageError:
            raise
        except Image.DecompressionBombError:
            raise ImageError(f"{name}: more than {MAX_PIXELS} pixels; scale the image down first.") from None
        except UnidentifiedImageError:
            raise ImageError(
                f"{name}: not an image file, or damaged. Readable formats: {', '.join(FORMATS)}."
            ) from None
        except Exception as error:  # Pillow's decoders meet damaged data with exceptions of many types
            raise ImageError(
                f"{name}: truncated or damaged image file ({error}). Save or download it again."
            ) from error
    if getattr(image, "is_animated", False) and image.format != "MPO":  # an MPO file is one photograph and its preview
        warnings.warn(f"{name}: {image.n_frames} frames; only the first one is used.", stacklevel=4)
    return image


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height == 0:
        raise ImageError(f"{name}: the image is empty ({width} x {height} pixels).")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: {width} x {height} pixels are more than the {MAX_PIXELS} allowed; scale the image down first."
        )


def _convert(image: Image.Image, name: str) -> Image.Image:
    _check_size(image, name)
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode == "F" or image.mode.startswith("I"):
            image = _scale_to_8_bits(image, name)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return image if image.mode == "RGB" else image.convert("RGB")
    except ImageError:
        raise
    except Exception as error:  # a lazily opened PIL image decodes only here; some colour spaces have no way to RGB
        raise ImageError(f"{name}: cannot be converted to RGB from mode {image.mode} ({error}).") from error


def _scale_to_8_bits(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ImageError(
            f"{name}: the range of its values is unknown (mode {image.mode}, from {values.min()} to {values.max()}). "
            "Convert it to 8 or 16 bits a channel first."
        )
    # 65535 / 255 = 257, so white stays white; `convert` would clip everything above 255 instead.
    return Image.fromarray(np.round(values / 257).astype(np.uint8))
