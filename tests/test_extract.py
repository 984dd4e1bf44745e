"""`layerprobe extract`, end to end: the numbers in the file are Keras's own."""

import csv
import json
import os
import shlex
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import layerprobe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("beside_samples")]

keras = pytest.importorskip("keras")


@pytest.fixture
def extract(command):
    """Run `layerprobe extract` on words as in a shell."""
    return lambda line, **options: command("extract", *shlex.split(line), **options)


VGG = "sample_models/vgg_shapes.h5"


def join(words):
    return " ".join(map(str, words))


@pytest.fixture(scope="module")
def images(samples):
    return sorted(str(path) for path in (samples / "images").iterdir() if path.suffix in (".png", ".jpg"))


def pixels(paths, size):
    loaded = [keras.utils.load_img(path, target_size=size, interpolation="bilinear") for path in paths]
    return np.stack([keras.utils.img_to_array(image) for image in loaded])


def reference(samples, names, paths):
    """What Keras's own loader, sub-model and `predict` give."""
    model = keras.saving.load_model(samples / "vgg_shapes.h5", compile=False)
    sub = keras.Model(model.inputs, [model.get_layer(name).output for name in names])
    return sub.predict(pixels(paths, model.input_shape[1:3]), verbose=0)


def assert_close(actual, expected, tolerance=1e-5):
    assert actual.shape == expected.shape
    assert np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max() < tolerance


@pytest.mark.parametrize("output", ["out.npz", "out.h5", "out"])
def test_the_numbers_are_those_of_keras_in_every_format(extract, samples, images, output):
    ended = extract(f"{VGG} -l conv5_3 -l predictions {samples / 'images'} -o {output}")
    assert ended.code == 0, ended.err
    conv, predictions = reference(samples, ["conv5_3", "predictions"], images)
    with layerprobe.open(output) as found:
        assert list(found) == ["conv5_3", "predictions"]
        assert [os.path.basename(path) for path in found.paths] == [os.path.basename(path) for path in images]
        assert_close(found["conv5_3"], conv)
        assert_close(found["predictions"], predictions)
        assert found.status == ["ok"] * len(images)
        assert found.provenance["preprocessing"]["preset"] == "raw"
        assert "rescaling" in found.provenance["preprocessing"]["reason"].lower()


def test_the_predictions_name_the_drawn_shapes(extract, samples):
    extract(f"sample_models/vgg_shapes.keras -l predictions {samples / 'images'} -o p.npz")
    classes = (samples / "images" / "labels.txt").read_text().split()
    with open(samples / "images" / "labels.csv") as file:
        labels = {row["file"]: row["label"] for row in csv.DictReader(file)}
    found = np.load("p.npz")
    for path, scores in zip(found["paths"], found["predictions"], strict=True):
        assert classes[scores.argmax()] == labels[os.path.basename(path)]


def test_one_image_names_the_output_and_numpy_and_h5py_read_it(extract, images):
    assert extract(f"{VGG} -l conv5_3 {images[0]}").code == 0
    stem = os.path.splitext(os.path.basename(images[0]))[0]
    with np.load(f"{stem}.npz", allow_pickle=False) as found:
        assert set(found.files) == {"conv5_3", "paths", "status", "error", "provenance"}
        record = json.loads(str(found["provenance"]))
    assert len(record["model"]["sha256"]) == 64
    extract(f"{VGG} -l conv5_3 {images[0]} -o x.h5")
    with h5py.File("x.h5") as file, np.load(f"{stem}.npz") as found:
        np.testing.assert_array_equal(file["conv5_3"][:], found["conv5_3"])


def test_h5_and_keras_files_give_equal_numbers(extract, images):
    for name in ("h5", "keras"):
        extract(f"sample_models/vgg_shapes.{name} -l ** {join(images[:2])} -o {name}.npz")
    old, new = np.load("h5.npz"), np.load("keras.npz")
    assert list(old.files) == list(new.files)
    for layer in old.files[:-4]:
        assert_close(old[layer], new[layer])


def test_a_broken_image_costs_only_its_row(extract, images):
    folder = "broken"
    os.mkdir(folder)
    for path in images[:4]:
        shutil.copy(path, folder)
    good = sorted(os.listdir(folder))
    data = Path(images[0]).read_bytes()
    Path(folder, "a.jpg").write_bytes(b"")
    Path(folder, "d.png").write_bytes(data[: len(data) // 2])
    os.mkfifo(f"{folder}/e.jpg")
    os.mkdir(f"{folder}/x.jpg")
    ended = extract(f"{VGG} -l conv5_3 -l predictions {folder}")
    assert ended.code == 3
    assert "4 failed" in ended.err.splitlines()[-1]
    clean = extract(f"{VGG} -l conv5_3 -o clean.npz {join([f'{folder}/{name}' for name in good])}")
    assert clean.code == 0
    found, expected = np.load("activations.npz"), np.load("clean.npz")
    names = [os.path.basename(path) for path in found["paths"]]
    assert names == sorted(os.listdir(folder))
    ok = found["status"] == "ok"
    assert [name for name, fine in zip(names, ok, strict=True) if fine] == good
    assert_close(found["conv5_3"][ok], expected["conv5_3"], 1e-6)
    assert np.isnan(found["conv5_3"][~ok]).all()
    errors = dict(zip(names, found["error"], strict=True))
    assert "empty" in errors["a.jpg"]
    assert "truncated" in errors["d.png"]
    assert "not a regular file" in errors["e.jpg"]
    assert "directory" in errors["x.jpg"]


def test_lists_come_from_stdin_and_from_files(extract, images):
    two = images[3:5]
    model = "sample_models/vgg_shapes.h5"
    lines = "\n".join(two).encode() + b"\n"
    assert extract(f"{model} -l predictions - -o a.npz", stdin=lines).code == 0
    assert extract(f"{model} -l predictions -0 - -o b.npz", stdin=lines.replace(b"\n", b"\0")).code == 0
    with open("list.txt", "wb") as file:
        file.write(lines)
    assert extract(f"{model} -l predictions --from-file list.txt -o c.npz").code == 0
    loaded = [np.load(f"{name}.npz") for name in "abc"]
    assert all(list(found["paths"]) == two for found in loaded)
    for found in loaded[1:]:
        np.testing.assert_array_equal(found["predictions"], loaded[0]["predictions"])


def test_nested_layers_and_values_before_the_activation(extract, samples, images):
    wanted = "-l backbone/conv1 -l pre:predictions -l predictions"
    assert extract(f"sample_models/nested_shapes.keras {wanted} {images[0]} -o n.npz").code == 0
    model = keras.saving.load_model(samples / "nested_shapes.keras", compile=False)
    x = pixels(images[:1], model.input_shape[1:3])
    head = model.layers[: [layer.name for layer in model.layers].index("backbone")]
    y = x
    for layer in head[1:]:
        y = layer(y)
    backbone = model.get_layer("backbone")
    expected = keras.Model(backbone.inputs, backbone.get_layer("conv1").output)(y)
    found = np.load("n.npz")
    assert_close(found["backbone/conv1"], expected.numpy())
    exps = np.exp(found["pre:predictions"])
    assert_close(exps / exps.sum(axis=1, keepdims=True), found["predictions"])


def test_several_inputs_are_given_by_name(extract, samples):
    names = {
        name: samples / f"two_inputs_{file}.npy" for name, file in (("image", "images"), ("query", "query"))
    }
    given = join(f"--input={name}={path}" for name, path in names.items())
    ended = extract(f"sample_models/two_inputs.keras -l output -l asked {given} -o two.h5")
    assert ended.code == 0, ended.err
    model = keras.saving.load_model(samples / "two_inputs.keras", compile=False)
    expected = model.predict({name: np.load(path) for name, path in names.items()}, verbose=0)
    with layerprobe.open("two.h5") as found:
        outputs = [np.asarray(found[f"output:{place}"]) for place in range(2)]
        assert found["asked"].shape == (12, 48)
    for actual, wanted in zip(outputs, keras.tree.flatten(expected), strict=True):
        assert_close(actual, wanted)


def test_images_and_arrays_side_by_side(extract, samples, images):
    np.save("query.npy", np.load(samples / "two_inputs_query.npy")[:2])
    given = f"--input=image={images[0]} --input=image={images[1]} --input=query=query.npy"
    ended = extract(f"sample_models/two_inputs.keras -l present {given} -o both.npz")
    assert ended.code == 0, ended.err
    model = keras.saving.load_model(samples / "two_inputs.keras", compile=False)
    inputs = {"image": pixels(images[:2], (64, 64)), "query": np.load("query.npy")}
    assert_close(np.load("both.npz")["present"], model.predict(inputs, verbose=0)["present"])
    assert list(np.load("both.npz")["paths"]) == images[:2]


def test_only_the_inputs_that_the_layers_need_are_asked_for(extract, images):
    ended = extract(f"sample_models/two_inputs.keras -l conv1 {images[0]} -o one.npz")
    assert ended.code == 0, ended.err


def test_subclassed_models_load_with_their_code(extract, samples, images):
    model = "sample_models/subclassed_shapes.keras"
    refused = extract(f"{model} -l output {images[0]}")
    assert refused.code == 65
    assert "--custom" in refused.err
    ended = extract(f"{model} -l output --custom {samples / 'subclassed_shapes.py'} {images[0]} -o s.npz")
    assert ended.code == 0, ended.err
    assert np.load("s.npz")["output"].sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("gap", lambda x: x.mean(axis=(1, 2))),
        ("gmp", lambda x: x.max(axis=(1, 2))),
        ("flatten", lambda x: x.reshape(len(x), -1)),
    ],
)
def test_pooling_is_done_before_anything_is_stored(extract, samples, images, pool, expected):
    extract(f"{VGG} -l conv5_3 {join(images[:3])} --pool {pool} -o p.npz")
    (conv,) = [reference(samples, ["conv5_3"], images[:3])]
    conv = conv[0] if isinstance(conv, list) else conv
    assert_close(np.load("p.npz")["conv5_3"], expected(conv))


def test_half_precision_halves_the_file(extract, images):
    for dtype in ("float32", "float16"):
        extract(f"{VGG} -l conv1_1 {images[0]} --dtype {dtype} -o {dtype}.npz")
    whole, half = np.load("float32.npz")["conv1_1"], np.load("float16.npz")["conv1_1"]
    assert half.dtype == np.float16
    np.testing.assert_array_equal(whole.astype("float16"), half)


def test_the_batch_size_does_not_change_the_numbers(extract, images):
    for size in (1, 5, 32):
        extract(f"{VGG} -l conv5_3 --batch-size {size} {join(images)} -o {size}.npz")
    one = np.load("1.npz")["conv5_3"]
    for size in (5, 32):
        assert_close(np.load(f"{size}.npz")["conv5_3"], one, 1e-6)


def test_size_crop_resize_and_preprocess_reach_the_pixels(extract, tmp_path):
    inputs = keras.Input((None, None, 3), name="pixels")
    keras.Model(inputs, keras.layers.Activation("linear", name="seen")(inputs)).save("free.keras")
    photo = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(photo).save("photo.png")
    ended = extract(
        "free.keras -l seen photo.png --size 20x30 --resize lanczos --crop center --preprocess caffe"
    )
    assert ended.code == 0, ended.err
    image = keras.utils.load_img(
        "photo.png", target_size=(20, 30), interpolation="lanczos", keep_aspect_ratio=True
    )
    expected = keras.applications.imagenet_utils.preprocess_input(
        keras.utils.img_to_array(image), mode="caffe"
    )
    np.testing.assert_allclose(np.load("photo.npz")["seen"][0], expected, rtol=0, atol=1e-4)
    unsized = extract("free.keras -l seen photo.png -o u.npz")
    assert (unsized.code, "--size" in unsized.err) == (2, True)


def test_without_evidence_it_says_what_it_assumes(extract):
    inputs = keras.Input((4, 4, 3), name="pixels")
    keras.Model(inputs, keras.layers.Activation("linear", name="seen")(inputs)).save("plain.keras")
    Image.new("RGB", (4, 4), (1, 2, 3)).save("i.png")
    ended = extract("plain.keras -l seen i.png")
    assert "preprocess raw: assumed" in ended.err
    assert "--preprocess" in ended.err
    np.testing.assert_array_equal(np.load("i.npz")["seen"][0, 0, 0], [1, 2, 3])


def test_the_report_comes_as_json_on_stdout_alone(extract, images):
    ended = extract(f"{VGG} -l conv5_3 {images[0]} --json -q")
    report = json.loads(ended.out)
    assert (report["rows"], report["failed"], report["layers"][0]["name"]) == (1, 0, "conv5_3")
    assert {"read", "decode", "compute", "write", "total"} <= set(report["seconds"])
    assert ended.err == ""


def test_training_mode_with_a_seed_repeats_itself(extract, images):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        options = f"--training --seed {seed} -o {name}.npz"
        ended = extract(f"sample_models/nested_shapes.keras -l dropout {join(images[:4])} {options}")
        assert ended.code == 0, ended.err
    a, b, c = (np.load(f"{name}.npz")["dropout"] for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
