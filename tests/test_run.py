"""The loop of a run with a made-up engine: rows, batches, failures, casts."""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from layerprobe.errors import AllInputsFailedError, SampleError, UsageError
from layerprobe.options import ExtractOptions
from layerprobe.records import LayerInfo, Sample, TensorSpec
from layerprobe.run import batches
from layerprobe.run.clock import Clock
from layerprobe.run.feed import ArrayFeed
from layerprobe.run.feeds import Feeds
from layerprobe.run.fitting import FittingEngine
from layerprobe.run.loop import Run


class Rows:
    """A source of rows (2,), each its index twice; some are broken."""

    kind = "arrays"
    row_shape = (2,)

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        self._count, self._broken = count, broken

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        return (
            Sample(index, f"row {index}", lambda index=index: self._read(index))
            for index in range(self._count)
        )

    def _read(self, index: int) -> np.ndarray:
        if index in self._broken:
            raise SampleError(f"row {index} is broken")
        return np.full(2, index)


class RowsInParts(Rows):
    """The same rows, many at a time, unless one of them is broken."""

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        super().__init__(count, broken)
        self.parts: list[tuple[int, int]] = []

    def values(self, start: int, stop: int) -> Iterator[np.ndarray]:
        self.parts.append((start, stop))
        yield np.array([self._read(index) for index in range(start, stop)])


class Engine:
    """Gives the input times 1,000, a whole number, and a map (2, 2, 1)."""

    outputs = (
        TensorSpec("big", (2,), "float32", layer="big"),
        TensorSpec("count", (), "int32", layer="count"),
        TensorSpec("map", (2, 2, 1), "float32", layer="map"),
    )

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.finish = None
        self.overflowed: dict[str, int] = {}
        self.seen: list[int] = []

    def run(self, inputs: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
        (x,) = inputs
        self.seen.append(len(x))
        maps = np.repeat(x[:, :1], 4, axis=1).reshape(-1, 2, 2, 1) + np.arange(4).reshape(2, 2, 1)
        return {"big": x * 1000, "count": x[:, 0].astype("int32"), "map": maps}

    def start(self, inputs: tuple[np.ndarray, ...]):
        results = self.run(inputs)
        return lambda: results

    def describe(self) -> dict[str, object]:
        return {"name": "fake", "device": "none", "precision": "float32"}


class Memory:
    """A writer that keeps everything."""

    def __init__(self) -> None:
        self.blocks: list[tuple[int, dict[str, np.ndarray]]] = []
        self.failures: dict[int, str] | None = None

    def write(self, start: int, activations: dict[str, np.ndarray]) -> None:
        self.blocks.append((start, dict(activations)))

    def commit(self, failures: dict[int, str], provenance: object, fields: object) -> None:
        self.failures, self.provenance = failures, provenance

    def whole(self, layer: str) -> np.ndarray:
        assert [start for start, _ in self.blocks] == list(
            np.cumsum([0, *[len(block[layer]) for _, block in self.blocks]])[:-1]
        )
        return np.concatenate([block[layer] for _, block in self.blocks])


PROBED = SimpleNamespace(
    note=None,
    info=SimpleNamespace(layers=[LayerInfo("big", "Dense", 0, ())], class_name="Sequential"),
    provenance=lambda: {"path": "m.h5"},
    path="m.h5",
    signature=lambda: {"model": "00"},
)


def run(
    rows: Rows, batch_size: int = 4, pool: str = "none", dtype: str = "float32", limit: int | None = None
):
    clock, engine, writer = Clock(), Engine(batch_size), Memory()
    feeds = Feeds([ArrayFeed(TensorSpec("x", (None,), "float32"), rows, clock)], limit)
    how = ExtractOptions(pool=pool, dtype=dtype, workers=2)
    running = Run(PROBED, feeds, FittingEngine(engine, None), how, clock)
    running.fill(writer, None)
    return running, engine, writer


def test_rows_come_in_order_whatever_the_batch_size() -> None:
    for batch_size in (1, 3, 10, 64):
        _, _, writer = run(Rows(10), batch_size)
        np.testing.assert_array_equal(writer.whole("count"), np.arange(10))
        np.testing.assert_array_equal(writer.whole("big")[:, 1], np.arange(10) * 1000)


@pytest.mark.parametrize("rows", [Rows, RowsInParts])
def test_failed_rows_keep_their_places_and_hold_nan_or_zero(rows: type[Rows]) -> None:
    running, engine, writer = run(rows(10, broken=(0, 4, 5, 6, 7, 9)))
    running.commit(writer)
    good = np.array([1, 2, 3, 8])
    assert np.isnan(writer.whole("big")[[0, 4, 5, 6, 7, 9]]).all()
    np.testing.assert_array_equal(writer.whole("big")[good, 0], good * 1000)
    np.testing.assert_array_equal(writer.whole("count"), [0, 1, 2, 3, 0, 0, 0, 0, 8, 0])
    assert writer.failures == {index: f"row {index} is broken" for index in (0, 4, 5, 6, 7, 9)}
    assert engine.seen == [3, 1], "a batch of which nothing is left is not computed"
    report = running.report("out")
    assert (report.rows, report.failed, report.failures[1].key) == (10, 6, "row 4")
    assert report.failures[1].stage == "read"


def test_rows_are_read_many_at_a_time_within_a_batch_and_up_to_a_megabyte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = RowsInParts(13)
    _, _, writer = run(rows, batch_size=5)
    np.testing.assert_array_equal(writer.whole("count"), np.arange(13))
    assert sorted(rows.parts) == [(0, 3), (3, 5), (5, 8), (8, 10), (10, 13)]
    monkeypatch.setattr(batches, "PART_BYTES", 16)  # of two rows
    rows = RowsInParts(13)
    _, _, writer = run(rows, batch_size=5)
    np.testing.assert_array_equal(writer.whole("count"), np.arange(13))
    assert max(stop - start for start, stop in rows.parts) == 2


def test_nothing_is_committed_when_every_row_failed() -> None:
    running, _, writer = run(Rows(2, broken=(0, 1)))
    with pytest.raises(AllInputsFailedError, match="'row 0': row 0 is broken; 1 more failed too"):
        running.commit(writer)
    assert writer.failures is None


def test_reductions_come_before_the_cast() -> None:
    _, _, writer = run(Rows(3), pool="gap", dtype="float16")
    pooled = writer.whole("map")
    assert pooled.dtype == np.float16
    np.testing.assert_array_equal(pooled[:, 0], np.arange(3) + 1.5)


def test_values_too_large_for_float16_are_told() -> None:
    running, _, writer = run(Rows(100), dtype="float16")
    running.commit(writer)
    told = [note for note in running.report("out").notes if "float16" in note]
    assert told == ["big: 68 values are too large for float16 and became infinite: use --dtype float32"]
    assert writer.whole("count").dtype == np.int32


def test_a_limit_takes_the_first_rows() -> None:
    _, _, writer = run(Rows(10), limit=3)
    assert len(writer.whole("count")) == 3


def test_provenance_names_layers_classes_and_options() -> None:
    running, _, writer = run(Rows(2))
    running.commit(writer)
    record = writer.provenance
    assert record.layers[0] == {
        "name": "big",
        "layer": "big",
        "class_name": "Dense",
        "shape": [2],
        "channel_axis": -1,
        "dtype": "float32",
    }
    assert record.engine["batch_size"] == 4
    assert record.inputs["rows"] == 2
    assert set(record.versions) == {"layerprobe", "python", "numpy", "pillow", "h5py"}


def test_inputs_of_unequal_length_are_refused() -> None:
    spec = TensorSpec("x", (2,), "float32")
    with pytest.raises(UsageError, match="need equally many rows. Received: x: 3, y: 4"):
        Feeds(
            [ArrayFeed(spec, Rows(3), Clock()), ArrayFeed(TensorSpec("y", (2,), "float32"), Rows(4), Clock())]
        )


def test_arrays_of_another_shape_are_refused() -> None:
    with pytest.raises(UsageError, match=r"takes arrays of shape \(N, 5\).*Received: \(N, 2\)"):
        ArrayFeed(TensorSpec("x", (5,), "float32"), Rows(1), Clock())
