"""Which layers Keras has, their arguments and defaults.

This is the allow-list of what a model file may name: nothing else of Keras is ever constructed. Arguments
that only matter for training (initializers, regularizers, constraints) are not here: they are never built.
`name`, `trainable` and `dtype` belong to every layer and are not repeated.
"""

from __future__ import annotations

from typing import Any, Final

REQUIRED: Final = "<required>"
"""Stands in place of a default for an argument that has none."""

_DROPOUT = {"rate": REQUIRED, "seed": None}
_SHAPED_DROPOUT = {**_DROPOUT, "noise_shape": None}
_RANDOM = {"seed": None, "data_format": None}
_RANDOM_COLOUR = {**_RANDOM, "value_range": (0, 255)}
_FILLED = {"fill_mode": "reflect", "interpolation": "bilinear", "fill_value": 0.0, **_RANDOM}


def _convolution(rank: int, *, depthwise: bool = False, **extra: Any) -> dict[str, Any]:
    each = 1 if rank == 1 else (1,) * rank
    size = {"kernel_size": REQUIRED, "strides": each, "padding": "valid", "data_format": None}
    first = {} if depthwise else {"filters": REQUIRED}
    return {**first, **size, "dilation_rate": each, "activation": None, "use_bias": True, **extra}


def _pooling(rank: int) -> dict[str, Any]:
    size = 2 if rank == 1 else (2,) * rank
    return {"pool_size": size, "strides": None, "padding": "valid", "data_format": None}


_ONE_STEP = {"use_bias": True, "dropout": 0.0, "recurrent_dropout": 0.0, "seed": None}
_SIMPLE_CELL = {"units": REQUIRED, "activation": "tanh", **_ONE_STEP}
_GATED_CELL = {**_SIMPLE_CELL, "recurrent_activation": "sigmoid"}
_LSTM_CELL = {**_GATED_CELL, "unit_forget_bias": True}
_GRU_CELL = {**_GATED_CELL, "reset_after": True}
_SEQUENCE = {
    "return_sequences": False,
    "return_state": False,
    "go_backwards": False,
    "stateful": False,
    "unroll": False,
    "zero_output_for_mask": False,
}
_CONVOLUTIONAL_LSTM = {
    "filters": REQUIRED,
    "kernel_size": REQUIRED,
    "strides": 1,
    "padding": "valid",
    "data_format": None,
    "dilation_rate": 1,
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "unit_forget_bias": True,
    **_ONE_STEP,
    **_SEQUENCE,
}
_GLOBAL_POOLING = {"data_format": None, "keepdims": False}
_MULTI_HEAD = {"num_heads": REQUIRED, "key_dim": REQUIRED, "value_dim": None, "dropout": 0.0}
_LOOKUP = {
    "max_tokens": None,
    "num_oov_indices": 1,
    "mask_token": None,
    "vocabulary": None,
    "idf_weights": None,
    "invert": False,
    "output_mode": "int",
    "pad_to_max_tokens": False,
    "sparse": False,
}

_ADAPTIVE_POOLING = {"output_size": REQUIRED, "data_format": None}

LAYERS: dict[str, dict[str, Any]] = {
    "Activation": {"activation": REQUIRED},
    "ActivityRegularization": {"l1": 0.0, "l2": 0.0},
    "AdaptiveAveragePooling1D": _ADAPTIVE_POOLING,
    "AdaptiveAveragePooling2D": _ADAPTIVE_POOLING,
    "AdaptiveAveragePooling3D": _ADAPTIVE_POOLING,
    "AdaptiveMaxPooling1D": _ADAPTIVE_POOLING,
    "AdaptiveMaxPooling2D": _ADAPTIVE_POOLING,
    "AdaptiveMaxPooling3D": _ADAPTIVE_POOLING,
    "Add": {},
    "AdditiveAttention": {"use_scale": True, "dropout": 0.0, "seed": None},
    "AlphaDropout": _SHAPED_DROPOUT,
    "Attention": {"use_scale": False, "score_mode": "dot", "dropout": 0.0, "seed": None},
    "AugMix": {
        **_RANDOM_COLOUR,
        "num_chains": 3,
        "chain_depth": 3,
        "factor": 0.3,
        "alpha": 1.0,
        "all_ops": True,
        "interpolation": "bilinear",
    },
    "Average": {},
    "AveragePooling1D": _pooling(1),
    "AveragePooling2D": _pooling(2),
    "AveragePooling3D": _pooling(3),
    "BatchNormalization": {
        "axis": -1,
        "momentum": 0.99,
        "epsilon": 0.001,
        "center": True,
        "scale": True,
        "synchronized": False,
    },
    "Bidirectional": {"layer": REQUIRED, "merge_mode": "concat", "backward_layer": None},
    "CategoryEncoding": {"num_tokens": None, "output_mode": "multi_hot", "sparse": False},
    "CenterCrop": {"height": REQUIRED, "width": REQUIRED, "data_format": None},
    "Concatenate": {"axis": -1},
    "Conv1D": _convolution(1, groups=1),
    "Conv1DTranspose": _convolution(1, output_padding=None),
    "Conv2D": _convolution(2, groups=1),
    "Conv2DTranspose": _convolution(2, output_padding=None),
    "Conv3D": _convolution(3, groups=1),
    "Conv3DTranspose": _convolution(3, output_padding=None),
    "ConvLSTM1D": _CONVOLUTIONAL_LSTM,
    "ConvLSTM2D": _CONVOLUTIONAL_LSTM,
    "ConvLSTM3D": _CONVOLUTIONAL_LSTM,
    "Cropping1D": {"cropping": (1, 1)},
    "Cropping2D": {"cropping": ((0, 0), (0, 0)), "data_format": None},
    "Cropping3D": {"cropping": ((1, 1), (1, 1), (1, 1)), "data_format": None},
    "CustomScaleLayer": {"scale": REQUIRED},
    "CutMix": {"factor": 1.0, **_RANDOM},
    "Dense": {"units": REQUIRED, "activation": None, "use_bias": True},
    "DepthwiseConv1D": _convolution(1, depthwise=True, depth_multiplier=1),
    "DepthwiseConv2D": _convolution(2, depthwise=True, depth_multiplier=1),
    "Discretization": {
        "bin_boundaries": None,
        "num_bins": None,
        "epsilon": 0.01,
        "output_mode": "int",
        "sparse": False,
    },
    "Dot": {"axes": REQUIRED, "normalize": False},
    "Dropout": _SHAPED_DROPOUT,
    "ELU": {"alpha": 1.0},
    "EinsumDense": {"equation": REQUIRED, "output_shape": REQUIRED, "activation": None, "bias_axes": None},
    "Embedding": {"input_dim": REQUIRED, "output_dim": REQUIRED, "mask_zero": False},
    "Flatten": {"data_format": "channels_last"},
    "GRU": {**_GRU_CELL, **_SEQUENCE},
    "GRUCell": _GRU_CELL,
    "GaussianDropout": _DROPOUT,
    "GaussianNoise": {"stddev": REQUIRED, "seed": None},
    "GlobalAveragePooling1D": _GLOBAL_POOLING,
    "GlobalAveragePooling2D": _GLOBAL_POOLING,
    "GlobalAveragePooling3D": _GLOBAL_POOLING,
    "GlobalMaxPooling1D": _GLOBAL_POOLING,
    "GlobalMaxPooling2D": _GLOBAL_POOLING,
    "GlobalMaxPooling3D": _GLOBAL_POOLING,
    "GroupNormalization": {"groups": 32, "axis": -1, "epsilon": 0.001, "center": True, "scale": True},
    "GroupQueryAttention": {
        "head_dim": REQUIRED,
        "num_query_heads": REQUIRED,
        "num_key_value_heads": REQUIRED,
        "dropout": 0.0,
        "use_bias": True,
        "flash_attention": None,
        "seed": None,
    },
    "HashedCrossing": {"num_bins": REQUIRED, "output_mode": "int", "sparse": False},
    "Hashing": {
        "num_bins": REQUIRED,
        "mask_value": None,
        "salt": None,
        "output_mode": "int",
        "sparse": False,
    },
    "Identity": {},
    "InputLayer": {"batch_shape": None, "sparse": False, "ragged": False, "optional": False},
    "IntegerLookup": {**_LOOKUP, "oov_token": -1, "vocabulary_dtype": "int64"},
    "LSTM": {**_LSTM_CELL, **_SEQUENCE},
    "LSTMCell": _LSTM_CELL,
    "Lambda": {"function": REQUIRED, "output_shape": None, "mask": None, "arguments": None},
    "LayerScale": {"init_values": 1e-6, "projection_dim": REQUIRED},
    "LayerNormalization": {"axis": -1, "epsilon": 0.001, "center": True, "scale": True},
    "LeakyReLU": {"negative_slope": 0.3},
    "Masking": {"mask_value": 0.0},
    "MaxPooling1D": _pooling(1),
    "MaxPooling2D": _pooling(2),
    "MaxPooling3D": _pooling(3),
    "Maximum": {},
    "MelSpectrogram": {
        "fft_length": 2048,
        "sequence_stride": 512,
        "sequence_length": None,
        "window": "hann",
        "sampling_rate": 16000,
        "num_mel_bins": 128,
        "min_freq": 20.0,
        "max_freq": None,
        "power_to_db": True,
        "top_db": 80.0,
        "mag_exp": 2.0,
        "min_power": 1e-10,
        "ref_power": 1.0,
    },
    "Minimum": {},
    "MixUp": {"alpha": 0.2, **_RANDOM},
    "MultiHeadAttention": {
        **_MULTI_HEAD,
        "use_bias": True,
        "output_shape": None,
        "attention_axes": None,
        "flash_attention": None,
        "seed": None,
    },
    "Multiply": {},
    "Normalization": {"axis": -1, "mean": None, "variance": None, "invert": False},
    "PReLU": {"shared_axes": None},
    "Permute": {"dims": REQUIRED},
    "RMSNormalization": {"axis": -1, "epsilon": 1e-6},
    "RNN": {"cell": REQUIRED, **_SEQUENCE},
    "RandAugment": {"num_ops": 2, "factor": 0.5, "interpolation": "bilinear", **_RANDOM_COLOUR},
    "RandomBrightness": {"factor": REQUIRED, "value_range": (0, 255), "seed": None},
    "RandomColorDegeneration": {"factor": REQUIRED, **_RANDOM_COLOUR},
    "RandomColorJitter": {
        "brightness_factor": None,
        "contrast_factor": None,
        "saturation_factor": None,
        "hue_factor": None,
        **_RANDOM_COLOUR,
    },
    "RandomContrast": {"factor": REQUIRED, "value_range": (0, 255), "seed": None},
    "RandomCrop": {"height": REQUIRED, "width": REQUIRED, **_RANDOM},
    "RandomElasticTransform": {"factor": 1.0, "scale": 1.0, **_FILLED, "value_range": (0, 255)},
    "RandomErasing": {"factor": 1.0, "scale": (0.02, 0.33), "fill_value": None, **_RANDOM_COLOUR},
    "RandomFlip": {"mode": "horizontal_and_vertical", **_RANDOM},
    "RandomGaussianBlur": {"factor": 1.0, "kernel_size": 3, "sigma": 1.0, **_RANDOM_COLOUR},
    "RandomGrayscale": {"factor": 0.5, **_RANDOM},
    "RandomHue": {"factor": REQUIRED, **_RANDOM_COLOUR},
    "RandomInvert": {"factor": 1.0, **_RANDOM_COLOUR},
    "RandomPerspective": {
        "factor": 1.0,
        "scale": 1.0,
        "interpolation": "bilinear",
        "fill_value": 0.0,
        **_RANDOM,
    },
    "RandomPosterization": {"factor": REQUIRED, **_RANDOM_COLOUR},
    "RandomRotation": {"factor": REQUIRED, **_FILLED},
    "RandomSaturation": {"factor": REQUIRED, **_RANDOM_COLOUR},
    "RandomSharpness": {"factor": REQUIRED, **_RANDOM_COLOUR},
    "RandomShear": {"x_factor": 0.0, "y_factor": 0.0, **_FILLED},
    "RandomTranslation": {"height_factor": REQUIRED, "width_factor": REQUIRED, **_FILLED},
    "RandomZoom": {"height_factor": REQUIRED, "width_factor": None, **_FILLED},
    "ReLU": {"max_value": None, "negative_slope": 0.0, "threshold": 0.0},
    "RepeatVector": {"n": REQUIRED},
    "Rescaling": {"scale": REQUIRED, "offset": 0.0},
    "Reshape": {"target_shape": REQUIRED},
    "Resizing": {
        "height": REQUIRED,
        "width": REQUIRED,
        "interpolation": "bilinear",
        "crop_to_aspect_ratio": False,
        "pad_to_aspect_ratio": False,
        "fill_mode": "constant",
        "fill_value": 0.0,
        "antialias": False,
        "data_format": None,
    },
    "STFTSpectrogram": {
        "mode": "log",
        "frame_length": 256,
        "frame_step": None,
        "fft_length": None,
        "window": "hann",
        "periodic": False,
        "scaling": "density",
        "padding": "valid",
        "expand_dims": False,
        "data_format": None,
    },
    "SeparableConv1D": _convolution(1, depth_multiplier=1),
    "SeparableConv2D": _convolution(2, depth_multiplier=1),
    "SimpleRNN": {**_SIMPLE_CELL, **_SEQUENCE},
    "SimpleRNNCell": _SIMPLE_CELL,
    "Softmax": {"axis": -1},
    "Solarization": {
        "addition_factor": 0.0,
        "threshold_factor": 0.0,
        "value_range": (0, 255),
        "seed": None,
        "data_format": None,
    },
    "SpatialDropout1D": _DROPOUT,
    "SpatialDropout2D": {**_DROPOUT, "data_format": None},
    "SpatialDropout3D": {**_DROPOUT, "data_format": None},
    "SpectralNormalization": {"layer": REQUIRED, "power_iterations": 1},
    "StackedRNNCells": {"cells": REQUIRED},
    "StringLookup": {**_LOOKUP, "oov_token": "[UNK]", "encoding": "utf-8"},
    "Subtract": {},
    "TextVectorization": {
        "max_tokens": None,
        "standardize": "lower_and_strip_punctuation",
        "split": "whitespace",
        "ngrams": None,
        "output_mode": "int",
        "output_sequence_length": None,
        "pad_to_max_tokens": False,
        "vocabulary": None,
        "idf_weights": None,
        "sparse": False,
        "ragged": False,
        "encoding": "utf-8",
    },
    "TimeDistributed": {"layer": REQUIRED},
    "UnitNormalization": {"axis": -1},
    "UpSampling1D": {"size": 2},
    "UpSampling2D": {"size": (2, 2), "data_format": None, "interpolation": "nearest"},
    "UpSampling3D": {"size": (2, 2, 2), "data_format": None},
    "ZeroPadding1D": {"padding": 1, "data_format": None},
    "ZeroPadding2D": {"padding": (1, 1), "data_format": None},
    "ZeroPadding3D": {"padding": ((1, 1), (1, 1), (1, 1)), "data_format": None},
}

_ACTIVATIONS = (
    "celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh "
    "keras2_hard_sigmoid leaky_relu linear log_sigmoid log_softmax mish relu relu6 selu sigmoid silu "
    "soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid sparsemax squareplus swish tanh "
    "tanh_shrink threshold"
)

ACTIVATIONS = frozenset(_ACTIVATIONS.split())
"""Names that an activation may have; "keras2_hard_sigmoid" is the one of `graph`."""

MODELS = ("Functional", "Sequential")
"""The classes that hold other layers as a graph of calls."""

RECURRENT = ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "GRU", "LSTM", "RNN", "SimpleRNN", "Bidirectional")
"""The classes that take an initial state."""
