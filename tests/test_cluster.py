"""A run on a Ray cluster: whatever becomes of its nodes, the output is what one process writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_model import contents
from PIL import Image
from store_servers import web

import layerprobe
from layerprobe.errors import UnavailableError, UnknownLayerError, UsageError
from layerprobe.options import ExtractOptions
from layerprobe.run.cluster_options import parse_cluster
from layerprobe.sources.opening import open_source

ROWS = 600
BROKEN = 17
LAYERS = ["conv5_3", "predictions"]
OPTIONS: dict[str, Any] = {"batch_size": 3, "preprocess": "raw"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    numbers = np.random.default_rng(0)
    for row in range(ROWS):
        Image.fromarray(numbers.integers(0, 256, (28, 28, 3), "uint8")).save(folder / f"{row:03}.png")
    (folder / f"{BROKEN:03}.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def reference(samples: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes."""
    output = tmp_path_factory.mktemp("reference") / "one.h5"
    layerprobe.extract(samples / "vgg_shapes.h5", str(images), LAYERS, output, **OPTIONS)
    return contents(output)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster whose head computes nothing, and two nodes that do."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


def extract(samples: Path, images: Path | str, output: Path, nodes: Any, **options: Any) -> Any:
    options = {**OPTIONS, "cluster": nodes.address} | options
    return layerprobe.extract(
        samples / "vgg_shapes.h5", str(images), options.pop("layers", LAYERS), output, **options
    )


def once(after: int, act: Callable[[], object]) -> Callable[[int, int, int], None]:
    """Does something when so many rows are done."""
    left = iter([act])

    def progress(done: int, *_: int) -> None:
        if done >= after:
            next(left, lambda: None)()

    return progress


@pytest.mark.slow
def test_the_output_is_bit_for_bit_what_one_process_writes(
    samples: Path, images: Path, reference: dict[str, bytes], tmp_path: Path, nodes: Any
) -> None:
    seen: list[tuple[int, ...]] = []
    output = tmp_path / "out.h5"
    report = extract(
        samples, images, output, nodes, workers="1:2", progress=lambda *numbers: seen.append(numbers)
    )
    assert contents(output) == reference
    assert [failure.index for failure in report.failures] == [BROKEN]
    assert (seen[0], seen[-1]) == ((0, ROWS, 0), (ROWS, ROWS, 1))
    assert {"decode", "compute", "write", "load", "total"} <= report.seconds.keys()
    assert not [left for left in os.listdir(tmp_path) if left.startswith(".")]


@pytest.mark.slow
def test_a_node_that_is_lost_costs_its_blocks_which_another_does_again(
    samples: Path, images: Path, reference: dict[str, bytes], tmp_path: Path, nodes: Any
) -> None:
    lost = nodes.add_node(num_cpus=1)
    remove = once(30, lambda: nodes.remove_node(lost, allow_graceful=False))
    extract(samples, images, tmp_path / "out.zarr", nodes, workers="3", progress=remove)
    assert contents(tmp_path / "out.zarr") == reference
    nodes.wait_for_nodes(timeout=60)  # Until Ray knows, it gives workers of the next run to the lost node.


@pytest.mark.slow
def test_a_worker_that_is_killed_is_told_of_once_and_never_on_standard_output(
    samples: Path,
    images: Path,
    reference: dict[str, bytes],
    tmp_path: Path,
    nodes: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    kill = once(30, lambda: os.kill(a_worker_of(nodes), signal.SIGKILL))
    report = extract(samples, images, tmp_path / "out.h5", nodes, cluster="ray", workers="2", progress=kill)
    assert contents(tmp_path / "out.h5") == reference
    assert report.notes == (
        f"computed on the Ray cluster at {nodes.address}, which this machine belongs to",
        "a worker died: what had not been reported was computed again",
    )
    print("ours")
    told = capfd.readouterr()
    assert told.out == "ours\n"
    assert "A worker died or was killed" in told.err, "Ray has not said it: this test would not fail"


def a_worker_of(nodes: Any) -> int:
    """The process of one of the actors of this cluster, and of no other."""
    parents = {node.all_processes["raylet"][0].process.pid for node in nodes.list_all_nodes()}
    for process in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            parent = int(Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[1])
            name = Path("/proc", process, "cmdline").read_bytes()
            if parent in parents and name.startswith(b"ray::ClusterWorker"):
                return int(process)
    raise AssertionError("no worker is running")


@pytest.mark.slow
def test_a_driver_that_is_killed_is_started_again_with_resume(
    samples: Path, images: Path, reference: dict[str, bytes], tmp_path: Path, nodes: Any
) -> None:
    words = [sys.executable, "-m", "layerprobe", "extract", str(samples / "vgg_shapes.h5"), str(images)]
    words += [word for layer in LAYERS for word in ("-l", layer)]
    words += ["--batch-size", "3", "--preprocess", "raw", "--resume", "-q", "-o", str(tmp_path / "out.npz")]
    words += ["--cluster", nodes.address]
    journal = tmp_path / ".out.npz.journal"
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as driver:
        until = time.monotonic() + 120
        while not (journal.exists() and b'"rows"' in journal.read_bytes()) and driver.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.02)
        driver.send_signal(signal.SIGKILL)
    assert driver.returncode == -signal.SIGKILL, "it was done before it could be killed"
    done = subprocess.run(words, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (3, False), done.stderr
    assert contents(tmp_path / "out.npz") == reference


@pytest.mark.slow
def test_a_node_that_does_not_see_the_inputs_ends_the_run_instead_of_failing_its_rows(
    samples: Path, images: Path, tmp_path: Path, nodes: Any
) -> None:
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").put(str(images / "000.png"), "/only_here/000.png")  # in this process
    with pytest.raises(UnavailableError, match="cannot read 'memory://.*000.png', which this machine can"):
        extract(samples, "memory://only_here/", tmp_path / "out.h5", nodes)
    gone = tmp_path / "gone.txt"
    gone.write_text(f"{tmp_path / 'gone.png'}\n{images / '001.png'}\n")
    listed = open_source([], lists=[str(gone)])
    report = layerprobe.extract(
        samples / "vgg_shapes.h5",
        listed,
        LAYERS,
        tmp_path / "out.h5",
        cluster=nodes.address,
        batch_size=1,
    )
    assert [failure.index for failure in report.failures] == [0]


@pytest.mark.slow
def test_requests_that_workers_had_to_make_again_are_told(
    samples: Path, images: Path, tmp_path: Path, nodes: Any
) -> None:
    photos = {f"photos/{row:03}.png": (images / f"{row:03}.png").read_bytes() for row in range(8)}
    refused: set[str] = set()

    def faults(method: str, path: str, number: int) -> str | None:
        if method != "GET" or not path.endswith(".png") or path in refused:
            return None
        refused.add(path)
        return "503"

    with web(photos, faults) as served:
        report = extract(samples, f"{served.url}/photos/", tmp_path / "out.h5", nodes)
    assert report.notes == (
        "8 requests to http:// had to be made again, last because the store answers 503 made up",
    )


@pytest.mark.slow
def test_what_is_wrong_with_the_model_is_told_as_on_one_machine(
    samples: Path, images: Path, tmp_path: Path, nodes: Any
) -> None:
    with pytest.raises(UnknownLayerError, match="conv9"):
        extract(samples, images, tmp_path / "out.h5", nodes, layers=["conv9"])
    assert os.listdir(tmp_path) == []


def test_a_cluster_that_is_not_there_is_an_error(samples: Path, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(UnavailableError, match="127.0.0.1:1"):
        layerprobe.extract(
            samples / "vgg_shapes.h5", str(images), LAYERS, tmp_path / "out.h5", cluster="127.0.0.1:1"
        )
    assert os.listdir(tmp_path) == []


def test_what_is_no_ray_is_an_error_at_once(samples: Path, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with web({}) as served, pytest.raises(UnavailableError, match="what listens there is not Ray"):
        layerprobe.extract(
            samples / "vgg_shapes.h5",
            str(images),
            LAYERS,
            tmp_path / "out.h5",
            cluster=served.url.removeprefix("http://"),
        )
    assert os.listdir(tmp_path) == []


def test_a_cluster_that_asks_for_a_token_is_told_from_none(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    from layerprobe.cluster import connection

    def refused(*_: object, **__: object) -> None:
        try:
            raise RuntimeError("Failed to connect to GCS. RPC error: InvalidAuthToken: it is missing")
        except RuntimeError as error:
            raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379") from error

    monkeypatch.setattr(ray, "init", refused)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(UnavailableError, match="'auto' asks for a token: set RAY_AUTH_MODE=token"):
        connection.connect("ray")


@pytest.mark.parametrize(
    ("end", "told"), [("os._exit(1)", True), ("os.kill(os.getpid(), 9)", True), ("0", False)]
)
def test_a_driver_that_ray_ends_has_said_how_to_go_on(end: str, told: bool) -> None:
    program = f"import os; from layerprobe.cli.last_words import last_words\nwith last_words(): {end}"
    ended = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode == 0, ended.stderr.startswith("layerprobe: ended at once")) == (not told, told)
    assert ended.stderr.count("\n") == told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"cluster": "slurm"}, "cluster must be ray"),
        ({"workers": "2:4"}, "number of threads"),
        ({"cpus_per_worker": 2}, "give --cluster ray too"),
        ({"cluster": "ray", "workers": "4:2"}, "MIN:MAX"),
        ({"cluster": "ray", "workers": "0"}, "MIN:MAX"),
        ({"cluster": "ray", "processes": 2}, "one machine"),
        ({"cluster": "ray", "training": True}, "one process"),
        ({"cluster": "ray", "device": "gpu:1"}, "--gpus-per-worker"),
        ({"cluster": "ray", "device": "gpu"}, "--gpus-per-worker"),
        ({"cluster": "ray", "cpus_per_worker": 0}, "some of a processor"),
        ({"cluster": "ray", "gpus_per_worker": -1.0}, "some of a processor"),
        ({"cluster": "ray", "cpus_per_worker": float("inf")}, "some of a processor"),
        ({"cluster": "ray", "cpus_per_worker": 0.00001}, "some of a processor"),
        ({"cluster": "ray", "gpus_per_worker": 1.5}, "a whole number"),
        ({"cluster": "ray://me:secret@host:1"}, r"Received: 'ray://\*\*\*@host:1'"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_cluster(ExtractOptions(**options))


@pytest.mark.parametrize(
    ("workers", "least", "most"), [(None, 1, None), (4, 4, 4), ("4", 4, 4), ("2:16", 2, 16)]
)
def test_workers_are_a_number_or_two(workers: Any, least: int, most: int | None) -> None:
    found = parse_cluster(ExtractOptions(cluster="ray", workers=workers))
    assert found is not None
    assert (found.least, found.most) == (least, most)


@pytest.mark.parametrize("output", ["out.jsonl", "out.tar"])
def test_outputs_whose_rows_have_no_places_are_refused(
    samples: Path, images: Path, tmp_path: Path, output: str
) -> None:
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match="cluster"):
        layerprobe.extract(samples / "vgg_shapes.h5", str(images), LAYERS, tmp_path / output, cluster="ray")


def test_without_ray_one_sentence_says_what_to_install(
    command: Any, samples: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerprobe.registry.find_spec", lambda _: None)
    words = ("extract", samples / "vgg_shapes.h5", images, "-l", "predictions", "-o", tmp_path / "x.npz")
    for more in ((), ("--dry-run",)):
        ended = command(*words, "--cluster", "ray", *more)
        assert (ended.code, ended.out) == (69, "")
        assert ended.err == (
            "layerprobe: cluster 'ray' needs the package ray, which is missing: "
            "run `pip install 'layerprobe[ray]'`.\n"
        )
