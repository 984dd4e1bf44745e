"""Decisions of a run, made before anything is computed."""

import pytest

from layerprobe.errors import OutputError, UsageError
from layerprobe.options import ExtractOptions
from layerprobe.records import LayerInfo, TensorSpec
from layerprobe.run.plan import (
    check_not_an_input,
    check_options,
    choose_batch_size,
    choose_output,
    choose_preprocessing,
    takes_images,
)

IMAGE = TensorSpec("image", (64, 48, 3), "float32")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.npz", ("a.npz", "npz")),
        ("a.H5", ("a.H5", "hdf5")),
        ("a.hdf5", ("a.hdf5", "hdf5")),
        ("folder", ("folder", "npy")),
        ("run.1/", ("run.1", "npy")),
    ],
)
def test_the_suffix_decides_the_format(name: str, expected: tuple[str, str]) -> None:
    assert choose_output(name, []) == expected


def test_an_unknown_suffix_says_which_there_are() -> None:
    with pytest.raises(
        UsageError,
        match=r"'a.npy': '.npy' is not a format.*\.h5, \.hdf5, .*\.tar.*, or a name without",
    ):
        choose_output("a.npy", [])


def test_without_a_name_the_output_follows_a_single_image(tmp_path) -> None:
    image = tmp_path / "cat.photo.jpg"
    image.write_bytes(b"x")
    assert choose_output(None, [str(image)]) == ("cat.photo.npz", "npz")
    assert choose_output(None, [str(image)] * 2) == ("activations.npz", "npz")
    assert choose_output(None, ["array.npy[0]"]) == ("activations.npz", "npz")


def test_an_output_that_is_an_input_is_refused_under_any_of_its_names(tmp_path) -> None:
    model = tmp_path / "model.h5"
    model.write_bytes(b"x")
    link = tmp_path / "link.h5"
    link.symlink_to(model)
    with pytest.raises(OutputError, match="is one of the inputs"):
        check_not_an_input([str(tmp_path / "new.h5"), str(link)], iter(["gone.png", str(model)]))
    check_not_an_input([str(tmp_path / "new.h5")], [str(model)])


def test_images_have_three_axes_and_channels_at_one_end() -> None:
    shapes = [(8, 8, 3), (8, 8, 1), (3, 8, 8), (None, None, 3), (8, 8, 5), (8, 8), (4,)]
    assert [takes_images(TensorSpec("x", shape, "float32")) for shape in shapes] == [True] * 4 + [False] * 3


def test_the_models_size_is_taken_and_another_one_refused() -> None:
    assert choose_preprocessing(ExtractOptions(), IMAGE, []).size == (64, 48)
    assert choose_preprocessing(ExtractOptions(size="64x48"), IMAGE, []).size == (64, 48)
    with pytest.raises(UsageError, match=r"takes images of 64x48 .*Received: 32x32"):
        choose_preprocessing(ExtractOptions(size="32"), IMAGE, [])


def test_a_free_size_must_be_given() -> None:
    free = TensorSpec("image", (None, None, 3), "float32")
    assert choose_preprocessing(ExtractOptions(size=(30, 20)), free, []).size == (30, 20)
    with pytest.raises(UsageError, match="takes images of any size"):
        choose_preprocessing(ExtractOptions(), free, [])
    with pytest.raises(UsageError, match="takes images of any size"):
        choose_preprocessing(ExtractOptions(), TensorSpec("image", (None, 20, 3), "float32"), [])


def test_channels_first_inputs_are_understood() -> None:
    how = choose_preprocessing(ExtractOptions(), TensorSpec("image", (1, 30, 20), "float32"), [])
    assert (how.size, how.channels) == ((30, 20), 1)


def test_auto_says_its_evidence_and_a_named_preset_needs_none() -> None:
    layer = LayerInfo("rescaling", "Rescaling", 1, ())
    assert "rescaling" in choose_preprocessing(ExtractOptions(), IMAGE, [layer]).reason
    how = choose_preprocessing(ExtractOptions(preprocess="caffe"), IMAGE, [layer])
    assert (how.preset, how.channel_order, how.reason) == ("caffe", "bgr", "asked for")


def test_the_batch_size_is_what_was_asked_for_or_what_fits() -> None:
    assert choose_batch_size(ExtractOptions(), 1000, None, 32) == 32
    assert choose_batch_size(ExtractOptions(), 5, None, 32) == 3
    assert choose_batch_size(ExtractOptions(), 1, None, 32) == 1
    assert choose_batch_size(ExtractOptions(), 1000, None, 32, row_bytes=50 * 2**20) == 2
    assert choose_batch_size(ExtractOptions(), 1000, None, 32, row_bytes=2**40) == 1
    assert choose_batch_size(ExtractOptions(batch_size=64), 5, None, 32) == 64
    assert choose_batch_size(ExtractOptions(), 1000, 7, 32) == 7
    with pytest.raises(UsageError, match="built for batches of 7"):
        choose_batch_size(ExtractOptions(batch_size=8), 1000, 7, 32)


@pytest.mark.parametrize(
    "options",
    [{"dtype": "int8"}, {"pool": "median"}, {"batch_size": 0}, {"limit": -1}, {"workers": 0}, {"seed": 3}],
)
def test_options_that_cannot_be_meant_are_refused(options) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        check_options(ExtractOptions(**options))
