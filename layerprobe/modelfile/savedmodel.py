"""A SavedModel folder read without TensorFlow: Keras's description of it, and the graph of its signature.

https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/saved_model.proto
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from layerprobe.errors import ModelError
from layerprobe.modelfile import jsontext
from layerprobe.modelfile.checkpoint import Checkpoint
from layerprobe.modelfile.inlining import Inlining
from layerprobe.modelfile.opening import read_part
from layerprobe.modelfile.protobuf import messages, number, text
from layerprobe.records import TensorSpec

MAX_BYTES = 512 << 20
"""Of saved_model.pb and keras_metadata.pb; the weights are in other files."""
SIGNATURES = ("serving_default", "serve", "infer", "predict", "call")
"""Names of the signature that gives a model's results, the usual one first."""
_NO_VALUE = ("Assert", "Const", "NoOp", "Placeholder", "ReadVariableOp", "VarHandleOp", "VariableV2")
_DTYPES = {
    **{1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string", 9: "int64"},
    **{10: "bool", 14: "bfloat16", 17: "uint16", 19: "float16", 22: "uint32", 23: "uint64"},
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a signature's graph."""

    path: str
    """Its name once all functions are inlined: the names of the calls, then its own, joined by "/"."""
    address: str
    """What the user calls it: its own name, or its path where that is not unique."""
    kind: str
    """"Conv2D", "Relu", ..."""
    inbound: tuple[str, ...]
    """Paths of the operations and inputs that it takes values from."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What the model computes when it is served."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    """Paths of the operations that it returns."""
    operations: tuple[Operation, ...]


class SavedModel:
    """An opened SavedModel; everything is read when it is asked for."""

    def __init__(self, folder: str) -> None:
        """Begin.

        Args:
            folder: That holds saved_model.pb.

        Raises:
            ModelError: saved_model.pb is missing, truncated or damaged.
        """
        self.folder = folder
        self._place = os.path.join(folder, "saved_model.pb")
        found = list(messages(read_part(self._place, MAX_BYTES), 2, self._place))
        if not found:
            raise ModelError(f"{self._place} is empty or damaged: it holds no graph.")
        self._graph = found[0]

    @cached_property
    def keras_model(self) -> dict[str, Any] | None:
        """Keras's own description, `{"class_name": ..., "config": ..., "keras_version": ...}`; None without.

        Raises:
            ModelError: It is damaged.
        """
        document = self._root_metadata()
        if not document:
            return None
        parsed = jsontext.parse(document, f"the Keras metadata of {self.folder}")
        if not isinstance(parsed, dict) or not isinstance(parsed.get("config"), dict):
            return None
        return {str(key): _untagged(value) for key, value in parsed.items()}

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Its variables.

        Raises:
            ModelError: They are missing or damaged.
        """
        return Checkpoint(os.path.join(self.folder, "variables"))

    @cached_property
    def signature(self) -> Signature:
        """The graph that serves the model.

        Raises:
            ModelError: There is none, or its functions call each other too often.
        """
        definitions = {text(entry, 1, self._place): entry for entry in messages(self._graph, 5, self._place)}
        name = next((name for name in SIGNATURES if name in definitions), None)
        if name is None:
            known = ", ".join(sorted(definitions.keys() - {"__saved_model_init_op"})) or "none"
            raise ModelError(
                f"{self.folder} has neither Keras metadata nor a serving signature (its signatures: "
                f"{known}): save the model again with one."
            )
        return _read_signature(self._graph, definitions[name], name, self._place)

    def _root_metadata(self) -> str:
        """The JSON of the outermost object: in a file of its own, since TensorFlow 2.5, or in the graph."""
        separate = os.path.join(self.folder, "keras_metadata.pb")
        if os.path.exists(separate):
            for node in messages(read_part(separate, MAX_BYTES), 1, separate):
                if number(node, 2, separate) == 0 and text(node, 4, separate).startswith("_tf_keras_"):
                    return text(node, 5, separate)
        for objects in messages(self._graph, 7, self._place):
            root = next(messages(objects, 1, self._place), memoryview(b""))
            for user_object in messages(root, 4, self._place):
                if text(user_object, 1, self._place).startswith("_tf_keras_"):
                    return text(user_object, 3, self._place)
        return ""


def _untagged(value: Any) -> Any:
    """Tuples are tagged in this JSON, also where the other formats write plain lists."""
    if isinstance(value, list):
        return [_untagged(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "__tuple__" and isinstance(value.get("items"), list):
        return [_untagged(item) for item in value["items"]]
    return {key: _untagged(item) for key, item in value.items()}


def _read_signature(graph: memoryview, entry: memoryview, name: str, place: str) -> Signature:
    signature = next(messages(entry, 2, place), memoryview(b""))
    inputs = {tensor.split(":")[0]: spec for tensor, spec in _tensors(signature, 1, place)}
    outputs = [tensor for tensor, _ in _tensors(signature, 2, place)]
    inlining = Inlining(graph, place)
    returned = inlining.run(outputs, {node: spec.name for node, spec in inputs.items()})
    names = [path.rsplit("PartitionedCall/", 1)[-1] for path, _, _ in inlining.operations]
    counts = Counter(names)
    operations = tuple(
        Operation(path, short if counts[short] == 1 else path, kind, inbound)
        for (path, kind, inbound), short in zip(inlining.operations, names, strict=True)
        if kind not in _NO_VALUE
    )
    return Signature(name, tuple(inputs.values()), tuple(returned), operations)


def _tensors(signature: memoryview, field: int, place: str) -> Iterator[tuple[str, TensorSpec]]:
    """The tensors of a signature: name in the graph; the user's name, shape without batch and dtype."""
    for entry in messages(signature, field, place):
        for tensor in messages(entry, 2, place):
            sizes = [
                number(dimension, 1, place)
                for shape in messages(tensor, 3, place)
                for dimension in messages(shape, 2, place)
            ]
            # An unknown size is -1, whose bits make a huge number.
            shape = tuple(size if size < 1 << 62 else None for size in sizes[1:])
            dtype = _DTYPES.get(number(tensor, 2, place), "float32")
            yield text(tensor, 1, place), TensorSpec(text(entry, 1, place), shape, dtype)
