"""Everything a user can do wrong: one clear sentence, the documented exit code, nothing left behind."""

import os
import resource
import shutil
from pathlib import Path

import click
import h5py
import numpy as np
import pytest
from PIL import Image

from layerprobe.cli import COMMANDS, cli

pytestmark = pytest.mark.usefixtures("beside_samples")

MODEL = "sample_models/vgg_shapes.h5"
IMAGE = "sample_models/images/circle_01.png"


def assert_refused(ended, code, *words, left=()):
    """One line that begins with the program's name and says the words; no file but those in `left`."""
    lines = ended.err.splitlines()
    assert ended.code == code, ended.err
    assert [line for line in lines if line.startswith("layerprobe: ")] == lines, ended.err
    assert len(lines) == 1, ended.err
    for word in words:
        assert word in lines[0], lines[0]
    assert "Traceback" not in ended.err
    assert sorted(os.listdir()) == sorted(["sample_models", *left])
    assert ended.out == ""


# What is wrong with the model file is found before any framework is imported.

BAD_MODELS = {
    "empty.keras": (b"", "empty"),
    "empty.h5": (b"", "empty"),
    "text.h5": (b"just some words\n" * 9, "text.h5"),
    "page.keras": (b"<!DOCTYPE html>\n<html><body>Not found</body></html>", "HTML"),
    "pointer.h5": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n",
        "Git LFS pointer",
    ),
}


@pytest.mark.parametrize("name", BAD_MODELS)
@pytest.mark.parametrize("words", [["extract", "-l", "x", IMAGE], ["layers"]], ids=["extract", "layers"])
def test_files_that_are_no_models(command, name, words):
    content, reason = BAD_MODELS[name]
    Path(name).write_bytes(content)
    assert_refused(command(words[0], name, *words[1:]), 65, reason, left=[name])


def test_a_command_with_a_typo_is_told_its_name(command):
    ended = command("extrct", MODEL)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines()[-1] == "layerprobe: there is no command 'extrct': did you mean extract?"


def test_a_model_that_does_not_exist(command):
    assert_refused(command("extract", "none.h5", "-l", "x", IMAGE), 66, "none.h5", "no such file")


def test_a_folder_that_is_no_model(command):
    os.mkdir("folder.h5")
    assert_refused(command("layers", "folder.h5"), 65, "folder.h5", left=["folder.h5"])


def test_a_model_cut_in_half(command, samples):
    for name in ("vgg_shapes.h5", "vgg_shapes.keras"):
        data = (samples / name).read_bytes()
        Path(name).write_bytes(data[: len(data) // 2])
        assert_refused(command("layers", name), 65, "truncated", left=[name])
        os.remove(name)


def test_a_file_that_holds_weights_only(command):
    with h5py.File("w.h5", "w") as file:
        file["conv1/kernel:0"] = np.zeros((3, 3))
        file.attrs["layer_names"] = [b"conv1"]
    assert_refused(command("layers", "w.h5"), 65, "weights", "architecture", left=["w.h5"])


def test_a_fifo_for_a_model_does_not_hang(command):
    os.mkfifo("model.h5")
    assert_refused(command("layers", "model.h5"), 65, "not a regular file", left=["model.h5"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_model_that_may_not_be_read(command, samples):
    shutil.copy(samples / "vgg_shapes.h5", "m.h5")
    os.chmod("m.h5", 0)
    assert_refused(command("layers", "m.h5"), 77, "m.h5", left=["m.h5"])


@pytest.mark.parametrize("name", COMMANDS)
def test_no_argument_is_refused_as_usage_because_it_may_not_be_read(name):
    found = cli.get_command(click.Context(cli), name)
    for parameter in found.params:
        assert not getattr(parameter.type, "readable", False), "what opens it says so, with exit code 77"


def test_an_unknown_layer_gets_the_closest_names(command):
    ended = command("extract", MODEL, "-l", "conv5_4", IMAGE)
    assert_refused(ended, 2, "'conv5_4'", "conv5_3", "layerprobe layers")


def test_no_layer_says_how_to_list_them(command):
    assert_refused(command("extract", MODEL, IMAGE), 2, "--layer", f"layerprobe layers {MODEL}")


def test_unknown_options_and_commands_show_the_usage(command):
    for words in (["extract", MODEL, "--bogus"], ["bogus"], ["extract", MODEL, "--batch-size", "0"]):
        ended = command(*words)
        assert ended.code == 2
        assert ended.err.startswith("Usage: ")
        assert ended.err.splitlines()[-1].startswith("layerprobe: ")


def test_control_characters_do_not_reach_the_terminal(command):
    ended = command("extract", MODEL, "-l", "\x1b[31mred", IMAGE)
    assert ended.code == 2
    assert "\x1b" not in ended.err
    assert r"\x1b[31mred" in ended.err


# What is wrong with inputs and outputs is found before the model is built.


def test_no_inputs_and_no_images(command):
    assert_refused(command("extract", MODEL, "-l", "conv5_3"), 2, "image")
    assert_refused(command("extract", MODEL, "-l", "conv5_3", "none.jpg"), 66, "none.jpg", "no such file")
    os.mkdir("empty")
    assert_refused(command("extract", MODEL, "-l", "conv5_3", "empty"), 66, "no images", left=["empty"])
    assert_refused(command("extract", MODEL, "-l", "conv5_3", "-"), 66, "no images", left=["empty"])
    assert_refused(command("extract", MODEL, "-l", "conv5_3", "none_*.jpg"), 66, "none_*.jpg", left=["empty"])


def test_an_output_that_exists_is_kept(command):
    Path("out.npz").write_bytes(b"precious")
    ended = command("extract", MODEL, "-l", "conv5_3", IMAGE, "-o", "out.npz")
    assert_refused(ended, 73, "out.npz", "--overwrite", left=["out.npz"])
    assert Path("out.npz").read_bytes() == b"precious"


def test_an_output_in_a_folder_that_does_not_exist(command):
    assert_refused(command("extract", MODEL, "-l", "conv5_3", IMAGE, "-o", "no/out.npz"), 73, "no")


def test_an_output_that_is_a_folder(command):
    os.mkdir("out.npz")
    ended = command("extract", MODEL, "-l", "conv5_3", IMAGE, "-o", "out.npz", "--overwrite")
    assert_refused(ended, 73, "out.npz", left=["out.npz"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_in_a_folder_that_may_not_be_written(command):
    os.mkdir("kept", 0o500)
    assert_refused(command("extract", MODEL, "-l", "conv5_3", IMAGE, "-o", "kept/out.npz"), 73, left=["kept"])


def test_an_output_that_is_the_model_or_an_input(command, samples):
    shutil.copy(samples / "vgg_shapes.h5", "m.h5")
    before = Path("m.h5").read_bytes()
    ended = command("extract", "m.h5", "-l", "conv5_3", IMAGE, "-o", "m.h5", "--overwrite")
    assert_refused(ended, 73, "m.h5", "one of the inputs", left=["m.h5"])
    np.savez("a.npz", x=np.zeros((1, 112, 112, 3)))
    ended = command("extract", "m.h5", "-l", "conv5_3", "a.npz", "-o", "a.npz", "--overwrite")
    assert_refused(ended, 73, "a.npz", "one of the inputs", left=["m.h5", "a.npz"])
    assert Path("m.h5").read_bytes() == before


def test_images_and_arrays_do_not_mix(command):
    np.save("a.npy", np.zeros((1, 4)))
    assert_refused(command("extract", MODEL, "-l", "conv5_3", IMAGE, "a.npy"), 2, "a.npy", left=["a.npy"])


def test_pickled_arrays_are_refused(command):
    np.save("a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    assert_refused(command("extract", MODEL, "-l", "conv5_3", "a.npy"), 2, "a.npy", left=["a.npy"])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["-o", "out.png"], ".png"),
        (["--size", "big"], "big"),
        (["--preprocess", "imagenet"], "imagenet"),
        (["--background", "nocolour"], "nocolour"),
        (["--seed", "3"], "seed"),
        (["--null"], "--null"),
    ],
)
@pytest.mark.slow
def test_options_that_cannot_be_meant(command, words, named):
    assert_refused(command("extract", MODEL, "-l", "conv5_3", IMAGE, *words), 2, named)


# These need the model.


@pytest.mark.slow
def test_an_array_of_the_wrong_shape(command):
    np.save("a.npy", np.zeros((5, 7, 7, 3)))
    ended = command("extract", MODEL, "-l", "conv5_3", "a.npy")
    assert_refused(ended, 2, "(N, 112, 112, 3)", "(N, 7, 7, 3)", left=["a.npy"])


@pytest.mark.slow
def test_inputs_of_a_model_with_two_must_be_named_right(command):
    model, array = "sample_models/two_inputs.keras", "sample_models/two_inputs_query.npy"
    assert_refused(command("extract", model, "-l", "output", array), 2, "--input NAME=FILE", "image", "query")
    ended = command("extract", model, "-l", "output", f"--input=bogus={array}")
    assert_refused(ended, 2, "'bogus'", "image, query")
    ended = command("extract", model, "-l", "output", f"--input=query={array}")
    assert_refused(ended, 2, "'image'", "missing")
    assert_refused(command("extract", model, "-l", "output", "--input=query"), 2, "NAME=FILE")


BROKEN = {
    "zero.jpg": (b"", "empty"),
    "text.jpg": (b"hello", "text.jpg"),
    "page.png": (b"<html></html>", "HTML"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_single_broken_image_leaves_no_output(command, name):
    content, reason = BROKEN[name]
    Path(name).write_bytes(content)
    assert_refused(command("extract", MODEL, "-l", "conv5_3", name), 70, name, reason, left=[name])


@pytest.mark.slow
def test_truncated_images_and_fifos(command, samples):
    data = (samples / "images" / "circle_02.jpg").read_bytes()
    Path("cut.jpg").write_bytes(data[: len(data) // 2])
    assert_refused(command("extract", MODEL, "-l", "conv5_3", "cut.jpg"), 70, "truncated", left=["cut.jpg"])
    os.remove("cut.jpg")
    os.mkfifo("pipe.jpg")
    assert_refused(
        command("extract", MODEL, "-l", "conv5_3", "pipe.jpg"), 70, "regular file", left=["pipe.jpg"]
    )


@pytest.mark.slow
def test_a_decompression_bomb_is_refused_within_a_limit_that_can_be_set(command):
    Image.new("1", (20_000, 20_000)).save("bomb.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert_refused(command("extract", MODEL, "-l", "conv5_3", "bomb.png"), 70, "pixels", left=["bomb.png"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
    ended = command("extract", MODEL, "-l", "conv5_3", IMAGE, "--max-pixels", "100")
    assert_refused(ended, 70, "pixels", left=["bomb.png"])


@pytest.mark.slow
def test_many_broken_images_are_told_in_short_and_kept_in_full(command):
    os.mkdir("photos")
    for number in range(30):
        Path(f"photos/{number:02}.jpg").write_bytes(b"x" * number)
    shutil.copy(IMAGE, "photos/good.png")
    ended = command("extract", MODEL, "-l", "conv5_3", "photos")
    assert ended.code == 3
    assert len(ended.err.splitlines()) < 16
    found = np.load("activations.npz")
    assert (found["status"] == "failed").sum() == 30
    assert all(found["error"][found["status"] == "failed"])


# Streams that are closed, full, or go away: a process of its own, without a framework.


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The `keras.initializers.serialize")
def test_what_no_machine_has_the_memory_for_is_refused_before_it_runs(command):
    import keras

    x = keras.Input((4, 4, 3))
    up = keras.layers.UpSampling2D(20_000, name="up")(x)
    keras.Model(x, keras.layers.GlobalAveragePooling2D(name="mean")(up)).save("up.keras")
    ended = command("extract", "up.keras", "-l", "mean", IMAGE)
    assert_refused(ended, 71, "71.5 GiB per image", "--max-memory", left=["up.keras"])


def test_a_size_of_memory_is_read_with_its_unit(command):
    for text, refused in (("1", True), ("1K", True), ("1GiB", False), ("2g", False)):
        ended = command("layers", MODEL, "--max-memory", text, "--json")
        assert ('"problem": null' not in ended.out) == refused, text
    assert command("layers", MODEL, "--max-memory", "much").code == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"size": [1]}, {"batch_size": "a"}, {"preprocess": 3}, {"background": 7}, {"bogus": 1}, {"layers": [3]}],
)
def test_mistakes_in_python_are_told_as_well(options):
    import layerprobe

    with pytest.raises(layerprobe.LayerprobeError, match=next(iter(options))):
        layerprobe.extract(MODEL, [IMAGE], **({"layers": ["conv5_3"]} | options))


@pytest.mark.slow
def test_what_a_probe_cannot_take_is_told():
    import layerprobe

    probe = layerprobe.Probe(MODEL, ["conv5_3"])
    for batch in (np.zeros((1, 112, 112, 3), complex), "photo.png", np.zeros((0, 112, 112, 3))):
        with pytest.raises(layerprobe.LayerprobeError, match="batch"):
            probe(batch)
    with pytest.raises(layerprobe.LayerprobeError, match="a path or a Keras model"):
        layerprobe.Probe(3, ["conv5_3"])
