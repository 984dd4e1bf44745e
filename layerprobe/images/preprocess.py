"""From a decoded image to the model's input: resizing, cropping and normalisation.

With the same settings the result equals `keras.utils.load_img` with `img_to_array`, and then
`keras.applications.imagenet_utils.preprocess_input`, bit for bit.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageColor

from layerprobe.errors import UsageError
from layerprobe.records import Preprocessing

if TYPE_CHECKING:
    from layerprobe.records import Array

MAX_SIZE = 16_384
"""Pixels of one side of the model's input."""

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
CROPS = ("center", "none", "pad")

_PRESETS: dict[str, dict[str, Any]] = {
    "raw": {},
    "unit": {"scale": 255.0},
    "tf": {"scale": 127.5, "mean": (1.0,)},
    "torch": {"scale": 255.0, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "caffe": {"mean": (103.939, 116.779, 123.68), "channel_order": "bgr"},
}
PRESETS = tuple(_PRESETS)
ORDERS: tuple[Literal["rgb", "bgr"], ...] = ("rgb", "bgr")
"""Of the channels; before a preset or MEAN/STD, as in "bgr:unit", the order in which the model takes them."""


def parse_size(text: str) -> tuple[int, int]:
    """Read a size: "224" is 224 x 224, "224x192" is 224 high and 192 wide.

    Returns:
        (H, W) in pixels, each 1 to `MAX_SIZE`.

    Raises:
        UsageError: The text is no such size.
    """
    match = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", text.strip().lower(), re.ASCII)
    size = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not all(1 <= side <= MAX_SIZE for side in size):
        raise UsageError(
            f"a size is HEIGHT or HEIGHTxWIDTH in pixels, 1 to {MAX_SIZE}, as in 224 or 224x192. "
            f"Received: {text!r}"
        )
    return size


def parse_background(text: str) -> tuple[int, int, int]:
    """Read a colour: a name as in HTML ("white"), or "#rrggbb".

    Returns:
        RGB, 0 to 255.

    Raises:
        UsageError: The text is no colour, or a partly transparent one.
    """
    try:
        colour = ImageColor.getrgb(text)
    except ValueError:
        colour = None
    if colour is None or len(colour) != 3:  # a fourth value is transparency
        raise UsageError(f"a background is a colour such as white, black or #7f7f7f. Received: {text!r}")
    return colour


def parse_preprocess(
    text: str, *, size: tuple[int, int] = (224, 224), channels: Literal[1, 3, 4] = 3
) -> Preprocessing:
    """Read how pixels are normalised: the name of a preset, or MEAN/STD.

    Args:
        text: A name of `PRESETS`, or means, "/", and standard deviations, in pixel units (0 to 255): one
            number for all channels, or one for each in the order of the model's channels, as in "127.5/127.5"
            or "123.7,116.3,103.5/58.4,57.1,57.4". Before either "rgb:" or "bgr:", the order of the channels;
            the numbers of a preset stay with their colours.
        size: (H, W) of the result.
        channels: Of the model's input; torch and caffe need 3.

    Returns:
        The preprocessing, with every other field as it is by default.

    Raises:
        UsageError: The text is neither, or does not fit the channels.
    """
    spec = Preprocessing(size=size, channels=channels)
    before, colon, name = text.partition(":")
    order = next((known for known in ORDERS if colon and known == before), None)
    if order is None:
        name = text
    if name in _PRESETS:
        spec = _in_order(dataclasses.replace(spec, preset=name, **_PRESETS[name]), order)
    else:
        mean, std = _parse_mean_std(name)
        spec = dataclasses.replace(
            spec, preset="custom", mean=mean, std=std, channel_order=order or spec.channel_order
        )
    check_preprocessing(spec)
    return spec


def _in_order(spec: Preprocessing, order: Literal["rgb", "bgr"] | None) -> Preprocessing:
    """The preset with its channels in that order; None: in its own."""
    if order in (None, spec.channel_order):
        return spec
    assert order is not None
    return dataclasses.replace(
        spec,
        preset=f"{order}:{spec.preset}",
        mean=spec.mean if len(spec.mean) == 1 else spec.mean[::-1],
        std=spec.std[::-1],
        channel_order=order,
    )


def preprocess_text(spec: Preprocessing) -> str:
    """What `parse_preprocess` reads as the numbers of `spec`."""
    if spec.preset != "custom":
        return spec.preset
    mean, std = (",".join(f"{number:g}" for number in numbers) for numbers in (spec.mean, spec.std))
    return f"{'' if spec.channel_order == 'rgb' else 'bgr:'}{mean}/{std}"


def _parse_mean_std(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    halves = text.split("/")
    try:
        if len(halves) != 2:
            raise ValueError
        mean, std = (tuple(float(number) for number in half.split(",")) for half in halves)
        if not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"preprocess is one of {', '.join(PRESETS)}, or MEAN/STD in pixel units with positive STD, "
            "as in 123.7,116.3,103.5/58.4,57.1,57.4, and before either rgb: or bgr: for the order of the "
            f"channels. Received: {text!r}"
        ) from None
    return mean, std


def check_preprocessing(spec: Preprocessing) -> None:
    """Raise UsageError for a preprocessing that cannot be carried out."""
    if spec.resize not in FILTERS:
        raise UsageError(f"resize is one of {', '.join(FILTERS)}. Received: {spec.resize!r}")
    if spec.crop not in CROPS:
        raise UsageError(f"crop is one of {', '.join(CROPS)}. Received: {spec.crop!r}")
    if not all(1 <= side <= MAX_SIZE for side in spec.size):
        raise UsageError(f"the sides of a size are 1 to {MAX_SIZE} pixels. Received: {spec.size}")
    if len(spec.background) != 3 or not all(0 <= value <= 255 for value in spec.background):
        raise UsageError(f"background is three numbers from 0 to 255. Received: {spec.background}")
    for name, values in (("means", spec.mean), ("standard deviations", spec.std)):
        if len(values) not in (0, 1, spec.channels):
            raise UsageError(
                f"preprocess {spec.preset!r} has {len(values)} {name}, but the model's images have "
                f"{spec.channels} channels."
            )
    if spec.channel_order == "bgr" and spec.channels != 3:
        raise UsageError(
            f"preprocess {spec.preset!r} is for three channels; the model's images have {spec.channels}."
        )


def preprocess(image: Image.Image | Array, spec: Preprocessing) -> Array:
    """Resize and normalise one decoded image for the model's input.

    Args:
        image: Mode "L", "RGB" or "RGBA", or (h, w, C) uint8, 0 to 255, in RGB order; not modified.
        spec: Target size and normalisation; `check_preprocessing` accepts it.

    Returns:
        (H, W, C) float32, C-contiguous, channels in `spec.channel_order`.
    """
    return normalise(resize(image, spec), spec)


def normalise(pixels: Array, spec: Preprocessing) -> Array:
    """Scale and shift pixels, in float32 throughout, as Keras does.

    Args:
        pixels: (H, W, C) uint8, in RGB order.
        spec: Its `scale`, `mean`, `std` and `channel_order` are used.

    Returns:
        (H, W, C) float32, C-contiguous.
    """
    values = np.empty(pixels.shape, np.float32)
    if spec.channel_order == "bgr":
        for channel in range(3):
            values[..., channel] = pixels[..., 2 - channel]
    else:
        values[...] = pixels
    if spec.scale != 1:
        values /= np.float32(spec.scale)
    # Row by row: with three numbers for three channels NumPy takes three times as long.
    height, width, channels = pixels.shape
    rows = values.reshape(height, width * channels)
    if spec.mean:
        rows -= np.tile(np.array(spec.mean, np.float32), width * channels // len(spec.mean))
    if spec.std:
        rows /= np.tile(np.array(spec.std, np.float32), width * channels // len(spec.std))
    return values


def resize(image: Image.Image | Array, spec: Preprocessing) -> Array:
    """Bring an image to the model's size; one that has it already is left alone, as in Keras.

    `crop="none"` squashes; "center" takes the largest centred part of the right proportions (Keras's
    `keep_aspect_ratio=True`); "pad" fits the whole image in and fills the rest with `spec.background`.

    Args:
        image: As for `preprocess`.
        spec: Its `size`, `resize`, `crop` and `background` are used.

    Returns:
        (H, W, C) uint8.
    """
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    height, width = spec.size
    if image.size != (width, height):
        if spec.crop == "pad":
            image = _pad(image, spec)
        else:
            box = centre_box(image.size, (width, height)) if spec.crop == "center" else None
            image = image.resize((width, height), FILTERS[spec.resize], box=box)
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def enough(size: tuple[int, int], spec: Preprocessing) -> tuple[int, int]:
    """The smallest picture of the same proportions that `resize` would not have to enlarge.

    Args:
        size: (width, height) of an image.
        spec: Its `size` and `crop` are used.

    Returns:
        (width, height) that the image may be shrunk to beforehand, as long as both sides stay at least that.
    """
    # Cutting keeps the whole of one side, so that squashing and cutting need the same.
    height, width = spec.size
    return fitted(size, spec) if spec.crop == "pad" else (width, height)


def centre_box(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the part to keep; both sizes are (width, height).

    Of extreme proportions it may be less than a pixel, rounded to nothing: Pillow takes the values there.
    """
    width, height = size
    crop_width = min(width, height * target[0] // target[1])
    crop_height = min(height, width * target[1] // target[0])
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def _pad(image: Image.Image, spec: Preprocessing) -> Image.Image:
    height, width = spec.size
    inner = fitted(image.size, spec)
    if image.size != inner:
        image = image.resize(inner, FILTERS[spec.resize])
    background = Image.new("RGB", (width, height), spec.background)
    canvas = background if image.mode == "RGB" else background.convert(image.mode)
    canvas.paste(image, ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return canvas


def fitted(size: tuple[int, int], spec: Preprocessing) -> tuple[int, int]:
    """(width, height) of a whole image within `spec.size`, in its own proportions."""
    height, width = spec.size
    scale = min(width / size[0], height / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
