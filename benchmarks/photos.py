"""Photographs to measure with, the same on every machine; none is downloaded.

    python benchmarks/photos.py

Crops, mirrored or not, of the photographs that scikit-learn and scikit-image bring along, all different: 512
of 500x375 as in ImageNet, and a few of 12 megapixels, as phones take them.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from measure import CACHE, arguments
from PIL import Image

SMALL = (500, 375)
LARGE = (4000, 3000)
GRAIN = 4.0
"""Standard deviation of the noise that is added, of 0 to 255: enlarged pictures have less detail than
photographs, and files without detail are decoded too fast."""


def originals() -> list[Image.Image]:
    """The eleven colour photographs."""
    import skimage.data as data
    from sklearn.datasets import load_sample_images

    arrays = [*load_sample_images().images, *data.stereo_motorcycle()[:2]]
    for one in ("astronaut", "chelsea", "coffee", "rocket", "retina", "immunohistochemistry"):
        arrays.append(getattr(data, one)())
    return [Image.fromarray(pixels) for pixels in [*arrays, data.hubble_deep_field()]]


def photo(number: int, size: tuple[int, int], sources: list[Image.Image]) -> Image.Image:
    """One photograph of `size`: a random part, of the shape of `size`, of one of the originals."""
    random = np.random.default_rng([number, *size])
    source = sources[number % len(sources)]
    largest = min(source.width / size[0], source.height / size[1])
    scale = largest * random.uniform(0.5, 1)
    width, height = size[0] * scale, size[1] * scale
    left, top = random.uniform(0, source.width - width), random.uniform(0, source.height - height)
    part = source.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    if random.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    noise = random.normal(0, GRAIN, (size[1], size[0], 1)).astype(np.float32)
    return Image.fromarray(np.clip(np.asarray(part) + noise, 0, 255).astype(np.uint8))


def folder(count: int, size: tuple[int, int] = SMALL) -> Path:
    """A folder of `count` JPEG files, made if it is not there."""
    path = CACHE / f"photos-{size[0]}x{size[1]}-{count}"
    if path.exists():
        return path
    making = path.with_suffix(f".{os.getpid()}")
    making.mkdir(parents=True)
    sources = originals()

    def make(number: int) -> None:
        photo(number, size, sources).save(making / f"{number:04}.jpg", quality=90)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(make, range(count)))
    making.rename(path)
    return path


def main() -> None:
    options = arguments("photos.py", __doc__)
    print(folder(options.images))


if __name__ == "__main__":
    main()
