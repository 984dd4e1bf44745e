"""The architectures of `keras.applications` are known by their layers, however they are used."""

from __future__ import annotations

from typing import Any

import pytest

from layerprobe.images.presets import ASSUMED, guess_preset
from layerprobe.records import LayerInfo

pytestmark = pytest.mark.slow
keras = pytest.importorskip("keras")

EXPECTED = {
    "VGG16": "caffe",
    "VGG19": "caffe",
    "ResNet50": "caffe",
    "ResNet50V2": "tf",
    "MobileNet": "tf",
    "MobileNetV2": "tf",
    "Xception": "tf",
    "InceptionV3": "tf",
    "InceptionResNetV2": "tf",
    "NASNetMobile": "tf",
    "DenseNet121": "torch",
    "MobileNetV3Small": "raw",
    "EfficientNetB0": "raw",
    "EfficientNetV2B0": "raw",
    "ConvNeXtTiny": "raw",
}


def layers(model: Any, prefix: str = "") -> list[LayerInfo]:
    """What the listing of a model file holds, from the live model."""
    found = []
    for layer in model.operations if hasattr(model, "operations") else model.layers:
        inbound = tuple(
            dict.fromkeys(
                prefix + tensor._keras_history.operation.name
                for node in layer._inbound_nodes
                for tensor in node.input_tensors
            )
        )
        address = prefix + layer.name
        parameters = layer.count_params() if isinstance(layer, keras.Layer) else 0
        found.append(LayerInfo(address, type(layer).__name__, None, inbound, parameters=parameters))
        if isinstance(layer, keras.Model):
            found += layers(layer, address + "/")
    return found


@pytest.fixture(scope="module", params=EXPECTED)
def network(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """The preset and the model, for images of any size and without its top."""
    build = getattr(keras.applications, request.param)
    options = {"alpha": 0.5} if request.param in ("MobileNet", "MobileNetV2") else {}
    shape = (224, 224, 3) if request.param == "NASNetMobile" else (96, 96, 3)
    return EXPECTED[request.param], build(weights=None, include_top=False, input_shape=shape, **options)


def test_the_preset_is_the_one_its_authors_used(network: tuple[str, Any]) -> None:
    preset, model = network
    guessed, reason = guess_preset(layers(model))
    assert guessed == preset
    assert reason != ASSUMED


def test_it_is_known_as_one_layer_of_another_model(network: tuple[str, Any]) -> None:
    preset, model = network
    inputs = keras.Input(model.input_shape[1:])
    augmented = keras.Sequential([keras.layers.RandomFlip(), keras.layers.RandomRotation(0.1)])(inputs)
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(model(augmented)))
    guessed, reason = guess_preset(layers(keras.Model(inputs, outputs)))
    assert guessed == preset
    assert f"`{model.name}/" in reason


def test_it_is_known_when_it_is_cut_off_and_continued(network: tuple[str, Any]) -> None:
    preset, model = network
    middle = model.layers[len(model.layers) // 2].output
    head = keras.layers.Dense(3)(keras.layers.Flatten()(middle))
    guessed, reason = guess_preset(layers(keras.Model(model.input, head)))
    assert guessed == preset
    assert reason != ASSUMED


def test_preprocess_input_within_the_model_takes_the_evidence_away(network: tuple[str, Any]) -> None:
    preset, model = network
    if preset == "raw":
        pytest.skip("prepares its images itself")
    inputs = keras.Input(model.input_shape[1:])
    prepared = keras.applications.imagenet_utils.preprocess_input(inputs, mode=preset)
    assert guess_preset(layers(keras.Model(inputs, model(prepared)))) == ("raw", ASSUMED)
