"""What every source must do, whatever it reads; a new source is one entry in `SOURCES`."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from image_samples import every_format

from layerprobe.errors import SampleError
from layerprobe.protocols import Source
from layerprobe.sources.arrays import array_source
from layerprobe.sources.listing import image_source

ROWS = 12
VALUES = np.arange(ROWS * 5, dtype=np.float32).reshape(ROWS, 5)


def files(folder: Path) -> list[str]:
    images = list(every_format().values())
    for row in range(ROWS):
        (folder / f"{row:02}.jpg").write_bytes(images[row % len(images)])
    return [str(folder / f"{row:02}.jpg") for row in range(ROWS)]


def listed(folder: Path) -> Source:
    (folder / "list").write_text("\n".join(files(folder)))
    return image_source([], lists=[folder / "list"])


def hdf5(folder: Path) -> Source:
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("x", data=VALUES, chunks=(5, 5), compression="gzip")
    return array_source([f"{folder}/x.h5::x"])


def numpy_file(folder: Path, save: Callable[..., None], name: str) -> Source:
    save(folder / name, VALUES)
    return array_source([str(folder / name)])


def tar(folder: Path) -> Source:
    with tarfile.open(folder / "x.tar", "w") as archive:
        for file in files(folder):
            archive.add(file, Path(file).name)
    return image_source([str(folder / "x.tar")])


SOURCES: dict[str, Callable[[Path], Source]] = {
    "files": lambda folder: image_source(files(folder)),
    "folder": lambda folder: image_source([str(Path(files(folder)[0]).parent)]),
    "list": listed,
    "pattern": lambda folder: image_source([str(Path(files(folder)[0]).parent / "*.jpg")]),
    "npy": lambda folder: numpy_file(folder, np.save, "x.npy"),
    "npz": lambda folder: numpy_file(folder, np.savez, "x.npz"),
    "npz compressed": lambda folder: numpy_file(folder, np.savez_compressed, "x.npz"),
    "hdf5": hdf5,
    "tar": tar,
}


@pytest.fixture(params=sorted(SOURCES))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    return SOURCES[request.param](tmp_path)


def same(one: object, other: object) -> bool:
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


def test_its_length_is_known_and_right(source: Source) -> None:
    assert len(source) == len(list(source)) == ROWS


def test_samples_are_numbered_in_order(source: Source) -> None:
    assert [sample.index for sample in source] == list(range(ROWS))


def test_it_can_be_gone_through_again(source: Source) -> None:
    first, second = list(source), list(source)
    assert [sample.key for sample in first] == [sample.key for sample in second]
    assert all(same(one.read(), other.read()) for one, other in zip(first, second, strict=True))


def test_two_walks_do_not_disturb_each_other(source: Source) -> None:
    assert all(one.index == other.index for one, other in zip(source, source, strict=True))


def test_keys_tell_the_rows_apart_and_encode_to_bytes(source: Source) -> None:
    keys = [sample.key for sample in source]
    assert len(set(keys)) == ROWS
    assert all(key.encode("utf-8", "surrogateescape") for key in keys)


def test_a_row_is_bytes_or_an_array_as_its_kind_says(source: Source) -> None:
    assert source.kind in ("images", "arrays")
    expected = bytes if source.kind == "images" else np.ndarray
    assert all(isinstance(sample.read(), expected) for sample in source)


def test_row_i_is_input_i(source: Source, tmp_path: Path) -> None:
    for sample in source:
        if source.kind == "images":
            assert sample.read() == (tmp_path / f"{sample.index:02}.jpg").read_bytes()
        else:
            np.testing.assert_array_equal(sample.read(), VALUES[sample.index])


def test_rows_can_be_read_in_any_order_by_many_threads(source: Source) -> None:
    in_order = [sample.read() for sample in source]
    shuffled = list(source)[::-1] * 20
    with ThreadPoolExecutor(8) as pool:
        for sample, row in zip(shuffled, pool.map(lambda sample: sample.read(), shuffled), strict=True):
            assert same(row, in_order[sample.index])


def test_a_row_that_changes_hands_does_not_change(source: Source) -> None:
    samples = list(source)
    first = samples[0].read()
    if isinstance(first, np.ndarray):
        before = first.copy()
        samples[1].read()
        np.testing.assert_array_equal(first, before)
        if first.flags.writeable:
            first += 1
            np.testing.assert_array_equal(samples[0].read(), before)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_what_is_gone_when_it_is_read_is_a_sample_error_or_still_there(name: str, tmp_path: Path) -> None:
    samples = list(SOURCES[name](tmp_path))
    before = samples[3].read()
    for path in tmp_path.iterdir():
        path.unlink()
    try:
        row: object = samples[3].read()
    except SampleError as error:
        row = before
        reason = str(error)
    else:
        reason = "held open or in memory"
    assert same(row, before)
    assert reason in ("no such file", "held open or in memory")
