"""One small function for each difference between Keras generations that is known to matter.

A migration looks at one layer, as the file has it, and changes it to what Keras 3 means by the same thing. It
says whether it had anything to do. The table at the foot lists them in the order in which they run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from layerprobe.modelfile.migrate import keras1, keras2
from layerprobe.modelfile.migrate.keras1_merge import merge
from layerprobe.modelfile.migrate.layer import SavedLayer


@dataclass(frozen=True, slots=True)
class Migration:
    """One known difference."""

    apply: Callable[[SavedLayer], bool]
    before: tuple[int, int]
    """The first version of Keras that no longer wrote files of this kind."""
    reason: str
    """What a user reads when it was needed."""
    link: str = ""
    """Where the difference is documented, or the code that shows it."""


def migrate(layer: SavedLayer) -> list[str]:
    """Apply every migration for the layer's version; gives the reasons of those that did something."""
    return [
        migration.reason
        for migration in MIGRATIONS
        if layer.version < migration.before and migration.apply(layer)
    ]


_LEGACY_NAMES = "https://github.com/keras-team/keras/blob/2.2.4/keras/legacy/interfaces.py"
_MERGE = "https://github.com/keras-team/keras/blob/1.2.2/keras/engine/topology.py"
_EVER = (99, 0)

MIGRATIONS: tuple[Migration, ...] = (
    Migration(keras1.class_name, (2, 0), "Keras 1 class name", _LEGACY_NAMES),
    Migration(keras1.arguments, (2, 0), "Keras 1 argument names", _LEGACY_NAMES),
    Migration(merge, (2, 0), "Merge is now one layer for each mode", _MERGE),
    Migration(keras1.zero_padding, (2, 0), "Keras 1 padding", _LEGACY_NAMES),
    Migration(keras1.batch_normalization, (2, 0), "Keras 1 BatchNormalization", _LEGACY_NAMES),
    Migration(keras2.class_name, _EVER, "former class name"),
    Migration(keras2.input_shape, _EVER, "batch_input_shape is now batch_shape"),
    Migration(keras2.integer_embedding, (3, 0), "dtype of the input filed as that of the Embedding"),
    Migration(keras2.integer_output, (3, 0), "dtype of the output filed as that of the layer"),
    Migration(keras2.axis_list, (3, 0), "axis given as a list"),
    Migration(keras2.recurrent_default, (2, 3), "gates used hard_sigmoid by default"),
    Migration(
        keras2.hard_sigmoid,
        (3, 0),
        "hard_sigmoid was clip(0.2 x + 0.5, 0, 1)",
        "https://github.com/keras-team/keras/blob/2.2.4/keras/backend/tensorflow_backend.py",
    ),
    Migration(
        keras2.reset_after,
        (3, 0),
        "GRU without reset_after",
        "https://github.com/keras-team/keras/blob/2.2.4/keras/layers/recurrent.py",
    ),
    Migration(
        keras2.bilinear,
        (2, 3),
        "bilinear upsampling is that of TensorFlow 2, which samples half a pixel further in",
        "https://github.com/tensorflow/tensorflow/blob/v2.15.0/RELEASE.md, on half_pixel_centers",
    ),
    Migration(keras2.leaky_relu, _EVER, "alpha of LeakyReLU is now negative_slope"),
    Migration(keras2.thresholded_relu, _EVER, "ThresholdedReLU is now a ReLU"),
)
