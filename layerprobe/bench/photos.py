"""Made-up photographs, for measuring where there are none."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 500, 375
DIFFERENT = 4


def make_photos(folder: str) -> list[str]:
    """Write JPEGs that take as long to decode as photographs of their size: 500 x 375, about 45 KB.

    They are noise of every scale, the coarse stronger than the fine, as in photographs.

    Args:
        folder: An existing folder, where the files go.

    Returns:
        Their paths; always the same pictures.
    """
    random = np.random.default_rng(0)
    paths = [os.path.join(folder, f"photo{number}.jpg") for number in range(DIFFERENT)]
    for path in paths:
        pixels = np.full((HEIGHT, WIDTH, 3), 128.0, np.float32)
        for side in (2**level for level in range(1, 10)):
            layers = random.normal(0, 80 / side**0.5, (3, side, side)).astype(np.float32)
            for channel, layer in enumerate(layers):
                enlarged = Image.fromarray(layer).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
                pixels[..., channel] += np.asarray(enlarged)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=90)
    return paths
