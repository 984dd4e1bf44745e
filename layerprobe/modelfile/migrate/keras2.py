"""Keras 2, multi-backend and tf.keras: arguments that were renamed, retired, or changed their meaning."""

from __future__ import annotations

from layerprobe.modelfile.migrate.layer import SavedLayer

_CLASSES = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "CuDNNGRU": "GRU",
    "CuDNNLSTM": "LSTM",
    "GRUV2": "GRU",
    "GroupedQueryAttention": "GroupQueryAttention",
    "LSTMV2": "LSTM",
    "UnifiedGRU": "GRU",
    "UnifiedLSTM": "LSTM",
    "AvgPool1D": "AveragePooling1D",
    "AvgPool2D": "AveragePooling2D",
    "AvgPool3D": "AveragePooling3D",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Convolution1DTranspose": "Conv1DTranspose",
    "Convolution2DTranspose": "Conv2DTranspose",
    "Convolution3DTranspose": "Conv3DTranspose",
    "Deconvolution2D": "Conv2DTranspose",
    "Deconvolution3D": "Conv3DTranspose",
    "GlobalAvgPool1D": "GlobalAveragePooling1D",
    "GlobalAvgPool2D": "GlobalAveragePooling2D",
    "GlobalAvgPool3D": "GlobalAveragePooling3D",
    "GlobalMaxPool1D": "GlobalMaxPooling1D",
    "GlobalMaxPool2D": "GlobalMaxPooling2D",
    "GlobalMaxPool3D": "GlobalMaxPooling3D",
    "MaxPool1D": "MaxPooling1D",
    "MaxPool2D": "MaxPooling2D",
    "MaxPool3D": "MaxPooling3D",
    "SeparableConvolution1D": "SeparableConv1D",
    "SeparableConvolution2D": "SeparableConv2D",
}


def class_name(layer: SavedLayer) -> bool:
    """Former names of classes that are still there."""
    if layer.class_name not in _CLASSES:
        return False
    if layer.class_name.startswith("CuDNN"):
        # Always sigmoid and tanh; CuDNN's GRU multiplies by the reset gate after the matrix product.
        layer.config.update({"activation": "tanh", "recurrent_activation": "sigmoid"})
        if layer.class_name == "CuDNNGRU":
            layer.config["reset_after"] = True
    layer.class_name = _CLASSES[layer.class_name]
    return True


def input_shape(layer: SavedLayer) -> bool:
    """An InputLayer's `batch_input_shape` is now `batch_shape`."""
    if layer.class_name != "InputLayer" or "batch_input_shape" not in layer.config:
        return False
    layer.config["batch_shape"] = layer.config.pop("batch_input_shape")
    return True


def integer_embedding(layer: SavedLayer) -> bool:
    """Keras 2.0 filed the dtype of an Embedding's input as that of the layer."""
    if layer.class_name != "Embedding" or not str(layer.config.get("dtype")).startswith(("int", "uint")):
        return False
    layer.config["dtype"] = "float32"
    return True


def integer_output(layer: SavedLayer) -> bool:
    """tf.keras filed the dtype of what a Discretization gives; now it would be that of what goes in."""
    classes = ("Discretization", "CategoryEncoding")
    if layer.class_name not in classes or not str(layer.config.get("dtype")).startswith("int"):
        return False
    layer.config["dtype"] = "float32"
    return True


def axis_list(layer: SavedLayer) -> bool:
    """tf.keras wrote `axis` of a BatchNormalization as a list of one."""
    axis = layer.config.get("axis")
    if layer.class_name != "BatchNormalization" or not isinstance(axis, list) or len(axis) != 1:
        return False
    layer.config["axis"] = axis[0]
    return True


def hard_sigmoid(layer: SavedLayer) -> bool:
    """clip(0.2 x + 0.5, 0, 1) until Keras 2, relu6(x + 3) / 6 since: the same name, other numbers."""
    found = False
    for name in ("activation", "recurrent_activation"):
        if layer.config.get(name) == "hard_sigmoid":
            layer.config[name] = "keras2_hard_sigmoid"
            found = True
    return found


def recurrent_default(layer: SavedLayer) -> bool:
    """Until Keras 2.2 gates used hard_sigmoid where the config names nothing."""
    gated = ("LSTM", "GRU", "LSTMCell", "GRUCell", "ConvLSTM2D", "ConvLSTM2DCell")
    if layer.class_name not in gated or layer.config.get("recurrent_activation") is not None:
        return False
    layer.config["recurrent_activation"] = "hard_sigmoid"
    return True


def reset_after(layer: SavedLayer) -> bool:
    """A GRU whose config does not mention `reset_after` is older than the argument: it means False."""
    if layer.class_name not in ("GRU", "GRUCell") or layer.config.get("reset_after") is not None:
        return False
    layer.config["reset_after"] = False
    return True


def leaky_relu(layer: SavedLayer) -> bool:
    """LeakyReLU's `alpha` is now `negative_slope`."""
    if layer.class_name != "LeakyReLU" or "alpha" not in layer.config:
        return False
    layer.config["negative_slope"] = layer.config.pop("alpha")
    return True


def bilinear(layer: SavedLayer) -> bool:
    """Multi-backend Keras sampled at the corners of pixels, as TensorFlow 1 did; this can only be said."""
    return layer.class_name == "UpSampling2D" and layer.config.get("interpolation") == "bilinear"


def thresholded_relu(layer: SavedLayer) -> bool:
    """ThresholdedReLU is now a ReLU with a threshold."""
    if layer.class_name != "ThresholdedReLU":
        return False
    layer.class_name = "ReLU"
    layer.config["threshold"] = layer.config.pop("theta", 1.0)
    return True
