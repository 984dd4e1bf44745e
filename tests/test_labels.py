"""Names of classes: read from files in every form, and asked for by number or name."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerprobe.class_maps.classes import Classes
from layerprobe.errors import UsageError
from layerprobe.labels import read_labels


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat\ndog\n\n", ["cat", "dog"]),
        ("0 cat\n1 a dog\n", ["cat", "a dog"]),
        ("0 cat\n0 dog\n", ["0 cat", "0 dog"]),
        ('["cat", "dog"]', ["cat", "dog"]),
        ('{"1": "dog", "0": "cat"}', ["cat", "dog"]),
        ('{"0": ["n01", "cat"], "1": ["n02", "dog"]}', ["cat", "dog"]),
        ('{"dog": 1, "cat": 0}', ["cat", "dog"]),
        ('{"1": 0, "0": 1}', ["1", "0"]),
        ("\ufeffKätzchen\r\nHund", ["Kätzchen", "Hund"]),
    ],
)
def test_names_of_classes_are_read_in_every_form(tmp_path: Path, text: str, expected: list[str]) -> None:
    path = tmp_path / "labels"
    path.write_bytes(text.encode())
    assert read_labels(path) == expected


@pytest.mark.parametrize("text", ["", "\n\n", '{"a": "b"}', "[1.5]", '["cat", 3]', "[", "{}", "[]", "\0"])
def test_what_is_no_list_of_names_is_said_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels"
    path.write_bytes(text.encode())
    with pytest.raises(UsageError, match="labels"):
        read_labels(path)


def test_classes_are_named_by_number_or_name() -> None:
    classes = Classes(["cat", "dog", "7", "dog"])
    assert [classes.number(text, 9) for text in ("cat", "7", "4", 5, -1)] == [0, 2, 4, 5, 8]
    assert classes.name(8) == "class 8"
    for wrong, said in (("dog", "classes 1, 3"), ("cow", "closest"), ("9", "0 to 8"), ("-10", "0 to 8")):
        with pytest.raises(UsageError, match=said):
            classes.number(wrong, 9)
    with pytest.raises(UsageError, match="labels name 4 classes, but the model has 3"):
        classes.check(3)
    with pytest.raises(UsageError, match="--labels"):
        Classes([]).number("cat", 9)
