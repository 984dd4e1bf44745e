"""The config of any Keras generation -> the normal form of `graph`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from layerprobe.errors import ModelError, UsageError
from layerprobe.modelfile import arguments
from layerprobe.modelfile.archive import Archive
from layerprobe.modelfile.calls import count_from_zero, is_legacy_reference, read_calls, read_structure
from layerprobe.modelfile.classes import ACTIVATIONS, LAYERS
from layerprobe.modelfile.graph import Call, Graph, LayerNode, Reference
from layerprobe.modelfile.migrate import migrate
from layerprobe.modelfile.migrate.layer import SavedLayer
from layerprobe.modelfile.safety.config import refused_construct
from layerprobe.records import Finding

KERAS = "keras.layers"
TF_OPERATIONS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
"""Layers that hold one call of a TensorFlow function."""


def read_graph(archive: Archive, lambdas: Mapping[str, str] | None = None) -> Graph:
    """Read a model's architecture.

    Args:
        archive: Of the model.
        lambdas: Expressions that the user gives for Lambda layers, by the layer's address or bare name.

    Returns:
        Its graph, without layers for a subclassed model, whose layers only its own code knows.

    Raises:
        ModelError: The config is damaged, or no Keras wrote it.
        UsageError: A given expression is not in the language, or for no Lambda layer of the model.
    """
    document = archive.config()
    reader = _Reader(read_version(archive.keras_version, document), archive.backend, dict(lambdas or {}))
    graph = reader.model(document, "", "")
    unused = sorted(reader.lambdas.keys() - reader.used)
    if unused:
        known = ", ".join(reader.seen) or "none"
        raise UsageError(f"--lambda {unused[0]}=...: the model has no such Lambda layer; it has {known}.")
    return replace(graph, findings=tuple(reader.findings))


def read_version(text: str | None, document: Any) -> tuple[int, int]:
    """(major, minor) of the Keras that wrote a config, judged by its style where it does not say."""
    numbers = re.match(r"(\d+)\.(\d+)", text or "")
    if numbers:
        return int(numbers[1]), int(numbers[2])
    style = str(document)
    if "'batch_shape'" in style or "'keras_history'" in style:
        return 3, 0
    if any(word in style for word in ("'nb_filter'", "'W_regularizer'", "'border_mode'", "'inner_init'")):
        return 1, 0
    return 2, 0


class _Reader:
    """Walks one config; what it had to change gathers in `findings`."""

    def __init__(self, version: tuple[int, int], backend: str | None, lambdas: Mapping[str, str]) -> None:
        self.version = version
        self.backend = backend
        self.lambdas = lambdas
        self.seen: list[str] = []
        """Addresses of the Lambda layers."""
        self.used: set[str] = set()
        """Which of `lambdas` belonged to one of them."""
        self.findings: list[Finding] = []

    def model(self, saved: Mapping[str, Any], name: str, place: str) -> Graph:
        class_name, config = saved.get("class_name"), saved.get("config")
        if isinstance(config, dict) and isinstance(config.get("name"), str):
            name = config["name"]
        if isinstance(config, list):
            self._note(place or name, "Sequential config is a bare list")
            return self._sequential({"layers": config}, name or "sequential", place)
        if not isinstance(config, dict):
            raise ModelError(f"the config of model {place or name!r} is malformed: the file is damaged.")
        if "input_layers" in config and isinstance(config.get("layers"), list):
            return self._functional(config, str(class_name), name, place)
        if class_name == "Sequential" and isinstance(config.get("layers"), list):
            return self._sequential(config, name, place)
        return Graph(name, str(class_name), (), (), ())

    def _functional(self, config: Mapping[str, Any], class_name: str, name: str, place: str) -> Graph:
        if class_name not in ("Functional", "Model"):
            self._note(place or name, f"{class_name} is loaded as the functional model that it was made of")
        layers, names = [], set()
        legacy = True
        for saved in config["layers"]:
            node = self.layer(saved, place)
            if node.name in names:
                raise ModelError(f"two layers are called {place + node.name!r}: the file is damaged.")
            names.add(node.name)
            inbound = saved.get("inbound_nodes", [])
            legacy = legacy and not (isinstance(inbound, list) and inbound and isinstance(inbound[0], dict))
            calls = read_calls(inbound, node.class_name, place + node.name)
            node = replace(node, calls=calls or (Call(),) if node.is_input else calls)
            layers.append(self._tf_operation(node, place) if node.class_name in TF_OPERATIONS else node)
        outputs = _tensor_structure(config.get("output_layers"), place or name)
        counted, outputs = count_from_zero(layers, outputs, legacy)
        inputs = _tensor_structure(config["input_layers"], place or name)
        return Graph(name, "Functional", tuple(counted), inputs, outputs)

    def _sequential(self, config: Mapping[str, Any], name: str, place: str) -> Graph:
        layers = [self.layer(saved, place) for saved in config["layers"]]
        if not layers:
            raise ModelError(f"the Sequential model {place or name!r} has no layers.")
        if not layers[0].is_input:
            layers.insert(0, self._input_of(layers[0], config, place))
        layers = [layers[0], *(node for node in layers[1:] if not node.is_input)]
        chain = [replace(layers[0], calls=(Call(),))]
        for before, node in itertools.pairwise(layers):
            chain.append(replace(node, calls=(Call((Reference(before.name),)),)))
        return Graph(name, "Sequential", tuple(chain), Reference(chain[0].name), Reference(chain[-1].name))

    def _input_of(self, first: LayerNode, config: Mapping[str, Any], place: str) -> LayerNode:
        """The InputLayer that a Sequential model's config leaves out."""
        shape = config.get("build_input_shape") or _first_shape(config["layers"][0])
        if isinstance(shape, list) and all(size is None or type(size) is int for size in shape):
            self._note(place + first.name, "Sequential without InputLayer")
        else:
            shape = None
        saved = {"class_name": "InputLayer", "config": {"name": f"{first.name}_input", "batch_shape": shape}}
        return self.layer(saved, place)

    def layer(self, saved: Any, place: str) -> LayerNode:
        """Read one layer; `place` is the address of the model around it, with a "/" at its end."""
        if not isinstance(saved, dict) or not isinstance(saved.get("class_name"), str):
            raise ModelError(f"a layer of {place or 'the model'} has no class_name: the file is damaged.")
        stored, config = saved["class_name"], saved.get("config")
        name = saved.get("name") or (config.get("name") if isinstance(config, dict) else None)
        name = name if isinstance(name, str) and name else stored.lower()
        refused = refused_construct(saved)
        if refused is not None:
            self.findings.append(Finding("refused", place + name, refused))
            return LayerNode(name, stored, str(saved.get("module")), {}, stored_class=stored, problem=refused)
        if stored in ("Functional", "Model", "Sequential") or _is_functional(config):
            inner = self.model(saved, name, f"{place}{name}/")
            return LayerNode(name, inner.class_name, KERAS, {}, inner=inner, stored_class=stored)
        if not isinstance(config, dict):
            raise ModelError(f"the config of layer {place + name!r} is malformed: the file is damaged.")
        registered = saved.get("registered_name")
        module = saved.get("module")
        if _is_operation(module):
            return LayerNode(name, stored, "keras.ops", config, stored_class=stored)
        if stored in TF_OPERATIONS and _is_keras(module, stored, None):
            return LayerNode(name, stored, KERAS, config, stored_class=stored)
        if stored == "Lambda":
            return self._lambda(place, name, config)
        layer = SavedLayer(stored, dict(config), self.version, self.backend)
        for reason in migrate(layer):
            self._note(place + name, reason)
        if not _is_keras(module, stored, registered) or layer.class_name not in LAYERS:
            custom = registered if isinstance(registered, str) else None
            short = layer.class_name.split(">")[-1]
            return LayerNode(
                name, short, str(module), config, stored_class=stored, needs=(short,), registered_name=custom
            )
        values, dropped, problem = arguments.complete(
            layer.class_name,
            layer.config,
            place + name,
            lambda value, _: self.layer(value, f"{place}{name}/"),
        )
        if dropped:
            self._note(place + name, "retired arguments dropped: " + ", ".join(dropped))
        if layer.class_name == "Bidirectional":
            _both_directions(values)
        needs = _unknown_functions(values)
        return LayerNode(
            name, layer.class_name, KERAS, values, stored_class=stored, needs=needs, problem=problem
        )

    def _tf_operation(self, node: LayerNode, place: str) -> LayerNode:
        from layerprobe.modelfile.migrate.tf_operations import as_lambda

        made = as_lambda(node)
        if made.problem is None:
            self._note(place + node.name, f"{node.class_name} computes {made.config['expression']}")
        return made

    def _lambda(self, place: str, name: str, config: Mapping[str, Any]) -> LayerNode:
        # Imported here: most models have no Lambda, and the byte code of ten Pythons takes a while to learn.
        from layerprobe.modelfile.lambda_layer import expression_of, read_lambda

        self.seen.append(place + name)
        key = place + name if place + name in self.lambdas else name
        self.used.add(key)
        node = read_lambda(name, config, self.lambdas.get(key))
        expression = expression_of(node)
        if expression is not None:
            self._note(place + name, f"Lambda computes {expression}")
        return node

    def _note(self, place: str, message: str) -> None:
        self.findings.append(Finding("note", place, message))


def _unknown_functions(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of activations that are not Keras's."""
    named = (values.get(argument) for argument in ("activation", "recurrent_activation"))
    return tuple(name for name in named if isinstance(name, str) and name not in ACTIVATIONS)


def _both_directions(values: dict[str, Any]) -> None:
    """Make both layers of a Bidirectional explicit, under the names that Keras gives them."""
    forward, backward = values["layer"], values["backward_layer"]
    if isinstance(forward, LayerNode):
        values["layer"] = replace(forward, name=f"forward_{forward.name.removeprefix('forward_')}")
        if not isinstance(backward, LayerNode):
            name = f"backward_{forward.name.removeprefix('backward_')}"
            values["backward_layer"] = replace(
                forward, name=name, config={**forward.config, "go_backwards": True}
            )


def _is_functional(config: Any) -> bool:
    return isinstance(config, dict) and "input_layers" in config and isinstance(config.get("layers"), list)


def _is_operation(module: Any) -> bool:
    return isinstance(module, str) and module.startswith(("keras.src.ops", "keras.ops"))


def _is_keras(module: Any, class_name: str, registered: Any) -> bool:
    """Whether a class is Keras's own, as far as the file's words go."""
    if isinstance(registered, str) and ">" in registered:
        return False
    if not isinstance(module, str):
        return ">" not in class_name
    return module.split(".")[0] == "keras" or module.startswith(
        ("tensorflow.keras", "tf_keras", "tensorflow.python.keras")
    )


def _first_shape(saved: Any) -> Any:
    """The batch_input_shape of a Sequential model's first layer, also where that is a model or a wrapper."""
    config = saved.get("config") if isinstance(saved, dict) else None
    if isinstance(config, list):
        return _first_shape(config[0]) if config else None
    if not isinstance(config, dict):
        return None
    for name in ("batch_input_shape", "batch_shape", "build_input_shape"):
        if config.get(name) is not None:
            return config[name]
    if isinstance(config.get("layers"), list) and config["layers"]:
        return _first_shape(config["layers"][0])
    if isinstance(config.get("layer"), dict):
        return _first_shape(config["layer"])
    return None


def _tensor_structure(value: Any, place: str) -> Any:
    """`input_layers` or `output_layers`: one tensor, a list or a dict; a list of one is that one."""
    if is_legacy_reference(value):
        return Reference(value[0], value[1], value[2])
    if isinstance(value, list) and value:
        items = [_tensor_structure(item, place) for item in value]
        return items[0] if len(items) == 1 else items
    if isinstance(value, dict) and value:
        if "class_name" in value:
            return read_structure(value, place)
        return {key: _tensor_structure(item, place) for key, item in value.items()}
    raise ModelError(f"model {place!r} does not say what goes in or comes out: the file is damaged.")
