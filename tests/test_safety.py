"""What the safety inspection lets pass: all that harmless files have. What it refuses is in test_hostile."""

from __future__ import annotations

import io
import json
import os
import resource
import time
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from savedmodel_samples import WRAPPER, calls, field, function, node, plain, saved_model, write
from small_models import LAST, around, dense, document, layer, weights_member, write_hdf5, write_keras

from layerprobe.errors import LayerprobeError, ModelError, UnsafeModelError
from layerprobe.modelfile.archive import open_archive
from layerprobe.modelfile.config import read_graph
from layerprobe.modelfile.listing import describe
from layerprobe.modelfile.safety import inspect, refuse
from layerprobe.modelfile.safety.config import refused_construct
from layerprobe.modelfile.safety.savedmodel import inspect_savedmodel
from layerprobe.modelfile.safety.sizes import oversized
from layerprobe.modelfile.streams import GuardedStream
from layerprobe.records import Finding

CORPUS = Path(__file__).parents[2] / "shared" / "corpus" / "files"
PLAIN = document(dense("first", 3), dense("last", 2))


def findings(path: Path) -> tuple[Finding, ...]:
    with open_archive(str(path)) as archive:
        return inspect(archive)


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the collection of published models is not here")
def test_no_published_model_is_refused() -> None:
    start = time.perf_counter()
    inspected = 0
    for path in sorted(CORPUS.iterdir()):
        if path.is_dir():
            assert not [f for f in inspect_savedmodel(str(path)) if f.level == "refused"], path
            continue
        try:
            info = describe(str(path))
        except UnsafeModelError:
            raise
        except ModelError:  # Weights only, or a model of another program.
            continue
        inspected += 1
        assert not [finding for finding in info.findings if finding.level == "refused"], path
    assert inspected > 90
    assert time.perf_counter() - start < 60


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetB0", "ConvNeXtTiny", "InceptionResNetV2"])
def test_architectures_of_keras_are_not_refused(name: str, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = getattr(keras.applications, name)(weights=None, include_top=False)
    model.save(tmp_path / "model.keras")
    model.save(tmp_path / "model.h5")
    for file in ("model.keras", "model.h5"):
        info = describe(str(tmp_path / file))
        assert not [finding for finding in info.findings if finding.level == "refused"]


def test_a_model_that_was_packed_again_with_compression_is_not_refused(tmp_path: Path) -> None:
    write_keras(tmp_path / "model.keras", PLAIN, compression=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "model.keras", "a") as archive:
        archive.writestr("assets/", b"")
        archive.writestr("assets/words.txt", b"one\ntwo\n")
    assert findings(tmp_path / "model.keras") == ()


def test_weights_that_are_all_zero_and_compressed_are_not_refused(tmp_path: Path) -> None:
    def change(file: h5py.File, name: str) -> None:
        del file[name]
        file.create_dataset(name, data=np.zeros((4, 3)), compression="gzip", shuffle=True, fletcher32=True)
        file.create_dataset("more", data=np.zeros(4_000_000), compression="gzip")
        file.create_dataset("letters", data=np.array([b"a", b"bc"]))

    write_hdf5(tmp_path / "model.h5", PLAIN, change)
    assert findings(tmp_path / "model.h5") == ()


@pytest.mark.parametrize(
    "entry",
    [
        layer("Sampling", "z", "custom_layers", units=3),
        layer("Sampling", "z", "__main__"),
        layer("QDense", "d", "qkeras.qlayers", kernel_quantizer={"module": "qkeras", "class_name": "bits"}),
        dense("d", 3, kernel_initializer={"module": "my_code", "class_name": "MyInit", "config": {}}),
        dense("d", 3, activation={"module": "builtins", "class_name": "function", "config": "swish_2"}),
        dense("d", 3, dtype={"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}}),
        layer("LayerScale", "s", "keras.src.applications.convnext"),
        layer("StringLookup", "s", vocabulary=["one", "two"]),
        layer("TimeDistributed", "t", layer=dense("d", 3)),
        layer("Lambda", "l", function=["4wEAAA==", None, None], function_type="lambda"),
        layer("Functional", "m", "keras.src.engine.functional"),
        {"class_name": "Dense", "config": {"name": "utils", "units": 3}},
        {"class_name": "Dense", "config": None},
        {},
    ],
)
def test_custom_classes_and_plain_layers_are_not_refused_as_unsafe(entry: dict[str, Any]) -> None:
    assert refused_construct(entry) is None


def test_a_refused_layer_leaves_the_others_to_be_extracted(tmp_path: Path) -> None:
    evil = dense("middle", 3, activation={"module": "os", "class_name": "function", "config": "system"})
    write_hdf5(tmp_path / "model.h5", around(evil))
    info = describe(str(tmp_path / "model.h5"))
    problems = {entry.address: entry.problem for entry in info.layers}
    assert problems["first"] is None
    assert "os.system is refused" in (problems["middle"] or "")
    assert (problems["last"] or "").startswith("it needs layer 'middle'")
    assert [f.place for f in info.findings if f.level == "refused"] == ["middle"]


def test_the_refusal_names_the_place_and_what_to_do(tmp_path: Path) -> None:
    def change(file: h5py.File, name: str) -> None:
        del file[name]
        file[name] = h5py.ExternalLink("/etc/passwd", "x")

    write_keras(tmp_path / "model.keras", PLAIN, change)
    with pytest.raises(UnsafeModelError) as caught:
        describe(str(tmp_path / "model.keras"))
    message = str(caught.value)
    assert caught.value.exit_code == 65
    assert "/layers/dense/vars/0" in message
    assert "/etc/passwd" in message
    assert "someone you trust" in message
    assert "\n" not in message


def test_only_what_is_refused_raises() -> None:
    refuse((Finding("note", "a", "b"), Finding("warning", "a", "b")))
    with pytest.raises(UnsafeModelError, match="c is refused: d"):
        refuse((Finding("note", "a", "b"), Finding("refused", "c", "d")))


# Sizes.


def graph_of(*layers: dict[str, Any], tmp_path: Path) -> Any:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(document(*layers)))
    with open_archive(str(path)) as archive:
        return read_graph(archive)


def test_sizes_are_held_against_the_stored_weights_or_the_memory(tmp_path: Path) -> None:
    graph = graph_of(dense("a", 1000), layer("RepeatVector", "r", n=1000), tmp_path=tmp_path)
    assert oversized(graph, {"a": 5000}.get) == {}
    assert list(oversized(graph, {"a": 999}.get)) == ["a"]
    assert list(oversized(graph, {"a": None}.get, max_memory=3_999)) == ["a", "r"]
    assert oversized(graph, {"a": None}.get, max_memory=4_000) == {}


def test_real_layers_are_not_oversized(tmp_path: Path) -> None:
    layers = [
        layer("Embedding", "e", input_dim=400_000, output_dim=300),
        layer("Conv2D", "c", filters=2048, kernel_size=[7, 7], dilation_rate=[12, 12]),
        layer("UpSampling2D", "u", size=[32, 32]),
        layer("Reshape", "s", target_shape=[-1, 2048]),
        layer("ZeroPadding2D", "p", padding=[[1, 2], [3, 4]]),
    ]
    assert oversized(graph_of(*layers, tmp_path=tmp_path), lambda address: None) == {}


# SavedModels.


def test_a_savedmodel_as_keras_writes_it_is_not_refused(tmp_path: Path) -> None:
    assert list(inspect_savedmodel(str(write(tmp_path / "model", plain())))) == []


def test_a_signature_that_saves_is_only_warned_of_if_nothing_runs_it(tmp_path: Path) -> None:
    more = {"serving_default": "out:0", "save": "call_1:0"}
    found = list(inspect_savedmodel(str(write(tmp_path / "model", plain(signatures=more)))))
    assert [finding.level for finding in found] == ["warning"]
    assert "'save'" in found[0].message


def test_operations_with_harmless_names_are_not_refused(tmp_path: Path) -> None:
    names = ["ReadVariableOp", "Recip", "RestoreNothing", "Resize", "SendMail", "Exp", "TensorListReserve"]
    nodes = [node(f"n{number}", name) for number, name in enumerate(names)]
    graph = saved_model([WRAPPER, *nodes], [function("wrapper", node("p", "PrintV2"))])
    assert list(inspect_savedmodel(str(write(tmp_path / "model", graph)))) == []


def test_functions_that_call_each_other_in_circles_end(tmp_path: Path) -> None:
    circle = [
        function("wrapper", node("c", "While", body=calls("other"), cond=calls("wrapper"))),
        function("other", node("c", "PartitionedCall", f=calls("wrapper"))),
    ]
    graph = saved_model([node("out", "PartitionedCall", ("out",), f=calls("wrapper"))], circle)
    assert list(inspect_savedmodel(str(write(tmp_path / "model", graph)))) == []


@pytest.mark.parametrize("graph", [b"\xff" * 40, b"\x12\xff\xff\xff\x0f", field(2, b"\x0b"), bytes(9), b""])
def test_a_damaged_graph_is_a_model_error(graph: bytes, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="damaged"):
        list(inspect_savedmodel(str(write(tmp_path / "model", graph))))


@pytest.mark.slow
def test_a_savedmodel_that_tensorflow_wrote_is_not_refused_and_its_bad_twin_is(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    class Module(tf.Module):  # type: ignore[misc, name-defined]
        def __init__(self, writes: bool) -> None:
            super().__init__()
            self.weight = tf.Variable([1.0, 2.0])
            self.writes = writes

        @tf.function(input_signature=[tf.TensorSpec([None, 2])])  # type: ignore[untyped-decorator]
        def serve(self, x: Any) -> Any:
            if self.writes:
                tf.io.write_file(str(tmp_path / "marker"), "written")
            return tf.cond(tf.reduce_sum(x) > 0, lambda: x * self.weight, lambda: x)

    for writes in (False, True):
        module = Module(writes)
        folder = str(tmp_path / f"writes_{writes}")
        tf.saved_model.save(module, folder, signatures=module.serve)
        refused = [f for f in inspect_savedmodel(folder) if f.level == "refused"]
        assert bool(refused) == writes
        assert all("WriteFile" in finding.message for finding in refused)


# Damaged HDF5.


def test_a_heap_that_would_never_end_is_an_error() -> None:
    data = bytearray(weights_member(lambda file, name: file.attrs.__setitem__("text", "words")))
    heap = data.index(b"GCOL")
    objects = heap + 16
    data[objects + 8 : objects + 16] = (3000).to_bytes(8, "little")
    data[objects + 16 + 3000 : objects + 32 + 3000] = bytes(16)
    start = time.perf_counter()
    with pytest.raises(OSError, match="heap"), h5py.File(GuardedStream(io.BytesIO(bytes(data))), "r") as file:
        print(file.attrs["text"])
    assert time.perf_counter() - start < 10


def test_a_text_that_claims_4_gib_is_an_error_before_any_memory_is_taken(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "model.h5", PLAIN)
    data = bytearray((tmp_path / "model.h5").read_bytes())
    length = len(json.dumps(PLAIN)).to_bytes(4, "little")
    place = data.index(length, data.index(b"model_config\0"))
    data[place : place + 4] = (2**32 - 16).to_bytes(4, "little")
    (tmp_path / "model.h5").write_bytes(bytes(data))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match="damaged"):
        describe(str(tmp_path / "model.h5"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_a_guarded_file_reads_as_the_file_itself(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "model.h5", PLAIN)
    with open(tmp_path / "model.h5", "rb") as stream, h5py.File(GuardedStream(stream), "r") as file:
        assert file.attrs["backend"] == "tensorflow"
        np.testing.assert_array_equal(file["model_weights/last/last/kernel"][()], LAST["kernel"])
    with open(tmp_path / "model.h5", "rb") as stream:
        guarded = GuardedStream(stream)
        assert guarded.seek(-4, os.SEEK_END) == guarded.tell()
        assert guarded.read(100) == (tmp_path / "model.h5").read_bytes()[-4:]


def test_an_attribute_of_a_strange_type_is_a_model_error(tmp_path: Path) -> None:
    def change(file: h5py.File, name: str) -> None:
        file.attrs["backend"] = np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")])

    write_hdf5(tmp_path / "model.h5", PLAIN, change)
    with pytest.raises(LayerprobeError, match="backend"):
        describe(str(tmp_path / "model.h5"))
