"""Writes model files that try to run code, read other files or exhaust the machine.

    python tests/hostile.py FOLDER

The payloads are harmless: they only touch FOLDER/marker. Each entry of `hostile_files` says what must happen:
"file", the whole file is refused; "layer", it is listed, with one layer that is refused and others that are
not; "harmless", nothing of it is ever used.
"""

from __future__ import annotations

import io
import json
import stat
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from hostile_configs import harmless_models, layers_that_are_too_large, layers_that_run_code
from savedmodel_samples import keras_metadata, savedmodel_files
from savedmodel_samples import plain as plain_graph
from savedmodel_samples import write as write_savedmodel
from small_models import around, dense, document, layer, write_hdf5, write_keras

Outcome = Literal["file", "layer", "harmless"]


@dataclass(frozen=True)
class Hostile:
    """One hostile file."""

    path: Path
    outcome: Outcome
    says: str
    """A word that the refusal has in it."""


def hostile_files(folder: Path, marker: Path) -> list[Hostile]:
    """Write every hostile file into an empty folder.

    Args:
        folder: Exists.
        marker: What the payloads would touch.
    """
    (folder / "outside.txt").write_text("secret\n")
    (folder / "evilmod.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    with h5py.File(folder / "outside.h5", "w") as file:
        file["numbers"] = np.ones((4, 3), "float32")
    return [
        *_config_files(folder, marker),
        *_hdf5_files(folder),
        *_zip_files(folder),
        *_json_files(folder),
        *(Hostile(*made) for made in savedmodel_files(folder, str(marker))),
    ]


def _config_files(folder: Path, marker: Path) -> Iterator[Hostile]:
    """Each config in every format."""
    cases: list[tuple[str, dict[str, Any], Outcome, str]] = []
    for name, middle, says in layers_that_run_code(folder, marker):
        cases.append((name, around(middle), "layer", says))
    for name, middle, says in layers_that_are_too_large():
        cases.append((name, around(middle), "layer", says))
    for name, model in harmless_models(marker):
        cases.append((name, model, "harmless", ""))
    whole = {"module": "keras.utils", "class_name": "get_file", "config": {"origin": "file:///etc/hostname"}}
    cases.append(("whole_get_file", whole, "file", "get_file"))
    start = layer("InputLayer", "start", batch_shape=[None, 10**9, 10**9, 3])
    small = [layer("GlobalAveragePooling2D", "pool"), dense("first", 3), dense("last", 2)]
    large = {"name": "model", "layers": [start, *small]}
    cases.append(("input_huge", {"class_name": "Sequential", "config": large}, "layer", "GiB"))
    for name, model, outcome, says in cases:
        path = folder / name
        write_hdf5(path.with_suffix(".h5"), model)
        write_keras(path.with_suffix(".keras"), model)
        path.with_suffix(".json").write_text(json.dumps(model))
        yield from (Hostile(path.with_suffix(s), outcome, says) for s in (".h5", ".keras", ".json"))
        write_savedmodel(path.with_suffix(".savedmodel"), plain_graph(), keras_metadata(model))
        yield Hostile(path.with_suffix(".savedmodel"), outcome, says)
    beyond = document(dense("first", 3), dense("last", 10_000))
    write_hdf5(folder / "dense_beyond_the_file.h5", beyond)
    yield Hostile(folder / "dense_beyond_the_file.h5", "layer", "units=10000")


# HDF5 structure, as a file of its own and inside the zip.


def _hdf5_changes(folder: Path) -> dict[str, tuple[Callable[[h5py.File, str], None], Outcome, str]]:
    outside, text = str(folder / "outside.h5"), str(folder / "outside.txt")

    def replaced(make: Callable[[h5py.File, str], Any]) -> Callable[[h5py.File, str], None]:
        def change(file: h5py.File, name: str) -> None:
            del file[name]
            make(file, name)

        return change

    def put(value: Any) -> Callable[[h5py.File, str], None]:
        return replaced(lambda file, name: file.__setitem__(name, value))

    def dataset(**options: Any) -> Callable[[h5py.File, str], None]:
        return replaced(lambda file, name: file.create_dataset(name, dtype="float32", **options))

    def virtual(file: h5py.File, name: str) -> None:
        layout = h5py.VirtualLayout((4, 3), "float32")
        layout[:] = h5py.VirtualSource(outside, "numbers", (4, 3))
        file.create_virtual_dataset(name, layout)

    def unknown_filter(file: h5py.File, name: str) -> None:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((4, 3))
        creation.set_filter(32013, h5py.h5z.FLAG_OPTIONAL, ())  # ZFP: not among HDF5's own.
        space, kind = h5py.h5s.create_simple((4, 3)), h5py.h5t.NATIVE_FLOAT
        links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        links.set_create_intermediate_group(True)
        h5py.h5d.create(file.id, name.encode(), kind, space, creation, links)

    def many(file: h5py.File, name: str) -> None:
        group = file.create_group("many")
        for number in range(50_001):
            group[str(number)] = group if number else h5py.SoftLink("/")

    def cycle(file: h5py.File, name: str) -> None:
        file["around"] = file["/"]

    def group_link(file: h5py.File, name: str) -> None:
        parent = name.rsplit("/", 1)[0]
        del file[parent]
        file[parent] = h5py.ExternalLink(outside, "/")

    gib = 2**28
    return {
        "external_group": (group_link, "file", "external link"),
        "external_link": (put(h5py.ExternalLink(outside, "numbers")), "file", "external link"),
        "soft_link": (put(h5py.SoftLink("/outside")), "file", "soft link"),
        "external_storage": (dataset(shape=(4, 3), external=[(text, 0, 48)]), "file", "outside.txt"),
        "virtual": (replaced(virtual), "file", "virtual"),
        "unknown_filter": (replaced(unknown_filter), "file", "filter 32013"),
        "claims_3_gib": (dataset(shape=(3 * gib,)), "file", "3.0 GiB"),
        "claims_100_gib": (dataset(shape=(100 * gib,), chunks=(1024,)), "file", "100.0 GiB"),
        "claims_in_chunks": (dataset(shape=(4, 3), chunks=(gib, 1), maxshape=(None, 3)), "file", "chunks"),
        "zeros_1_gib": (
            dataset(shape=(gib,), chunks=(2**20,), compression="gzip", fillvalue=0),
            "file",
            "GiB",
        ),
        "many_links": (many, "file", "soft link"),
        "named_type": (lambda file, name: file.__setitem__("type", np.dtype("float32")), "file", "neither"),
        "references": (put(np.array([None] * 12, h5py.ref_dtype)), "file", "plain numbers"),
        "cycle": (cycle, "harmless", ""),
    }


def _hdf5_files(folder: Path) -> Iterator[Hostile]:
    model = document(dense("first", 3), dense("last", 2))
    for name, (change, outcome, says) in _hdf5_changes(folder).items():
        write_hdf5(folder / f"{name}.h5", model, change)
        yield Hostile(folder / f"{name}.h5", outcome, says)
        try:
            write_keras(folder / f"{name}.keras", model, change)
        except OSError:  # External storage cannot be made in a file that lies in memory.
            with h5py.File(folder / "member.h5", "w") as file:
                file.create_group("layers/dense/vars")
                file.create_group("layers/dense_1/vars")
                file["layers/dense/vars/0"] = 0
                change(file, "layers/dense/vars/0")
            with zipfile.ZipFile(folder / f"{name}.keras", "w") as archive:
                archive.writestr("config.json", json.dumps(model))
                archive.write(folder / "member.h5", "model.weights.h5")
        yield Hostile(folder / f"{name}.keras", outcome, says)


# The zip.


def _zip_files(folder: Path) -> Iterator[Hostile]:
    model = document(dense("first", 3), dense("last", 2))
    members = {
        "absolute": (zipfile.ZipInfo("/etc/cron.d/x"), b"x", "absolute"),
        "drive": (zipfile.ZipInfo("C:/x"), b"x", "absolute"),
        "dotdot": (zipfile.ZipInfo("assets/../../x"), b"x", "'..'"),
        "backslash": (zipfile.ZipInfo("assets"), b"x", "backslash"),
        "duplicate": (zipfile.ZipInfo("config.json"), json.dumps(model).encode(), "two members"),
        "symlink": (zipfile.ZipInfo("assets/link"), b"/etc/hostname", "link"),
        "npz": (zipfile.ZipInfo("model.weights.npz"), b"x", "pickled"),
    }
    members["backslash"][0].filename = "assets\\..\\x"
    members["symlink"][0].external_attr = (stat.S_IFLNK | 0o777) << 16
    for name, (info, content, says) in members.items():
        path = folder / f"zip_{name}.keras"
        write_keras(path, model)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(info, content)
        yield Hostile(path, "file", says)

    write_keras(folder / "zip_bomb.keras", model)
    with zipfile.ZipFile(folder / "zip_bomb.keras", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/zeros", bytes(64 << 20))
    yield Hostile(folder / "zip_bomb.keras", "file", "proportion")

    text = json.dumps(model)[:-1] + ', "more": "' + "x" * (80 << 20) + '"}'
    write_keras(folder / "zip_config.keras", text, compression=zipfile.ZIP_DEFLATED)
    yield Hostile(folder / "zip_config.keras", "file", "larger")

    write_keras(folder / "zip_bzip2.keras", model, compression=zipfile.ZIP_BZIP2)
    yield Hostile(folder / "zip_bzip2.keras", "file", "method")

    data = _stored(model)
    for name, says in (("zip_encrypted", "encrypted"), ("zip_crc", "")):
        path = folder / f"{name}.keras"
        if name == "zip_encrypted":
            path.write_bytes(_with_flag(data, b"model.weights.h5", 1))
        else:
            middle = data.index(b"\x89HDF") + 3_000
            path.write_bytes(data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :])
        yield Hostile(path, "harmless" if name == "zip_crc" else "file", says)


def _stored(model: Any) -> bytes:
    buffer = io.BytesIO()
    write_keras(buffer, model)  # type: ignore[arg-type]
    return buffer.getvalue()


def _with_flag(data: bytes, member: bytes, flag: int) -> bytes:
    """Set a flag of one member in the zip's directory."""
    at = data.rindex(member) - 46
    assert data[at : at + 4] == b"PK\1\2"
    return data[: at + 8] + bytes([data[at + 8] | flag]) + data[at + 9 :]


# JSON.


def _json_files(folder: Path) -> Iterator[Hostile]:
    model = json.dumps(document(dense("first", 3), dense("last", 2)))
    texts = {
        "deep": (model[:-1] + ', "more": ' + "[" * 200_000 + "]" * 200_000 + "}", "deep"),
        "duplicate_keys": (model[:-1] + ', "class_name": "Functional"}', "twice"),
        "nan": (model[:-1] + ', "more": NaN}', "NaN"),
        "many_lists": (model[:-1] + ', "more": [' + "[]," * 5_000_000 + "0]}", "lists"),
    }
    for name, (text, says) in texts.items():
        path = folder / f"json_{name}.keras"
        write_keras(path, text)
        yield Hostile(path, "file", says)
        path = folder / f"json_{name}.json"
        path.write_text(text)
        yield Hostile(path, "file", says)
    write_keras(folder / "json_latin1.keras", model.encode() + b"\xff")
    yield Hostile(folder / "json_latin1.keras", "file", "UTF-8")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for hostile in hostile_files(target, target / "marker"):
        print(hostile.outcome, hostile.path, hostile.says)
