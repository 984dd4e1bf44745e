"""The config of any Keras generation -> the normal form of `graph`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from layerprobe.errors import ModelError, UsageError
from layerprobe.modelfile import arguments
from layerprobe.modelfile.archive import Archive
from layerprobe.modelfile.calls import count_from_zero, read_calls, read_structure
from layerprobe.modelfile.classes import ACTIVATIONS, LAYERS
from layerprobe.modelfile.graph import Call, Graph, LayerNode, Reference, references
from layerprobe.modelfile.migrate import migrate
from layerprobe.modelfile.migrate.keras1_merge import as_functional, is_merge_of_models
from layerprobe.modelfile.migrate.layer import SavedLayer
from layerprobe.modelfile.operations import OPERATIONS
from layerprobe.modelfile.safety.config import refused_construct
from layerprobe.modelfile.saved import (
    first_shape,
    is_keras,
    is_model,
    is_operation,
    is_stack,
    read_version,
    tensor_structure,
)
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
        if is_stack(config):
            if class_name != "Sequential":
                self._note(
                    place or name, f"{class_name} is loaded as the Sequential model that it was made of"
                )
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
        outputs = tensor_structure(config.get("output_layers"), place or name)
        counted, outputs = count_from_zero(layers, outputs, legacy)
        inputs = tensor_structure(config["input_layers"], place or name)
        for reference in references(inputs):
            if not any(node.is_input and node.name == reference.layer for node in counted):
                raise ModelError(
                    f"model {place or name!r} has no input {reference.layer!r}: the file is damaged."
                )
        return Graph(name, "Functional", tuple(counted), inputs, outputs)

    def _sequential(self, config: Mapping[str, Any], name: str, place: str) -> Graph:
        if config["layers"] and is_merge_of_models(config["layers"][0]):
            self._note(place or name, "Sequential begins with a Merge of models")
            return self._functional(as_functional(config["layers"], name), "Functional", name, place)
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
        shape = config.get("build_input_shape") or first_shape(config["layers"][0])
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
            return LayerNode(name, stored, "", {}, stored_class=stored, problem=refused)
        if stored in ("Functional", "Model", "Sequential") or is_model(config):
            inner = self.model(saved, name, f"{place}{name}/")
            return LayerNode(name, inner.class_name, KERAS, {}, inner=inner, stored_class=stored)
        if not isinstance(config, dict):
            raise ModelError(f"the config of layer {place + name!r} is malformed: the file is damaged.")
        module, registered = saved.get("module"), saved.get("registered_name")
        if is_operation(module, stored, config, self.version):
            return _operation(stored, name, config, place)
        if not is_keras(module, stored, registered):
            return self._custom_layer(saved, name)
        if stored in TF_OPERATIONS:
            return LayerNode(name, stored, KERAS, config, stored_class=stored)
        layer = SavedLayer(stored, dict(config), self.version, self.backend)
        for reason in migrate(layer):
            self._note(place + name, reason)
        if layer.class_name == "Lambda":
            return self._lambda(place, name, layer.config)
        if layer.class_name not in LAYERS:
            return self._custom_layer(saved, name)
        return self._keras_layer(layer, name, place)

    def _custom_layer(self, saved: Mapping[str, Any], name: str) -> LayerNode:
        """A layer whose class is not Keras's; its config stays as it is, for the user's own code."""
        registered = saved.get("registered_name")
        short = str(saved["class_name"]).split(">")[-1]
        return LayerNode(
            name,
            short,
            str(saved.get("module")),
            saved["config"],
            stored_class=saved["class_name"],
            needs=(short,),
            registered_name=registered if isinstance(registered, str) else None,
        )

    def _keras_layer(self, layer: SavedLayer, name: str, place: str) -> LayerNode:
        """A layer of Keras's own, after the migrations."""
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
        return LayerNode(
            name,
            layer.class_name,
            KERAS,
            values,
            stored_class=layer.stored_class,
            needs=_unknown_functions(values),
            problem=problem,
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


def _operation(class_name: str, name: str, config: Mapping[str, Any], place: str) -> LayerNode:
    """A bare operation (`x + y`) of a functional model; one with other than plain arguments is a problem."""
    values = {key: read_structure(value, place) for key, value in config.items() if key != "name"}
    problem = None
    if class_name not in OPERATIONS:
        problem = f"the operation {class_name} is not on the list of known ones"
    elif any(isinstance(value, dict) for value in values.values()):
        problem = f"the operation {class_name} has arguments that are objects"
    return LayerNode(name, class_name, "keras.ops", values, stored_class=class_name, problem=problem)


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
