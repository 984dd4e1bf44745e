from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import PurePosixPath
from types import MappingProxyType
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from output_samples import PROVENANCE

from layerprobe.columns import AT_ONCE
from layerprobe.errors import OutputFormatError, UnrecordableLayerError
from layerprobe.formats.schema import (
    FOLDER_NAMES,
    HDF5_NAMES,
    NPZ_NAMES,
    NameRules,
    dump_record,
    is_intact,
    load_record,
    stored_dtype,
    stored_names,
    text_checksums,
    text_columns,
)

ALL_RULES = pytest.mark.parametrize(
    "rules", [NPZ_NAMES, HDF5_NAMES, FOLDER_NAMES], ids=["npz", "hdf5", "npy"]
)
texts = st.text(
    st.characters(codec=None, exclude_categories=()) | st.sampled_from("%/\\.aA:~\0"), max_size=12
)


@ALL_RULES
@pytest.mark.parametrize(
    "name",
    ["conv5_3", "Conv_1_bn", "block-2", "x.y", "x.npz", "with space", "a+b=c,d;[e](f)", "predictions@1", "~"],
)
def test_harmless_names_stay_as_they_are(rules: NameRules, name: str) -> None:
    assert stored_names([name], rules) == {name: name}


@pytest.mark.parametrize(
    ("name", "npz", "hdf5", "folder"),
    [
        ("backbone/conv1", "backbone/conv1", "backbone%2Fconv1", "backbone%2Fconv1"),
        ("in:x", "in:x", "in:x", "in%3Ax"),
        ("a%2Fb", "a%252Fb", "a%252Fb", "a%252Fb"),
        ("a//b", "a%2F/b", "a%2F%2Fb", "a%2F%2Fb"),
        ("/a/", "%2Fa%2F", "%2Fa%2F", "%2Fa%2F"),
        ("..", "%2E.", "%2E.", "%2E."),
        ("a/../b", "a/%2E./b", "a%2F..%2Fb", "a%2F..%2Fb"),
        ("a/./b/.c", "a/%2E/b/.c", "a%2F.%2Fb%2F.c", "a%2F.%2Fb%2F.c"),
        ("x.npy", "x%2Enpy", "x.npy", "x.npy"),
        ("", "%", "%", "%"),
        ("paths", "%70aths", "%70aths", "%70aths"),
        ("status", "%73tatus", "%73tatus", "%73tatus"),
        ("error", "%65rror", "%65rror", "%65rror"),
        ("provenance", "%70rovenance", "%70rovenance", "%70rovenance"),
        ("PATHS", "PATHS", "PATHS", "%50ATHS"),
        ("paths/x", "paths/x", "paths%2Fx", "paths%2Fx"),
        ("aux", "aux", "aux", "%61ux"),
        ("COM1.x", "COM1.x", "COM1.x", "%43OM1.x"),
        ("auxiliary", "auxiliary", "auxiliary", "auxiliary"),
        ("a\0\n\x7f", "a%00%0A%7F", "a%00%0A%7F", "a%00%0A%7F"),
        ("é", "é", "é", "%C3%A9"),
        ("\ud800", "%ED%A0%80", "%ED%A0%80", "%ED%A0%80"),
        ("a\\b", "a%5Cb", "a\\b", "a%5Cb"),
    ],
)
def test_names_that_a_format_cannot_hold_are_escaped(name: str, npz: str, hdf5: str, folder: str) -> None:
    stored = [stored_names([name], rules)[name] for rules in (NPZ_NAMES, HDF5_NAMES, FOLDER_NAMES)]
    assert stored == [npz, hdf5, folder]


@ALL_RULES
@given(names=st.lists(texts, unique=True, max_size=8))
def test_stored_names_are_different_safe_and_can_be_read_back(rules: NameRules, names: list[str]) -> None:
    stored = stored_names(names, rules)
    assert list(stored) == names
    assert len(set(stored.values())) == len(names)
    for name, kept in stored.items():
        assert (unquote(kept, errors="surrogatepass") if kept != "%" else "") == name
        assert kept not in ("", ".", "..", "paths", "status", "error", "provenance")
        kept.encode()
        if rules is NPZ_NAMES:
            assert not kept.endswith(".npy")
            assert PurePosixPath(kept).as_posix() == kept
            assert not {"..", "."} & set(kept.split("/"))
        else:
            assert "/" not in kept
    if rules.folds_case:
        assert len({kept.lower() for kept in stored.values()}) == len(names)
        assert all(kept.isascii() for kept in stored.values())


@given(names=st.lists(st.text("aAbB%.", max_size=3), unique=True))
def test_names_that_differ_in_case_are_kept_apart_in_folders(names: list[str]) -> None:
    assert len({kept.lower() for kept in stored_names(names, FOLDER_NAMES).values()}) == len(names)


def test_only_the_capitals_of_twins_are_escaped() -> None:
    stored = stored_names(["Conv", "conv", "CONV", "Other"], FOLDER_NAMES)
    assert stored == {"Conv": "%43onv", "conv": "conv", "CONV": "%43%4F%4E%56", "Other": "Other"}


@ALL_RULES
def test_names_that_are_too_long_keep_their_beginning_and_stay_apart(rules: NameRules) -> None:
    names = ["n" * 9000 + end for end in ("", "a", "b", "é")] + ["é" * 9000, "\ud800" * 9000]
    stored = list(stored_names(names, rules).values())
    assert len(set(stored)) == len(names)
    assert all(rules.longest - 5 <= len(kept.encode()) <= rules.longest for kept in stored)
    assert all(kept.startswith("nnnn") and kept[-34:-32] == "%~" for kept in stored[:4])
    fits = "n" * rules.longest
    assert stored_names([fits], rules)[fits] == fits


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        *(("float32", "<f4"), ("float16", "<f2"), ("bfloat16", "<f4"), ("float8_e4m3fn", "<f4")),
        *(("bool", "|b1"), ("int64", "<i8"), ("uint8", "|u1"), ("float64", "<f8"), ("complex64", "<c8")),
    ],
)
def test_numbers_are_stored_in_little_endian_and_brain_floats_as_float32(name: str, stored: str) -> None:
    assert stored_dtype(name, "x").str == stored


def test_texts_and_objects_are_no_values() -> None:
    for name in ("string", "object", "<U3", "V2", "nonsense"):
        with pytest.raises(UnrecordableLayerError, match=f"'lookup' cannot be stored.*Received: {name}"):
            stored_dtype(name, "lookup")


def test_every_row_has_an_outcome() -> None:
    columns = {name: list(column) for name, column in text_columns(3, {1: "broken"}).items()}
    assert columns == {"status": ["ok", "failed", "ok"], "error": ["", "broken", ""]}


def test_outcomes_of_many_rows_are_those_of_each_whatever_order_they_failed_in() -> None:
    rows = 2 * AT_ONCE + 3
    failed = {row: f"reason {row}" for row in (rows - 1, 5, AT_ONCE, AT_ONCE - 1)}
    columns = text_columns(rows, failed)
    assert list(columns["status"]) == ["failed" if row in failed else "ok" for row in range(rows)]
    assert list(columns["error"]) == [failed.get(row, "") for row in range(rows)]
    assert columns["error"][AT_ONCE] == failed[AT_ONCE]


def test_texts_have_the_checksum_of_each_after_the_other_with_its_end() -> None:
    texts = [f"photos/{row}-\udcff-é.jpg" for row in range(AT_ONCE + 2)] + ["", "{}"]
    found = text_checksums({"paths": texts, "fields": texts, "none": []})

    def crc(ended: str) -> int:
        return zlib.crc32(ended.encode("utf-8", "surrogatepass"))

    assert found["paths"] == crc("".join(text + "\0" for text in texts))
    assert found["fields"] == crc("".join(text + "\0" for text in [*texts[:-1], ""]))
    assert found["none"] == 0


def test_the_record_is_ascii_and_comes_back() -> None:
    arrays = {"\udcff/é": "%", "a": "a"}
    text = dump_record(arrays, PROVENANCE, {"rows": [0]})
    assert text.isascii()
    assert json.loads(text)["layerprobe_format"] == 1
    back, provenance = load_record(text, "out")
    assert back == arrays
    assert list(back) == list(arrays)
    assert provenance["model"] == PROVENANCE.model
    assert provenance["checksums"] == {"rows": [0]}
    assert set(provenance) == {*PROVENANCE.__slots__, "checksums", "crc32"}
    assert is_intact(text) is True
    assert is_intact(text.replace("vgg", "vgh")) is False
    assert is_intact(json.dumps({})) is None


def test_the_record_takes_mappings_numpy_numbers_and_paths() -> None:
    odd = MappingProxyType({"rows": np.int64(3), "ratio": np.float32(0.5), "path": PurePosixPath("/x")})
    _, provenance = load_record(dump_record({}, replace(PROVENANCE, inputs=odd), {}), "out")
    assert provenance["inputs"] == {"rows": 3, "ratio": 0.5, "path": "/x"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"layerprobe_format": 1}',
        '{"layerprobe_format": 1, "arrays": [1]}',
        b"\xff\xfe",
        "[" * 100_000,
        '{"layerprobe_format": ' + "9" * 5000 + ', "arrays": {}}',
    ],
    ids=range(10),
)
def test_a_text_that_is_no_record_is_refused(text: str | bytes) -> None:
    with pytest.raises(OutputFormatError, match="'out' was not written by layerprobe, or is damaged"):
        load_record(text, "out")


def test_a_record_of_a_later_layerprobe_is_refused_as_such() -> None:
    with pytest.raises(OutputFormatError, match="has layout 2 and this layerprobe reads layout 1: upgrade"):
        load_record('{"layerprobe_format": 2, "arrays": {}}', "out")
