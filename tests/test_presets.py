from __future__ import annotations

import dataclasses

import pytest

from layerprobe.images.preprocess import PRESETS, parse_preprocess
from layerprobe.images.presets import ASSUMED, guess_preset
from layerprobe.records import LayerInfo

VGG16 = (
    "block1_conv1 Conv2D 1792, block1_conv2 Conv2D 36928, block1_pool MaxPooling2D 0, "
    "block2_conv1 Conv2D 73856, block2_conv2 Conv2D 147584, block2_pool MaxPooling2D 0, "
    "block3_conv1 Conv2D 295168, block3_conv2 Conv2D 590080, block3_conv3 Conv2D 590080, "
    "block3_pool MaxPooling2D 0, block4_conv1 Conv2D 1180160, flatten Flatten 0, dense Dense 1000"
)
RESNET50 = (
    "conv1_pad ZeroPadding2D 0, conv1_conv Conv2D 9472, conv1_bn BatchNormalization 256, "
    "conv1_relu Activation 0, pool1_pad ZeroPadding2D 0, pool1_pool MaxPooling2D 0, "
    "conv2_block1_1_conv Conv2D 4160, conv2_block1_1_bn BatchNormalization 256, "
    "conv2_block1_1_relu Activation 0, conv2_block1_2_conv Conv2D 36928, dense Dense 9"
)
OLD_RESNET50 = (
    "conv1_pad ZeroPadding2D 0, conv1 Conv2D 9472, bn_conv1 BatchNormalization 256, "
    "activation_1 Activation 0, max_pooling2d_1 MaxPooling2D 0, res2a_branch2a Conv2D 4160, "
    "bn2a_branch2a BatchNormalization 256, activation_2 Activation 0, "
    "res2a_branch2b Conv2D 36928, bn2a_branch2b BatchNormalization 256"
)


def chain(text: str, source: str = "input", model: str = "") -> list[LayerInfo]:
    """Layers in a row, each "name class parameters", behind an InputLayer of the same model."""
    prefix = model + "/" if model else ""
    layers = [LayerInfo(prefix + source, "InputLayer", None, ())]
    for line in text.split(", "):
        name, class_name, parameters = line.split()
        behind = layers[-1].address
        layers.append(LayerInfo(prefix + name, class_name, None, (behind,), parameters=int(parameters)))
    return layers


def inside(*before: str, network: str = VGG16, model: str = "backbone") -> list[LayerInfo]:
    """A network as one layer of an outer model, behind the layers `before`."""
    outer = chain(", ".join([*before, f"{model} Functional 9000", "out Dense 10"]))
    return [*outer[:-1], *chain(network, "input_1", model), outer[-1]]


def without_parameters(layers: list[LayerInfo]) -> list[LayerInfo]:
    return [dataclasses.replace(layer, parameters=None) for layer in layers]


def changed(layers: list[LayerInfo], name: str, **changes: object) -> list[LayerInfo]:
    return [
        dataclasses.replace(layer, **changes) if layer.address == name else layer  # type: ignore[arg-type]
        for layer in layers
    ]


@pytest.mark.parametrize("network", [VGG16, RESNET50, OLD_RESNET50])
def test_a_known_architecture_is_evidence(network: str) -> None:
    preset, reason = guess_preset(chain(network))
    assert preset == "caffe"
    assert "Keras's" in reason
    assert preset in PRESETS
    assert parse_preprocess(preset).channel_order == "bgr"


def test_a_known_architecture_is_evidence_inside_another_model() -> None:
    preset, reason = guess_preset(inside())
    assert (preset, "`backbone/block1_conv1`" in reason) == ("caffe", True)
    assert (
        guess_preset(inside("flip RandomFlip 0", "turn RandomRotation 0", "pad ZeroPadding2D 0"))[0]
        == "caffe"
    )


def test_augmentation_in_a_model_of_its_own_changes_nothing() -> None:
    layers = inside("augmentation Sequential 0")
    inner = [
        LayerInfo("augmentation/random_flip", "RandomFlip", None, ("augmentation/flip_input",)),
        LayerInfo("augmentation/random_zoom", "RandomZoom", None, ("augmentation/random_flip",)),
    ]
    assert guess_preset([*layers[:2], *inner, *layers[2:]])[0] == "caffe"


def test_the_beginning_of_a_known_architecture_suffices() -> None:
    names = VGG16.split(", ")
    assert guess_preset(chain(", ".join(names[:5])))[0] == "caffe"
    assert guess_preset(chain(", ".join(names[:4]))) == ("raw", ASSUMED)
    assert guess_preset(without_parameters(chain(VGG16)))[0] == "caffe"


@pytest.mark.parametrize(
    "different",
    [
        VGG16.replace("1792", "896").replace("36928", "9248"),  # half as many filters
        VGG16.replace("1792", "640"),  # grey images
        VGG16.replace("590080, block3_conv3 Conv2D 590080, ", "590080, "),  # one layer fewer
        VGG16.replace("block1_pool MaxPooling2D", "block1_pool AveragePooling2D"),
        VGG16.replace("block2_conv1", "conv2_1"),
        VGG16.replace("block1_pool", "batch_normalization BatchNormalization 256, block1_pool"),
        ", ".join(VGG16.split(", ")[:6]) + ", flatten Flatten 0, dense Dense 10",  # small
        VGG16.replace("block", "conv").replace("_conv", "_"),  # conv1_1, conv1_2, ...
        RESNET50.replace("9472", "9408"),  # ResNeXt
        "conv2d Conv2D 896, max_pooling2d MaxPooling2D 0, flatten Flatten 0, dense Dense 10",
    ],
)
def test_a_network_that_only_resembles_a_known_one_is_no_evidence(different: str) -> None:
    assert guess_preset(chain(different)) == ("raw", ASSUMED)


@pytest.mark.parametrize("class_name", ["Rescaling", "Normalization"])
def test_a_layer_that_prepares_images_is_evidence_for_raw(class_name: str) -> None:
    prepared = ("raw", f"the model has a {class_name} layer `prepare`")
    assert guess_preset(chain(f"prepare {class_name} 0, conv2d Conv2D 896")) == prepared
    assert guess_preset(inside(f"prepare {class_name} 0")) == prepared
    assert guess_preset(inside("resizing Resizing 0", f"prepare {class_name} 0")) == prepared


def test_a_layer_that_prepares_images_is_found_inside_another_model() -> None:
    network = "rescaling Rescaling 0, normalization Normalization 7, stem_conv Conv2D 864"
    assert guess_preset(inside(network=network))[1].endswith("layer `backbone/rescaling`")


def test_rescaling_far_behind_the_input_is_no_evidence() -> None:
    assert guess_preset(chain("conv2d Conv2D 896, rescaling Rescaling 0")) == ("raw", ASSUMED)


@pytest.mark.parametrize(
    "first", ["lambda Lambda 0", "tf.math.truediv TFOpLambda 0", "true_divide TrueDivide 0", "conv Conv2D 12"]
)
def test_whatever_may_change_the_values_first_leaves_nothing_known(first: str) -> None:
    assert guess_preset(inside(first)) == ("raw", ASSUMED)
    assert guess_preset(chain(f"{first}, {VGG16}")) == ("raw", ASSUMED)


def test_slashes_in_the_names_of_older_networks_are_understood() -> None:
    densenet = (
        "zero_padding2d_1 ZeroPadding2D 0, conv1/conv Conv2D 9408, conv1/bn BatchNormalization 256, "
        "conv1/relu Activation 0, pool1 MaxPooling2D 0, conv2_block1_0_bn BatchNormalization 256, "
        "conv2_block1_0_relu Activation 0, conv2_block1_1_conv Conv2D 8192, "
        "conv2_block1_1_bn BatchNormalization 512"
    )
    assert guess_preset(chain(densenet))[0] == "torch"
    mobilenet = "rescaling Rescaling 0, Conv Conv2D 432, Conv/BatchNorm BatchNormalization 64"
    assert guess_preset(chain(mobilenet)) == ("raw", "the model has a Rescaling layer `rescaling`")


def test_of_several_inputs_the_one_that_takes_the_images_counts() -> None:
    image = chain(VGG16, "image")
    table = [
        LayerInfo("table", "InputLayer", None, ()),
        LayerInfo("normalization", "Normalization", None, ("table",), parameters=3),
        LayerInfo("dense_1", "Dense", None, ("normalization",), parameters=9),
    ]
    mixed = [table[0], image[0], table[1], *image[1:4], table[2], *image[4:]]
    assert guess_preset(mixed, "image")[0] == "caffe"
    assert "`normalization`" in guess_preset(mixed, "table")[1]
    assert guess_preset(mixed) == ("raw", ASSUMED)


def test_inputs_that_go_to_the_same_network_are_one() -> None:
    twice = inside()
    twice.insert(1, LayerInfo("other", "InputLayer", None, ()))
    assert guess_preset(changed(twice, "backbone", inbound=("input", "other"), calls=2))[0] == "caffe"


def test_the_input_of_a_sequential_model_need_not_be_listed() -> None:
    assert guess_preset(chain(VGG16)[1:])[0] == "caffe"
    behind = chain(f"random_flip RandomFlip 0, {VGG16}")
    assert guess_preset(behind[1:])[0] == "caffe"


def test_an_input_that_goes_to_two_networks_is_no_evidence() -> None:
    first, second = chain(VGG16), chain(RESNET50)
    assert guess_preset([*first, *second[1:]]) == ("raw", ASSUMED)


def test_a_list_without_layers_or_calls_is_no_evidence() -> None:
    assert guess_preset([]) == ("raw", ASSUMED)
    assert guess_preset(chain(VGG16)[:1]) == ("raw", ASSUMED)
    unknown = [dataclasses.replace(layer, inbound=()) for layer in chain(VGG16)]
    assert guess_preset(unknown) == ("raw", ASSUMED)
