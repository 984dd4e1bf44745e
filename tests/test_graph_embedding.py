"""Indices that a table does not have, and memory that is not there: a sentence, never a number."""

import subprocess
import sys

import numpy as np
import pytest

import layerprobe
from layerprobe.errors import UsageError
from layerprobe.probe import Probe

pytestmark = pytest.mark.slow

keras = pytest.importorskip("keras")
L = keras.layers


@pytest.fixture
def words(tmp_path):
    """A table of 9 vectors, and what is computed with them."""
    x = keras.Input((4,), name="x")
    y = L.Embedding(9, 3, name="words")(x)
    model = keras.Model(x, L.Dense(2, name="last")(L.Flatten()(y)))
    model.save(tmp_path / "m.keras")
    return tmp_path / "m.keras", model


@pytest.mark.parametrize(("index", "named"), [(9, "9"), (-10, "-10"), (9.5, "9.5"), (2**40, "1099511627776")])
def test_an_index_outside_its_table_is_refused_by_row_and_layer(index, named, words):
    x = np.array([[0, 1, 2, 3], [4, 5, 6, index], [7, 8, 0, 0]], "float32")
    with pytest.raises(UsageError, match=rf"'words' cannot look up index {named} \(row 1 of .* 9 entries"):
        Probe(words[0], ["last"], engine="graph")(x)


def test_indices_from_the_table_s_end_and_fractions_are_what_keras_takes_them_for(words):
    path, model = words
    x = np.array([[-1, -9, 8, 0], [-0.5, 0.9, 8.9, 3]], "float32")
    found = Probe(path, ["last"], engine="graph")(x)["last"]
    np.testing.assert_allclose(found, np.asarray(model(x)), atol=1e-6)


def test_indices_that_the_model_computes_are_watched_too(tmp_path):
    x = keras.Input((2, 3), name="x")
    y = L.TimeDistributed(L.Embedding(9, 2, name="table"), name="each")(L.Reshape((3, 2))(x * 2))
    model = keras.Model(x, y)
    model.save(tmp_path / "m.keras")
    probe = Probe(tmp_path / "m.keras", ["each"], engine="graph")
    x = np.arange(4).reshape(4, 1, 1) + np.zeros((4, 2, 3))
    np.testing.assert_allclose(probe(x)["each"], np.asarray(model(x)), atol=1e-6)
    x[2, 1, 0] = 5
    with pytest.raises(
        UsageError, match=r"layer 'each/table' cannot look up index 10 \(row 2 of the batch\)"
    ):
        probe(x)


@pytest.mark.parametrize("engine", ["graph", "keras"])
def test_only_rows_with_such_an_index_fail(engine, words, tmp_path):
    path, model = words
    x = np.random.default_rng(0).integers(0, 9, (40, 4))
    np.save(tmp_path / "x.npy", x)
    wanted = np.asarray(model(x))
    x[[7, 33, 38], [2, 0, 3]] = 12
    np.save(tmp_path / "x.npy", x)
    output = tmp_path / "y.npz"
    report = layerprobe.extract(
        str(path), [str(tmp_path / "x.npy")], ["last"], str(output), engine=engine, batch_size=16
    )
    assert [(failure.index, failure.stage) for failure in report.failures] == [
        (7, "compute"),
        (33, "compute"),
        (38, "compute"),
    ]
    good = np.setdiff1d(np.arange(40), [7, 33, 38])
    with layerprobe.open(str(output)) as found:
        assert [row for row, status in enumerate(found.status) if status == "failed"] == [7, 33, 38]
        assert "12" in found.error[7]
        assert "row" not in found.error[7]
        np.testing.assert_allclose(found["last"][good], wanted[good], atol=1e-6)
        assert np.isnan(found["last"][[7, 33, 38]]).all()


def test_a_batch_for_which_there_is_no_memory_asks_for_a_smaller_one(tmp_path):
    x = keras.Input((1,), name="x")
    keras.Model(x, L.RepeatVector(1 << 20, name="long")(x)).save(tmp_path / "m.keras")
    code = (
        "import resource, numpy as np\n"
        "from layerprobe import Probe\n"
        f"probe = Probe({str(tmp_path / 'm.keras')!r}, ['long'], engine='graph')\n"
        "probe(np.ones((1, 1)))\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "try:\n    probe(np.ones((1024, 1)))\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ResourceError not enough memory for")
