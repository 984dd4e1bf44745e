"""A SavedModel: what its graph and its functions would do when they are loaded or run.

Operations that read or write files, talk to the network, call Python or load libraries are refused wherever
they stand. Those that save and restore checkpoints are in every SavedModel, in functions of their own: they
are refused where loading or the serving signature would run them.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from layerprobe.errors import ModelError
from layerprobe.modelfile.opening import read_part
from layerprobe.modelfile.protobuf import messages, number, text
from layerprobe.modelfile.savedmodel import MAX_BYTES, SIGNATURES
from layerprobe.records import Finding

MAX_FILES = 10_000

_FORBIDDEN = re.compile(
    "|".join(
        (
            *(
                "PyFunc",
                "PyCall",
                "(Read|Write|Append|Delete|Copy)File",
                "MatchingFiles",
                "FileSystem",
                "Reader",
            ),
            "(Avro|Cache|CSV|DataService|FixedLengthRecord|LMDB|Load|Parquet|Save|Snapshot|Sql|TFRecord|TextLine)"
            "[A-Za-z]*Dataset",
            *(
                "RegisterDataset",
                "DatasetFromGraph",
                "Summary(Writer|File|Db)",
                "WriteSummary",
                "ImportEvent",
            ),
            *("Write[A-Za-z]*Summary", "FromTextFile", "GenerateVocabRemapping", "LoadAndRemapMatrix"),
            *(
                "^Debug(Identity|NanCount|NumericSummary)",
                "DumpTensor",
                "^Remote",
                "Rpc",
                "^_?(Host)?(Send|Recv)$",
            ),
            *("^Collective", "^Nccl", "ConfigureDistributed", "Xla[A-Za-z]*Host", "^TRT|TensorRT|TRTEngine"),
            *(
                "Shell",
                "Subprocess",
                "Command",
                "LoadLibrary",
                "BigQuery",
                "BigTable",
                "Kafka",
                "PubSub",
                "^IO>",
            ),
        )
    )
)
"""Names of operations that reach beyond the model:
https://github.com/tensorflow/tensorflow/blob/master/SECURITY.md"""

_CHECKPOINT = re.compile("^(Save|SaveV2|SaveSlices|Restore|RestoreV2|RestoreSlice|MergeV2Checkpoints)$")


@dataclass(slots=True)
class _Body:
    """The operations of the main graph or of one function."""

    operations: set[str] = field(default_factory=set)
    calls: set[str] = field(default_factory=set)
    """Functions that it calls."""


@dataclass(frozen=True, slots=True)
class _Node:
    """One node of the main graph."""

    operation: str
    inputs: tuple[str, ...]
    calls: frozenset[str]


def inspect_savedmodel(folder: str) -> Iterator[Finding]:
    """Inspect the files of a SavedModel folder and all graphs in it, without TensorFlow.

    Raises:
        ModelError: saved_model.pb is missing, truncated or damaged.
    """
    yield from _inspect_files(folder)
    place = os.path.join(folder, "saved_model.pb")
    graphs = list(messages(read_part(place, MAX_BYTES), 2, place))
    if not graphs:
        raise ModelError(f"{place} is damaged: it holds no graph.")
    for graph in graphs:
        yield from _Inspection(graph, place).findings()


def _inspect_files(folder: str) -> Iterator[Finding]:
    count = 0
    waiting = [folder]
    while waiting:
        for entry in os.scandir(waiting.pop()):
            count += 1
            if entry.is_symlink():
                yield _refused(entry.path, f"it is a link to {os.readlink(entry.path)[:200]!r}")
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                yield _refused(entry.path, "it is not a regular file")
            if count > MAX_FILES:
                yield _refused(folder, f"it has more than {MAX_FILES} files")
                return


class _Inspection:
    """One graph of a SavedModel, with its functions, signatures and objects."""

    def __init__(self, graph: memoryview, place: str) -> None:
        self._place = place
        self._nodes: dict[str, _Node] = {}
        self._functions: dict[str, _Body] = {}
        self._findings: list[Finding] = []
        for definition in messages(graph, 2, place):
            for node in messages(definition, 1, place):
                self._add_node(node)
            for library in messages(definition, 2, place):
                for function in messages(library, 1, place):
                    self._add_function(function)
        self._signatures = dict(self._read_signatures(graph))
        self._at_load = {name for objects in messages(graph, 7, place) for name in self._run_at_load(objects)}

    def findings(self) -> Iterator[Finding]:
        """What is refused, and signatures that must not be run."""
        yield from self._findings
        for name, outputs in self._signatures.items():
            found = self._checkpoints(self._reached_by(outputs))
            if found:
                message = f"the signature {name[:100]!r} would run {found}, which reads or writes files"
                used = name in (*SIGNATURES, "__saved_model_init_op")
                yield Finding("refused" if used else "warning", self._place, message)
        found = self._checkpoints(self._at_load)
        if found:
            yield _refused(self._place, f"loading it would run {found}, which reads or writes files")

    def _add_node(self, message: memoryview) -> None:
        name, operation, inputs, calls = self._read_node(message, "the graph")
        self._nodes[name] = _Node(operation, inputs, calls)

    def _add_function(self, message: memoryview) -> None:
        signature = next(messages(message, 1, self._place), memoryview(b""))
        body = self._functions.setdefault(text(signature, 1, self._place), _Body())
        for node in messages(message, 3, self._place):
            _, operation, _, calls = self._read_node(
                node, f"function {text(signature, 1, self._place)[:100]}"
            )
            body.operations.add(operation)
            body.calls |= calls

    def _read_node(self, message: memoryview, where: str) -> tuple[str, str, tuple[str, ...], frozenset[str]]:
        """Name, operation, inputs and called functions of a node; notes it where it is forbidden."""
        place = self._place
        operation = text(message, 2, place)
        inputs = tuple(bytes(value).decode("utf-8", "replace") for value in messages(message, 3, place))
        calls: set[str] = set()
        stream = ""
        for attribute in messages(message, 5, place):
            key = text(attribute, 1, place)
            if key.startswith("_"):  # Notes of TensorFlow's own, most of them long lists of shapes.
                continue
            for value in messages(attribute, 2, place):
                calls |= set(_function_names(value, place))
                stream = text(value, 2, place) if key == "output_stream" else stream
        if _FORBIDDEN.search(operation) or (operation == "PrintV2" and "file:" in stream):
            reason = f"{where} has the operation {operation[:100]}, which reaches beyond the model"
            self._findings.append(_refused(place, reason))
        return text(message, 1, place), operation, inputs, frozenset(calls)

    def _read_signatures(self, graph: memoryview) -> Iterator[tuple[str, list[str]]]:
        """Each signature's name and the nodes it gives, from field 5, a map of SignatureDefs."""
        for entry in messages(graph, 5, self._place):
            for signature in messages(entry, 2, self._place):
                tensors = (
                    tensor
                    for output in messages(signature, 2, self._place)
                    for tensor in messages(output, 2, self._place)
                )
                yield text(entry, 1, self._place), [text(t, 1, self._place).split(":")[0] for t in tensors]

    def _run_at_load(self, objects: memoryview) -> Iterator[str]:
        """Functions of the object graph that loading itself calls: those that make or restore resources."""
        nodes = list(messages(objects, 1, self._place))
        for node in nodes:
            wanted: list[int] = []
            if any(True for _ in messages(node, 10, self._place)):
                wanted += [number(child, 1, self._place) for child in messages(node, 1, self._place)]
            for entry in messages(node, 11, self._place):
                for saveable in messages(entry, 2, self._place):
                    wanted += [number(saveable, 2, self._place), number(saveable, 3, self._place)]
            for index in wanted:
                if 0 < index < len(nodes):
                    yield from self._concrete(nodes[index])

    def _concrete(self, node: memoryview) -> Iterator[str]:
        for function in messages(node, 6, self._place):
            yield from (bytes(name).decode("utf-8", "replace") for name in messages(function, 1, self._place))
        for function in messages(node, 8, self._place):
            yield text(function, 1, self._place)

    def _reached_by(self, outputs: list[str]) -> set[str]:
        """Functions, and operations of the main graph as "=name", that computing some nodes would run."""
        seen = set(outputs)
        found: set[str] = set()
        waiting = list(outputs)
        while waiting:
            node = self._nodes.get(waiting.pop())
            if node is None:
                continue
            found |= node.calls | {f"={node.operation}"}
            inputs = {name.lstrip("^").split(":")[0] for name in node.inputs}
            waiting += inputs - seen
            seen |= inputs
        return found

    def _checkpoints(self, begin: set[str]) -> str | None:
        """The first operation on checkpoints that is reached, through any number of calls."""
        seen, waiting = set(begin), list(begin)
        while waiting:
            name = waiting.pop()
            body = self._functions.get(name, _Body())
            for operation in sorted(body.operations | ({name[1:]} if name.startswith("=") else set())):
                if _CHECKPOINT.match(operation):
                    return operation
            waiting += body.calls - seen
            seen |= body.calls
        return None


def _function_names(attribute: memoryview, place: str) -> Iterator[str]:
    """Names of functions in the value of an attribute: AttrValue.func, or in AttrValue.list."""
    for function in messages(attribute, 10, place):
        yield text(function, 1, place)
    for values in messages(attribute, 1, place):
        for function in messages(values, 9, place):
            yield text(function, 1, place)


def _refused(place: str, message: str) -> Finding:
    return Finding("refused", place, message)
