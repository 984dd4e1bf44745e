"""Constants of the graph engine: the numbers that they were made of, however those lie in memory."""

import numpy as np
import pytest

from layerprobe.engines.graph.values import constant
from layerprobe.modelfile.arrays import unread

NUMBERS = np.arange(3 * 5 * 40 * 70, dtype="float32").reshape(3, 5, 40, 70)


@pytest.mark.parametrize(
    "array",
    [
        NUMBERS,
        NUMBERS.T,
        np.moveaxis(NUMBERS, (-1, -2), (0, 1)),
        NUMBERS[:, ::-1, ::2, ::-3],
        NUMBERS.reshape(-1)[::2],
        NUMBERS.reshape(3, -1).T,
        np.broadcast_to(NUMBERS[0, 0, 0], (90, 70)),
        NUMBERS[:1, :1, :3, :2].T,
        NUMBERS.astype(">f4"),
        NUMBERS.astype("float64"),
        np.float32(3),
        np.zeros((0, 4)),
    ],
    ids=lambda array: str(np.shape(array)),
)
def test_a_constant_holds_the_numbers_that_it_was_made_of(array: np.ndarray) -> None:
    made = constant(array).get_data()
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made.reshape(np.shape(array)), np.asarray(array))


def test_a_large_array_is_not_copied_and_lives_as_long_as_its_constant() -> None:
    array = np.full((64, 64), 7, "float32")
    node = constant(array)
    assert np.shares_memory(node.get_data(), array)
    del array
    assert (node.get_data() == 7).all()


def test_weights_that_were_not_read_keep_their_shape() -> None:
    node = constant(np.moveaxis(unread((3, 3, 512, 1 << 20)), (-1, -2), (0, 1)))
    assert list(node.output(0).get_shape()) == [1 << 20, 512, 3, 3]
