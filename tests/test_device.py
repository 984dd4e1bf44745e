"""Which device computes: what is asked for, what is there, and who runs the model then."""

import glob
import os

import pytest

from layerprobe.engines import device, keras_model
from layerprobe.engines.device import check_device, find_gpu, may_have_gpu
from layerprobe.engines.keras_model import KerasModel
from layerprobe.errors import UnavailableError, UsageError
from layerprobe.options import ModelOptions
from layerprobe.run import probed_model
from layerprobe.run.probed_model import ProbedModel

TWO = ["GPU A", "GPU B"]


@pytest.mark.parametrize(
    ("asked", "there", "taken"),
    [
        ("auto", [], None),
        ("auto", TWO, 0),
        ("cpu", TWO, None),
        ("gpu", TWO, 0),
        ("gpu:0", TWO, 0),
        ("gpu:1", TWO, 1),
    ],
)
def test_the_gpu_that_is_meant_is_found(asked, there, taken):
    check_device(asked)
    assert find_gpu(asked, there) == taken


def test_a_gpu_that_is_not_there_is_unavailable():
    with pytest.raises(UnavailableError, match="sees no GPU here, so device gpu:0 cannot be had"):
        find_gpu("gpu:0", [])
    with pytest.raises(UnavailableError, match=r"sees gpu:0 to gpu:1 here: choose one. Received: gpu:2"):
        find_gpu("gpu:2", TWO)


@pytest.mark.parametrize("text", ["", "GPU", "gpu:", "gpu:-1", "gpu:x", "cuda", "cpu:0", "gpu:0\n", None, 0])
def test_what_cannot_be_meant_is_a_usage_error(text):
    with pytest.raises(UsageError, match="device must be auto, cpu, gpu or gpu:N"):
        check_device(text)


@pytest.fixture
def machine(monkeypatch):
    """Pretend that only these files exist, and that CUDA_VISIBLE_DEVICES has this value."""

    def pretend(files=(), chosen=None):
        monkeypatch.setattr(glob, "glob", lambda pattern: [f for f in files if f.startswith(pattern[:11])])
        monkeypatch.setattr(os.path, "exists", lambda path: path in files)
        monkeypatch.setattr(device.sys, "platform", "linux")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if chosen is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)

    return pretend


@pytest.mark.parametrize(
    ("files", "chosen", "sign"),
    [
        ([], None, False),
        (["/dev/nvidia0"], None, True),
        (["/dev/nvidia0"], "1", True),
        (["/dev/nvidia0"], "", False),
        (["/dev/nvidia0"], "-1", False),
        ([], "0", True),
        (["/dev/kfd"], None, True),
        (["/dev/kfd"], "", True),
    ],
)
def test_drivers_and_variables_are_signs_of_a_gpu(machine, files, chosen, sign):
    machine(files, chosen)
    assert may_have_gpu() == sign


def test_without_a_sign_keras_is_not_asked(monkeypatch):
    monkeypatch.setattr(keras_model, "may_have_gpu", lambda: False)
    monkeypatch.setattr(keras_model, "keras_backend", lambda: pytest.fail("Keras was asked"))
    assert keras_model.gpus() == []


def test_a_keras_that_cannot_run_has_no_gpus(monkeypatch):
    def missing():
        raise UnavailableError("Keras needs the package tensorflow")

    monkeypatch.setattr(keras_model, "may_have_gpu", lambda: True)
    monkeypatch.setattr(keras_model, "keras_backend", missing)
    assert keras_model.gpus() == []


@pytest.mark.parametrize(
    ("engine", "asked", "there", "kind", "note"),
    [
        ("auto", "auto", TWO, KerasModel, "engine keras: it has a GPU, GPU A"),
        ("auto", "cpu", TWO, None, None),
        ("auto", "auto", [], None, None),
        ("auto", "gpu:1", TWO, KerasModel, None),
        ("graph", "auto", TWO, None, None),
        ("keras", "auto", TWO, KerasModel, None),
    ],
)
def test_keras_runs_the_model_where_it_has_a_gpu(samples, monkeypatch, engine, asked, there, kind, note):
    monkeypatch.setattr(probed_model, "gpus", lambda: there)
    probed = ProbedModel(samples / "vgg_shapes.h5", ["conv5_3"], ModelOptions(), engine, asked)
    assert isinstance(probed._first_runnable(), kind or probed_model.GraphFile)
    assert probed.note == note


def test_the_graph_engine_and_a_gpu_exclude_each_other(samples):
    with pytest.raises(UsageError, match="the engine graph runs on the processor: leave --device gpu out"):
        ProbedModel(samples / "vgg_shapes.h5", ["conv5_3"], ModelOptions(), "graph", "gpu")


@pytest.mark.slow
def test_no_gpu_for_tensorflow_either_is_one_sentence_and_69(command, samples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = samples / "images" / "star_09.png"
    ended = command("extract", samples / "vgg_shapes.h5", "-l", "conv5_3", image, "--device", "gpu:1")
    assert (ended.code, ended.out) == (69, "")
    assert ended.err.startswith("layerprobe: Keras sees no GPU here, so device gpu:1 cannot be had: leave")
    assert ended.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_one_gpu_is_shown_to_tensorflow_and_its_memory_grows(monkeypatch):
    from layerprobe.engines import keras_tensorflow as module

    class Gpu:
        def __init__(self, name):
            self.name = name

    gpus, shown, grown = [Gpu("A"), Gpu("B")], [], []
    monkeypatch.setattr(module.tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(module.tf.config, "get_visible_devices", lambda kind: gpus)
    monkeypatch.setattr(module.tf.config, "set_visible_devices", lambda chosen, kind: shown.append(chosen))
    monkeypatch.setattr(
        module.tf.config.experimental, "set_memory_growth", lambda gpu, on: grown.append((gpu, on))
    )
    for asked in ("cpu", "gpu:1", "auto"):
        module.KerasTensorFlowEngine.prepare(asked)
    assert shown == [[], [gpus[1]], [gpus[0]]]
    assert grown == [(gpus[1], True), (gpus[0], True)]


@pytest.mark.slow
def test_a_tensorflow_that_computes_already_keeps_its_devices(monkeypatch):
    from layerprobe.engines import keras_tensorflow as module

    def too_late(*_):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    gpus = [type("Gpu", (), {"name": "A"})]
    monkeypatch.setattr(module.tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(module.tf.config, "get_visible_devices", lambda kind: [])
    monkeypatch.setattr(module.tf.config, "set_visible_devices", too_late)
    monkeypatch.setattr(module.tf.config.experimental, "set_memory_growth", too_late)
    module.KerasTensorFlowEngine.prepare("auto")
    with pytest.raises(UnavailableError, match="device gpu cannot be had: TensorFlow already computes"):
        module.KerasTensorFlowEngine.prepare("gpu")
