"""How a model's images were prepared for it, as far as the model itself is evidence.

Evidence is a layer that prepares them within the model, or the layers of an architecture of
`keras.applications` right behind the input, by name, class and number of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerprobe.records import LayerInfo

ASKED = "asked for"
ASSUMED = (
    "assumed: nothing in the model says how its images were prepared; give --preprocess to say otherwise"
)

SHORTEST = 5
"""Layers that must agree where a model ends before the fingerprint does."""

_MODELS = frozenset(("Functional", "Model", "Sequential"))
_PREPARING = frozenset(("Normalization", "Rescaling"))
_HARMLESS = frozenset(
    (
        "Cast",
        "CenterCrop",
        "Cropping2D",
        "Dropout",
        "GaussianNoise",
        "Identity",
        "InputLayer",
        "Resizing",
        "SpatialDropout2D",
        "ZeroPadding2D",
    )
)
"""Classes that leave the range of values as it is; so do those that begin with "Random"."""


@dataclass(frozen=True, slots=True)
class _Family:
    """Architectures whose first layers are the same and whose images are prepared in the same way."""

    name: str
    preset: str
    stem: tuple[tuple[str, str, int | None], ...]
    """Name ("*" for one that Keras numbers), class and parameters (None where they vary) of the first layers,
    padding left out."""
    later: str = ""
    """The name of a layer further on, where the stem has no names of its own."""


def _family(name: str, preset: str, stem: str, later: str = "") -> _Family:
    rows = (line.split() for line in stem.strip().splitlines())
    layers = tuple((layer, kind, None if size == "any" else int(size)) for layer, kind, size in rows)
    return _Family(name, preset, layers, later)


_INCEPTION = """
    * Conv2D 864
    * BatchNormalization 96
    * Activation 0
    * Conv2D 9216
    * BatchNormalization 96
    * Activation 0
    * Conv2D 18432
    * BatchNormalization 192
    * Activation 0
    * MaxPooling2D 0
    * Conv2D 5120
    * BatchNormalization 240
    * Activation 0
    * Conv2D 138240
"""

_FAMILIES = (
    _family(
        "VGG16 and VGG19",
        "caffe",
        """
        block1_conv1 Conv2D 1792
        block1_conv2 Conv2D 36928
        block1_pool MaxPooling2D 0
        block2_conv1 Conv2D 73856
        block2_conv2 Conv2D 147584
        block2_pool MaxPooling2D 0
        block3_conv1 Conv2D 295168
        block3_conv2 Conv2D 590080
        block3_conv3 Conv2D 590080
        """,
    ),
    _family(
        "ResNet50, ResNet101 and ResNet152",
        "caffe",
        """
        conv1_conv Conv2D 9472
        conv1_bn BatchNormalization 256
        conv1_relu Activation 0
        pool1_pool MaxPooling2D 0
        conv2_block1_1_conv Conv2D 4160
        conv2_block1_1_bn BatchNormalization 256
        conv2_block1_1_relu Activation 0
        conv2_block1_2_conv Conv2D 36928
        """,
    ),
    _family(
        "ResNet50 (before Keras 2.2.5)",
        "caffe",
        """
        conv1 Conv2D 9472
        bn_conv1 BatchNormalization 256
        * Activation 0
        * MaxPooling2D 0
        res2a_branch2a Conv2D 4160
        bn2a_branch2a BatchNormalization 256
        * Activation 0
        res2a_branch2b Conv2D 36928
        """,
    ),
    _family(
        "ResNet50V2, ResNet101V2 and ResNet152V2",
        "tf",
        """
        conv1_conv Conv2D 9472
        pool1_pool MaxPooling2D 0
        conv2_block1_preact_bn BatchNormalization 256
        conv2_block1_preact_relu Activation 0
        conv2_block1_1_conv Conv2D 4096
        conv2_block1_1_bn BatchNormalization 256
        conv2_block1_1_relu Activation 0
        conv2_block1_2_conv Conv2D 36864
        """,
    ),
    _family(
        "MobileNet",
        "tf",
        """
        conv1 Conv2D any
        conv1_bn BatchNormalization any
        conv1_relu Activation 0
        conv_dw_1 DepthwiseConv2D any
        conv_dw_1_bn BatchNormalization any
        conv_dw_1_relu Activation 0
        conv_pw_1 Conv2D any
        conv_pw_1_bn BatchNormalization any
        conv_pw_1_relu Activation 0
        conv_dw_2 DepthwiseConv2D any
        """,
    ),
    _family(
        "MobileNetV2",
        "tf",
        """
        Conv1 Conv2D any
        bn_Conv1 BatchNormalization any
        Conv1_relu Activation 0
        expanded_conv_depthwise DepthwiseConv2D any
        expanded_conv_depthwise_BN BatchNormalization any
        expanded_conv_depthwise_relu Activation 0
        expanded_conv_project Conv2D any
        expanded_conv_project_BN BatchNormalization any
        block_1_expand Conv2D any
        """,
    ),
    _family(
        "Xception",
        "tf",
        """
        block1_conv1 Conv2D 864
        block1_conv1_bn BatchNormalization 128
        block1_conv1_act Activation 0
        block1_conv2 Conv2D 18432
        block1_conv2_bn BatchNormalization 256
        block1_conv2_act Activation 0
        """,
        later="block2_sepconv1",
    ),
    _family("InceptionV3", "tf", _INCEPTION, later="mixed0"),
    _family("InceptionResNetV2", "tf", _INCEPTION, later="mixed_5b"),
    _family(
        "NASNetMobile and NASNetLarge",
        "tf",
        """
        stem_conv1 Conv2D any
        stem_bn1 BatchNormalization any
        * Activation 0
        reduction_conv_1_stem_1 Conv2D any
        reduction_bn_1_stem_1 BatchNormalization any
        """,
        later="separable_conv_1_reduction_left1_stem_1",
    ),
    _family(
        "DenseNet121, DenseNet169 and DenseNet201",
        "torch",
        """
        conv1_conv Conv2D 9408
        conv1_bn BatchNormalization 256
        conv1_relu Activation 0
        pool1 MaxPooling2D 0
        conv2_block1_0_bn BatchNormalization 256
        conv2_block1_0_relu Activation 0
        conv2_block1_1_conv Conv2D 8192
        conv2_block1_1_bn BatchNormalization 512
        """,
    ),
)


def guess_preset(layers: Sequence[LayerInfo], input_name: str | None = None) -> tuple[str, str]:
    """Say how the images of one input are to be prepared.

    Args:
        layers: Of the whole model, nested ones included, each model's in the order of their calls.
        input_name: The input that takes the images; needed only where the model has several.

    Returns:
        The name of a preset of `preprocess.PRESETS`, and the evidence in words; "raw" and `ASSUMED` where
        there is none.
    """
    members = _members(layers)
    inputs = _inputs(members[""])
    model, first = "", _first(members, "", inputs & {input_name} or inputs)
    while first is not None and first.address in members:
        model = first.address
        first = _first(members, model, _inputs(members[model]))
    if first is None:
        return "raw", ASSUMED
    if first.class_name in _PREPARING:
        return "raw", f"the model has a {first.class_name} layer `{first.address}`"
    chain = [
        (layer.address.removeprefix(model + "/" if model else "").replace("/", "_"), layer)
        for layer in _behind(members[model], first)
        if layer.class_name != "ZeroPadding2D"
    ]
    for family in _FAMILIES:
        if _belongs(chain, family):
            return family.preset, f"from `{first.address}` on, the layers are those of Keras's {family.name}"
    return "raw", ASSUMED


def _members(layers: Sequence[LayerInfo]) -> dict[str, list[LayerInfo]]:
    """The direct layers of each model, by its address; "" for the outermost."""
    members: dict[str, list[LayerInfo]] = {"": []}
    members |= {layer.address: [] for layer in layers if layer.class_name in _MODELS}
    for layer in layers:
        model = layer.address.rpartition("/")[0]
        while model not in members:  # a slash in the layer's own name
            model = model.rpartition("/")[0]
        members[model].append(layer)
    return members


def _inputs(layers: Sequence[LayerInfo]) -> set[str]:
    return {layer.address for layer in layers if layer.class_name == "InputLayer"}


def _first(members: dict[str, list[LayerInfo]], model: str, inputs: set[str]) -> LayerInfo | None:
    """The one layer of a model where images are no longer what came in; None if there are several or none."""
    same = set(inputs)
    found: list[LayerInfo] = []
    for layer in members[model]:
        if layer.class_name == "InputLayer":
            continue
        # A Sequential model's first layer takes from an input that is not listed.
        if same.intersection(layer.inbound) or not layer.inbound or not (same or found):
            if _harmless(members, layer):
                same.add(layer.address)
            else:
                found.append(layer)
    return found[0] if len(found) == 1 else None


def _harmless(members: dict[str, list[LayerInfo]], layer: LayerInfo) -> bool:
    if layer.address in members:
        return all(_harmless(members, inner) for inner in members[layer.address])
    return layer.class_name in _HARMLESS or layer.class_name.startswith("Random")


def _behind(layers: Sequence[LayerInfo], first: LayerInfo) -> list[LayerInfo]:
    """`first` and what depends on it, in order."""
    reached = {first.address}
    for layer in layers:
        if reached.intersection(layer.inbound):
            reached.add(layer.address)
    return [layer for layer in layers if layer.address in reached]


def _belongs(chain: Sequence[tuple[str, LayerInfo]], family: _Family) -> bool:
    """Whether named layers in a row are the beginning of a family's networks."""
    for (name, layer), (wanted, class_name, parameters) in zip(chain, family.stem, strict=False):
        if wanted not in ("*", name):
            return False
        if class_name != ("Activation" if layer.class_name == "ReLU" else layer.class_name):
            return False  # ReLU was an Activation in older Keras
        if parameters is not None and layer.parameters not in (None, parameters):
            return False
    if family.later:
        return family.later in [name for name, _ in chain]
    return len(chain) >= min(SHORTEST, len(family.stem))
