"""A layer's arguments as Keras 3 spells them: known ones kept and completed, neutral ones dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from layerprobe.modelfile.calls import read_structure
from layerprobe.modelfile.classes import LAYERS, MODELS, REQUIRED
from layerprobe.modelfile.graph import LayerNode

_TRAINING_ONLY = ("_initializer", "_regularizer", "_constraint")

_INPUT = ("batch_input_shape", "batch_shape", "input_dim", "input_dtype", "input_length", "input_shape")
"""What the first layer of a Sequential model says of its input; the InputLayer says it now."""

_LOOKUPS = ("IntegerLookup", "StringLookup", "TextVectorization")

_ANYTHING: Callable[[Any], bool] = lambda value: True  # noqa: E731


def _is(*neutral: Any) -> Callable[[Any], bool]:
    return lambda value: any(value == one and type(value) is type(one) for one in neutral)


NEUTRAL: dict[str, Callable[[Any], bool]] = {
    "adjustment": _is(None),
    "autocast": _ANYTHING,
    "batch_size": _ANYTHING,
    "bounding_box_format": _ANYTHING,
    "causal": _is(False, None),
    "constants": _is(None),
    "data_format": _is("channels_last", None),
    "dynamic": _is(False),
    "experimental_autocast": _ANYTHING,
    "fused": _ANYTHING,
    "groups": _is(1, None),
    "has_input_vocabulary": _ANYTHING,
    "implementation": _ANYTHING,
    "input_spec": _ANYTHING,
    "interpolation": _is("nearest", None),
    "key_shape": _ANYTHING,
    "lora_alpha": _ANYTHING,
    "lora_rank": _ANYTHING,
    "num_constants": _is(None, 0),
    "oov_method": _is("floormod"),
    "output_padding": _is(None),
    "quantization_config": _is(None),
    "query_shape": _ANYTHING,
    "ragged": _is(False, None),
    "noise_shape": _is(None),
    "rank": _ANYTHING,
    "renorm": _is(False),
    "renorm_clipping": _ANYTHING,
    "renorm_momentum": _ANYTHING,
    "reverse_dtype": _is(None),
    "rms_scaling": _is(False),
    "rng_type": _ANYTHING,
    "salt": _is(None),
    "seed": _ANYTHING,
    "shared_object_id": _ANYTHING,
    "sliding_window": _is(None),
    "softmax_robust_masking": _is(False),
    "sparse": _ANYTHING,
    "stateful": _is(False),
    "unroll": _is(False),
    "time_major": _is(False),
    "use_cudnn": _ANYTHING,
    "use_gate": _is(False),
    "value_shape": _ANYTHING,
    "virtual_batch_size": _is(None),
    "vocabulary_dtype": _ANYTHING,
    "vocabulary_size": _ANYTHING,
    "weights": _is(None),
    "zero_output_for_mask": _is(False),
}
"""Arguments that Keras 3 does not take and that change nothing, at the values for which that is so."""

_NONE_SAYS = ("merge_mode", "scaling", "split", "standardize", "top_db", "window")
"""Arguments at which None is a choice of its own, not the default."""

ReadLayer = Callable[[Mapping[str, Any], str], LayerNode]


def complete(
    class_name: str, config: Mapping[str, Any], place: str, read_layer: ReadLayer
) -> tuple[dict[str, Any], list[str], str | None]:
    """Bring a known layer's arguments into the form that `graph` describes.

    Args:
        class_name: One of `LAYERS`.
        config: As the file has it, after the migrations.
        place: The layer's address.
        read_layer: Reads a layer that is an argument of this one.

    Returns:
        The arguments, what was dropped as "name=value", and what stands in the way of building the layer.
    """
    known = LAYERS[class_name]
    arguments: dict[str, Any] = {
        "trainable": config.get("trainable", True) is not False,
        "dtype": dtype_name(config.get("dtype")),
    }
    dropped, problem = [], None
    for name, value in config.items():
        if name in known:
            arguments[name] = _value(name, value, place, read_layer)
        elif name in ("name", "trainable", "dtype") or name.endswith(_TRAINING_ONLY) or name in _INPUT:
            continue
        elif name in NEUTRAL and NEUTRAL[name](value):
            dropped.append(f"{name}={str(value)[:40]}")
        else:
            problem = f"its argument {name}={str(value)[:60]!r} is not known to Keras 3"
    for name, default in known.items():
        absent = name not in arguments or (arguments[name] is None and name not in _NONE_SAYS)
        if absent and default is not None and default != REQUIRED:
            arguments[name] = default
        elif name not in arguments:
            arguments[name] = None
            problem = f"its argument {name} is missing" if default == REQUIRED else problem
    if "data_format" in arguments and arguments["data_format"] in (None, "default"):
        arguments["data_format"] = "channels_last"
    if class_name in _LOOKUPS and arguments["vocabulary"] is None:
        problem = "its vocabulary is not in the config"
    if arguments["dtype"] is None:
        problem = f"its dtype {str(config.get('dtype'))[:60]!r} is not known"
    return arguments, dropped, problem


def dtype_name(dtype: Any) -> str | None:
    """The name of a dtype or policy, "float32" where none is given; None where it is not a plain one."""
    if dtype is None:
        return "float32"
    if isinstance(dtype, dict):
        config = dtype.get("config")
        dtype = config.get("name") if isinstance(config, dict) else None
    return dtype if isinstance(dtype, str) and dtype.replace("_", "").isalnum() else None


def _value(name: str, value: Any, place: str, read_layer: ReadLayer) -> Any:
    if (
        isinstance(value, list)
        and value
        and all(isinstance(item, dict) and "class_name" in item for item in value)
    ):
        return [_value(name, item, place, read_layer) for item in value]
    if not isinstance(value, dict):
        return _tuples(value)
    class_name, config = value.get("class_name"), value.get("config")
    if isinstance(class_name, str) and (class_name in LAYERS or class_name in (*MODELS, "Model")):
        return read_layer(value, place)
    if name.endswith("activation") and class_name == "function" and isinstance(config, str):
        return config
    return _tuples(read_structure(value, place))


def _tuples(value: Any) -> Any:
    """Lists of numbers, and of such lists, as tuples."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return value
