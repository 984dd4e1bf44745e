"""Class maps as pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.views.overlay import ALONE, Overlaid, Panel, draw_overlaid, shrunk

if TYPE_CHECKING:
    from PIL import Image

    from layerprobe.class_maps.compute import ClassMap, MappedImage
    from layerprobe.class_maps.wanted import Found

TITLES = {"cam": "CAM", "gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "layercam": "Layer-CAM"}


def overlaid(found: MappedImage, scale: str = "shared", side: int = ALONE) -> Overlaid:
    """An image and its maps as they are drawn.

    Args:
        found: The image.
        scale: "shared": equal colours are equal values in all of its maps; "class": each map has its own.
        side: Pixels of the longer side that are enough.
    """
    tops = [_largest(one) for one in found.maps]
    panels = [
        Panel(one.name, _said(one), one.on_image, max(tops) if scale == "shared" else top)
        for one, top in zip(found.maps, tops, strict=True)
    ]
    return shrunk(Overlaid(found.image, os.path.basename(found.key), panels), side)


def draw(shown: Sequence[Overlaid], how: Found) -> Image.Image:
    """Draw images with their maps; see `views.overlay.draw_overlaid`."""
    model = os.path.basename(how.provenance["model"].get("path") or "") or "a live model"
    what = f"{TITLES[how.method]} of {how.layer}"
    if len(shown) == 1:
        title = ", ".join(panel.title for panel in shown[0].panels)
        return draw_overlaid(shown, title, f"{what} in {model}, {shown[0].name}")
    return draw_overlaid(shown, what, f"{model}, {len(shown)} images")


def _largest(one: ClassMap) -> float:
    return max(0.0, float(np.nanmax(one.on_image)))


def _said(one: ClassMap) -> str:
    """Probability and score, in a few words."""
    told = [] if one.probability is None else [_percent(one.probability)]
    return "   ".join([*told, f"score {one.score:.3g}"])


def _percent(probability: float) -> str:
    if probability > 0.9995 or 0 < probability < 0.0005:
        return ">99.9 %" if probability > 0.5 else "<0.1 %"
    return f"{100 * probability:.1f} %"
