"""SavedModel folders written byte by byte, without TensorFlow: a harmless one, and hostile ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def field(number: int, value: int | str | bytes) -> bytes:
    """One field of a protocol buffer message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def node(name: str, operation: str, inputs: tuple[str, ...] = (), **attributes: bytes) -> bytes:
    """A NodeDef; attributes are AttrValue messages."""
    return (
        field(1, name)
        + field(2, operation)
        + b"".join(field(3, one) for one in inputs)
        + b"".join(field(5, field(1, key) + field(2, value)) for key, value in attributes.items())
    )


def calls(function: str) -> bytes:
    """An AttrValue that names a function."""
    return field(10, field(1, function))


def function(name: str, *nodes: bytes) -> bytes:
    """A FunctionDef."""
    return field(1, field(1, name)) + b"".join(field(3, one) for one in nodes)


def signature(output: str) -> bytes:
    """A SignatureDef with one output."""
    return field(2, field(1, "out") + field(2, field(1, output)))


def saved_model(
    nodes: list[bytes],
    functions: list[bytes] | None = None,
    signatures: dict[str, str] | None = None,
    objects: list[bytes] | None = None,
) -> bytes:
    """A SavedModel message with one graph; `signatures` maps names to the tensor each gives."""
    library = b"".join(field(1, one) for one in functions or [])
    graph = b"".join(field(1, one) for one in nodes) + field(2, library)
    body = field(1, field(4, "serve")) + field(2, graph)
    for name, output in (signatures if signatures is not None else {"serving_default": "out:0"}).items():
        body += field(5, field(1, name) + field(2, signature(output)))
    body += field(7, b"".join(field(1, one) for one in objects or []))
    return field(1, 1) + field(2, body)


SAVER = [
    function("__inference__traced_save_1", node("save", "SaveV2"), node("merge", "MergeV2Checkpoints")),
    function("__inference__traced_restore_1", node("restore", "RestoreV2")),
]
SAVER_NODES = [
    node("saver_filename", "Placeholder"),
    node("call_1", "StatefulPartitionedCall", ("saver_filename",), f=calls("__inference__traced_save_1")),
    node("call_2", "StatefulPartitionedCall", ("saver_filename",), f=calls("__inference__traced_restore_1")),
]
WRAPPER = node("out", "StatefulPartitionedCall", ("in",), f=calls("wrapper"))
INPUT = node("in", "Placeholder")


def plain(*extra: bytes, functions: tuple[bytes, ...] = (), **more: Any) -> bytes:
    """What Keras writes, in small: an input, a call, the saver's functions."""
    wrapper = function("wrapper", node("matmul", "MatMul"), node("relu", "Relu"))
    return saved_model([INPUT, WRAPPER, *SAVER_NODES, *extra], [wrapper, *SAVER, *functions], **more)


def checkpoint() -> tuple[bytes, bytes]:
    """The index and data of a checkpoint that has the model itself, and no variable."""
    objects = field(1, b"")
    data = varint(len(objects)) + bytes(4) + objects
    entry = field(1, 7) + field(2, b"") + field(5, len(data))
    block = table_block((b"", field(1, 1)), (b"_CHECKPOINTABLE_OBJECT_GRAPH", entry))
    index = table_block((b"z", varint(0) + varint(len(block) - 5)))
    handles = varint(0) + varint(0) + varint(len(block)) + varint(len(index) - 5)
    return block + index + handles.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little"), data


def table_block(*entries: tuple[bytes, bytes]) -> bytes:
    """A block of LevelDB's table format, uncompressed."""
    body = b"".join(varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in entries)
    return body + bytes(4) + (1).to_bytes(4, "little") + bytes(5)


def write(folder: Path, graph: bytes, metadata: bytes | None = None) -> Path:
    (folder / "variables").mkdir(parents=True)
    index, data = checkpoint()
    (folder / "variables" / "variables.index").write_bytes(index)
    (folder / "variables" / "variables.data-00000-of-00001").write_bytes(data)
    (folder / "saved_model.pb").write_bytes(graph)
    if metadata is not None:
        (folder / "keras_metadata.pb").write_bytes(metadata)
    return folder


def keras_metadata(model: dict[str, Any]) -> bytes:
    """keras_metadata.pb with the root's metadata alone."""
    text = json.dumps(model)
    return field(1, field(2, 0) + field(3, "root") + field(4, "_tf_keras_sequential") + field(5, text))


def savedmodel_files(folder: Path, marker: str) -> Iterator[tuple[Path, Any, str]]:
    """(path, outcome, what the refusal says) of each hostile folder."""
    for operation in (
        *("ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "EagerPyFunc", "PyFuncStateless"),
        *("InitializeTableFromTextFileV2", "TFRecordDataset", "CacheDatasetV2", "WholeFileReaderV2"),
        *("CreateSummaryFileWriter", "RemoteCall", "DebugIdentityV2", "XlaHostCompute", "TRTEngineOp"),
    ):
        graph = plain(node("evil", operation, ("in",)))
        yield write(folder / f"op_{operation}", graph), "file", operation
    inner = function("helper", node("w", "WriteFile"))
    yield write(folder / "op_in_function", plain(functions=(inner,))), "file", "WriteFile"
    printed = node("p", "PrintV2", ("in",), output_stream=field(2, f"file://{marker}"))
    yield write(folder / "op_print_to_file", plain(printed)), "file", "PrintV2"

    saves = function("wrapper", node("s", "SaveV2"))
    graph = saved_model([INPUT, WRAPPER], [saves])
    yield write(folder / "serving_saves", graph), "file", "SaveV2"
    indirect = [
        function("wrapper", node("c", "PartitionedCall", f=calls("between"))),
        function("between", node("c", "If", then_branch=calls("__inference__traced_restore_1"))),
        *SAVER,
    ]
    yield write(folder / "serving_restores", saved_model([INPUT, WRAPPER], indirect)), "file", "RestoreV2"
    main = [INPUT, node("s", "SaveV2"), node("out", "Identity", ("in", "^s"))]
    yield write(folder / "graph_saves", saved_model(main)), "file", "SaveV2"
    init = {"serving_default": "out:0", "__saved_model_init_op": "call_1"}
    yield write(folder / "init_saves", plain(signatures=init)), "file", "__saved_model_init_op"

    # Object 1 is a resource; object 2 the function `_initialize` that loading calls for it.
    resource = field(1, field(1, 2) + field(2, "_initialize")) + field(10, b"")
    objects = [
        field(1, field(1, 1) + field(2, "table")),
        resource,
        field(6, field(1, "__inference__traced_save_1")),
    ]
    yield write(folder / "load_saves", plain(objects=objects)), "file", "loading it would run"
    saveable = field(11, field(1, "VARIABLE_VALUE") + field(2, field(2, 2) + field(3, 2)))
    objects = [b"", saveable, field(8, field(1, "__inference__traced_restore_1"))]
    yield write(folder / "load_restores", plain(objects=objects)), "file", "RestoreV2"

    linked = write(folder / "linked", plain())
    (linked / "variables" / "variables.data-00000-of-00001").unlink()
    (linked / "variables" / "variables.data-00000-of-00001").symlink_to("/etc/hostname")
    yield linked, "file", "link"
    yield write(folder / "truncated", plain()[:-30]), "file", "damaged"
    graph_link = write(folder / "graph_link", plain())
    (graph_link / "saved_model.pb").unlink()
    (graph_link / "saved_model.pb").symlink_to("/dev/zero")
    yield graph_link, "file", "link"
