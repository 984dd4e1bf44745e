"""Keras 1: other class names, other argument names.

The names follow keras/legacy/interfaces.py of Keras 2, which translated them for callers.
"""

from __future__ import annotations

from typing import Any

from layerprobe.modelfile.migrate.layer import SavedLayer

_CLASSES = {
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
    "TimeDistributedDense": "Dense",
}

_ARGUMENTS = {
    "atrous_rate": "dilation_rate",
    "bias": "use_bias",
    "border_mode": "padding",
    "dim_ordering": "data_format",
    "dropout_U": "recurrent_dropout",
    "dropout_W": "dropout",
    "filter_length": "kernel_size",
    "inner_activation": "recurrent_activation",
    "nb_filter": "filters",
    "output_dim": "units",
    "p": "rate",
    "pool_length": "pool_size",
    "sigma": "stddev",
    "stride": "strides",
    "subsample": "strides",
    "subsample_length": "strides",
}

_VALUES = {"th": "channels_first", "tf": "channels_last"}

_ONLY_FOR_TRAINING = (
    *(
        "init",
        "inner_init",
        "forget_bias_init",
        "depthwise_init",
        "pointwise_init",
        "beta_init",
        "gamma_init",
    ),
    *("W_regularizer", "U_regularizer", "b_regularizer", "W_constraint", "U_constraint", "b_constraint"),
)

_SIZES = (("nb_row", "nb_col"), ("kernel_dim1", "kernel_dim2", "kernel_dim3"))


def class_name(layer: SavedLayer) -> bool:
    """`Convolution2D` and the like."""
    if layer.class_name not in _CLASSES:
        return False
    layer.class_name = _CLASSES[layer.class_name]
    return True


def arguments(layer: SavedLayer) -> bool:
    """`nb_filter`, `border_mode`, `output_dim` and the like, one new name for each."""
    config = layer.config
    before = set(config)
    keep = {"output_dim"} if layer.class_name == "Embedding" else set()
    if "length" in config and layer.class_name == "UpSampling1D":
        config["size"] = config.pop("length")
    for old, new in _ARGUMENTS.items():
        if old in config and old not in keep:
            value = config.pop(old)
            config.setdefault(new, _VALUES.get(value, value) if isinstance(value, str) else value)
    for names in _SIZES:
        if all(name in config for name in names):
            config["kernel_size"] = [config.pop(name) for name in names]
    for name in _ONLY_FOR_TRAINING:
        config.pop(name, None)
    if layer.class_name == "Conv2DTranspose":
        config.pop("output_shape", None)
    if layer.class_name in ("LSTM", "GRU", "SimpleRNN"):
        config.pop("consume_less", None)
    return set(config) != before


def zero_padding(layer: SavedLayer) -> bool:
    """`ZeroPadding2D({"top_pad": 1, ...})`, and four numbers in a row for both sides of both axes."""
    padding = layer.config.get("padding")
    if layer.class_name not in ("ZeroPadding2D", "ZeroPadding1D") or not isinstance(padding, dict | list):
        return False
    if isinstance(padding, dict):
        vertical = [padding.get("top_pad", 0), padding.get("bottom_pad", 0)]
        horizontal = [padding.get("left_pad", 0), padding.get("right_pad", 0)]
        one_axis = [padding.get("left_pad", 0), padding.get("right_pad", 0)]
        layer.config["padding"] = one_axis if layer.class_name == "ZeroPadding1D" else [vertical, horizontal]
    elif len(padding) == 4:
        layer.config["padding"] = [padding[:2], padding[2:]]
    else:
        return False
    return True


def batch_normalization(layer: SavedLayer) -> bool:
    """`mode` 0 is the only one there is now; the defaults were others before Keras 1.1.

    https://github.com/keras-team/keras/blob/1.0.4/keras/layers/normalization.py
    """
    if layer.class_name != "BatchNormalization":
        return False
    config = layer.config
    missing = {"epsilon": 1e-5, "momentum": 0.99} if layer.version < (1, 1) else {"epsilon": 1e-3}
    absent = {name: value for name, value in missing.items() if config.get(name) is None}
    config.update(absent)
    mode: Any = config.get("mode")
    if mode in (0, 2):
        # Mode 2 differs from mode 0 while training only.
        del config["mode"]
    return bool(absent) or mode in (0, 2)
