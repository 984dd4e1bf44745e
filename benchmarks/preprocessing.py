"""Which preprocessing were these networks trained with? Trains some, each with another, and asks the doctor.

    python benchmarks/preprocessing.py
    python benchmarks/preprocessing.py --only unit --only caffe --folder /tmp/networks

The networks are kept in the folder, and trained again only where they are missing. The pictures that the
doctor is shown are none of those that they were trained on; then it is shown pictures of another kind.
It takes about ten minutes on two cores. In the table: the rank of the preset that it was (1 is right), its
divergence, and how many times that of the next preset and of the other order of colours are as large.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import photos
from measure import CACHE, ROOT
from PIL import Image

sys.path.insert(0, str(ROOT / "sample_models"))
from drawing import CLASSES, HELD_OUT, Picture, draw

SIDE = 64
"""Pixels, of what the networks take."""
PICTURES, EPOCHS, BATCH = 1_400, 12, 32
TINT = (1.0, 0.944, 0.84)
"""Of red, green and blue; ImageNet's means are 123.7, 116.8 and 103.9."""
SHOWN = 64
"""Pictures that the doctor is given."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """How one network was trained."""

    preprocess: str
    resize: str = "bilinear"
    build: Callable[[int], Any] | None = None
    channels: int = 3


def plain(channels: int, normalised: bool = True) -> Any:
    """Three times convolution, batch normalisation, ReLU."""
    import keras

    layers = keras.layers
    x = image = layers.Input((SIDE, SIDE, channels), name="image")
    for number, filters in enumerate((16, 24, 32), 1):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", name=f"conv{number}")(x)
        if normalised:
            x = layers.BatchNormalization(name=f"bn{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(len(CLASSES), activation="softmax", name="predictions")(x))


def nested(channels: int) -> Any:
    """Its convolutions in a model of their own, without biases, normalised before the activation."""
    import keras

    layers = keras.layers
    x = pixels = layers.Input((SIDE, SIDE, channels))
    for number, filters in enumerate((12, 24), 1):
        x = layers.Conv2D(filters, 5, strides=2, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = layers.BatchNormalization(scale=False, momentum=0.9, name=f"bn{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
    backbone = keras.Model(pixels, x, name="backbone")
    image = layers.Input((SIDE, SIDE, channels), name="image")
    x = layers.GlobalMaxPooling2D(name="pool")(backbone(image))
    return keras.Model(image, layers.Dense(len(CLASSES), activation="softmax", name="predictions")(x))


def normalised_first(channels: int) -> Any:
    """Batch normalisation right behind the input."""
    import keras

    layers = keras.layers
    stack = [layers.Input((SIDE, SIDE, channels)), layers.BatchNormalization(name="bn0")]
    for number, filters in enumerate((16, 32), 1):
        stack += [
            layers.Conv2D(filters, 3, strides=2, activation="relu", name=f"conv{number}"),
            layers.BatchNormalization(name=f"bn{number}"),
        ]
    stack += [layers.Flatten(), layers.Dense(len(CLASSES), activation="softmax", name="predictions")]
    return keras.Sequential(stack)


NETWORKS = {
    "raw": Trained("raw"),
    "unit": Trained("unit"),
    "tf": Trained("tf", build=nested),
    "torch": Trained("torch"),
    "caffe": Trained("caffe"),
    "bgr:unit": Trained("bgr:unit", build=normalised_first),
    "tf nearest": Trained("tf", "nearest"),
    "bgr:raw": Trained("bgr:raw"),
    "without": Trained("unit", build=lambda channels: plain(channels, normalised=False)),
    "unit box": Trained("unit", "box", nested),
    "bgr:tf": Trained("bgr:tf"),
    "bgr:torch": Trained("bgr:torch", build=nested),
    "rgb:caffe": Trained("rgb:caffe"),
    "raw lanczos": Trained("raw", "lanczos", normalised_first),
    "unit bicubic": Trained("unit", "bicubic"),
    "unit nearest nested": Trained("unit", "nearest", nested),
    "grey tf": Trained("tf", channels=1),
    "grey raw nested": Trained("raw", build=nested, channels=1),
    "raw first": Trained("raw", build=normalised_first),
    "torch first": Trained("torch", build=normalised_first),
    "caffe nested": Trained("caffe", build=nested),
}
EIGHT = [*list(NETWORKS)[:8], "without"]
"""One for each preset, two of another order of colours, one of another filter; one without evidence."""


def pictures(how: Trained, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 64, 64, C) as the network is given them, and (N,) places in `CLASSES`."""
    from layerprobe.images.preprocess import parse_preprocess, preprocess

    spec = parse_preprocess(how.preprocess, size=(SIDE, SIDE), channels=how.channels)
    spec = dataclasses.replace(spec, resize=how.resize)
    mode = "L" if how.channels == 1 else "RGB"
    rows = [preprocess(picture.image.convert(mode), spec) for picture in drawn(start, count)]
    return np.stack(rows), np.array([CLASSES.index(picture.label) for picture in drawn(start, count)])


@functools.cache
def drawn(start: int, count: int) -> list[Picture]:
    """Pictures of all sizes, their colours as warm as photographs are; every network has the same ones."""
    pictures = [draw(seed) for seed in range(start, start + count)]
    return [dataclasses.replace(one, image=tinted(one.image)) for one in pictures]


def tinted(image: Image.Image) -> Image.Image:
    """With the colours of ImageNet on average; as they are drawn red and blue are alike, so that nothing
    could tell RGB from BGR."""
    return Image.fromarray((np.asarray(image) * np.array(TINT)).astype(np.uint8))


def train(how: Trained, path: Path, count: int = PICTURES, epochs: int = EPOCHS) -> float:
    """Train one network and save it; gives its accuracy on the last tenth of the pictures."""
    import keras

    keras.utils.set_random_seed(1)
    model = (how.build or plain)(how.channels)
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    rows, labels = pictures(how, 0, count)
    held = count // 10
    model.fit(rows[held:], labels[held:], batch_size=BATCH, epochs=epochs, verbose=0)
    model.save(path)
    return float(model.evaluate(rows[:held], labels[:held], verbose=0)[1])


def shown(folder: Path) -> Path:
    """A folder of pictures that no network was trained on, of all sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(drawn(HELD_OUT, SHOWN)):
        picture.image.save(folder / f"{number:03}.png")
    return folder


def told(name: str, model: Path, images: Path) -> str:
    """One line of the table."""
    import layerprobe

    how, found = NETWORKS[name], layerprobe.doctor(model, [str(images)], limit=SHOWN)
    if not found.presets:
        return f"{name:14} {found.evidence:10} {found.preprocessing.reason}"
    ranks = [one.preset for one in found.presets]
    family = how.preprocess.rpartition(":")[2]
    rank = ranks.index(how.preprocess)
    other = next(one for one in found.presets if one.family != family)
    order = next(
        (one for one in found.presets if one.family == family and one.preset != how.preprocess), None
    )
    best = found.presets[rank].divergence
    filters = [one.preprocessing.resize for one in found.resizing if one.preprocessing.crop == "none"]
    placed = f"{filters.index(how.resize) + 1}" if how.resize in filters else "-"
    ratios = [f"{one.divergence / best:10.2f}" if one is not None else f"{'-':>10}" for one in (other, order)]
    return (
        f"{name:14} {found.evidence:10} {rank + 1:4} {best:10.4f} {ratios[0]} {ratios[1]} "
        f"{how.resize + ' ' + placed:>12}  {found.command}"
    )


HEAD = (
    f"{'trained with':14} {'evidence':10} {'rank':>4} {'divergence':>10} {'next':>10} {'order':>10} "
    f"{'filter, rank':>12}  advice"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", action="append", choices=NETWORKS, help="Of the networks; repeats.")
    parser.add_argument("--all", action="store_true", help="More networks than the eight.")
    parser.add_argument("--folder", type=Path, default=CACHE / "preprocessing", help="Where they are kept.")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    names = options.only or (list(NETWORKS) if options.all else EIGHT)
    for name in names:
        path = options.folder / file_of(name)
        if not path.exists():
            print(f"training {name}: {train(NETWORKS[name], path):.0%} of the pictures held back are right")
    for title, images in (
        ("pictures like those of training", shown(options.folder / "pictures")),
        ("photographs instead", photos.folder(SHOWN)),
    ):
        print(f"\n{title}\n{HEAD}")
        for name in names:
            print(told(name, options.folder / file_of(name), images), flush=True)


def file_of(name: str) -> str:
    return name.replace(" ", "_").replace(":", "-") + ".keras"


if __name__ == "__main__":
    main()
