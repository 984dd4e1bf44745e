"""Inputs in object stores and on web servers: the same rows as from the disk, whatever the network does."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import store_servers
from store_servers import Served, at_random

import layerprobe
from layerprobe.errors import NoInputError
from layerprobe.sources.listing import image_source
from layerprobe.sources.opening import open_source
from layerprobe.stores import attempts

pytestmark = pytest.mark.usefixtures("impatient")

Command = Callable[..., Any]
Images = dict[str, bytes]
Array = np.ndarray
LAYER = ("-l", "predictions")


@pytest.fixture(scope="module")
def model(samples: Path) -> Path:
    return samples / "vgg_shapes.h5"


@pytest.fixture(scope="module")
def s3(s3: Served, images: Images) -> Served:
    """With the images in it."""
    import boto3

    client = boto3.client("s3", endpoint_url=s3.url)
    for name, data in images.items():
        client.put_object(Bucket="bucket", Key=f"photos/{name}", Body=data)
    s3.put = lambda key, data: client.put_object(Bucket="bucket", Key=key, Body=data)  # type: ignore[attr-defined]
    return s3


@pytest.fixture
def faults(s3: Served) -> Iterator[Served]:
    """S3 that fails at random, until the test is over."""
    s3.requests.clear()
    s3.faulty.clear()
    s3._seen.clear()
    s3.faults = at_random(1)
    yield s3
    s3.faults = store_servers.no_faults


@pytest.fixture(scope="module")
def expected(model: Path, samples: Path, images: Images) -> Array:
    """What the files on the disk give."""
    probe = layerprobe.Probe(str(model), ["predictions"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(os.environ["LAYERPROBE_CACHE"])
        layerprobe.extract(
            model, [str(samples / "images" / name) for name in images], ["predictions"], "local.npz"
        )
        with layerprobe.open("local.npz") as found:
            assert set(found.status) == {"ok"}
            del probe
            return np.array(found["predictions"])


def tar_of(images: Images, mode: str = "w") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in images.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return data.getvalue()


def check(command: Command, tmp_path: Path, expected: Array, model: Path, *inputs: object) -> list[str]:
    """Extract, compare with the rows of the files on the disk, and give what the rows are called."""
    ended = command("extract", model, *LAYER, *inputs, "-o", tmp_path / "out.npz")
    assert ended.code == 0, ended.err
    with layerprobe.open(tmp_path / "out.npz") as found:
        assert found["predictions"].tobytes() == expected.tobytes()
        assert set(found.status) == {"ok"}
        return list(found.paths)


def test_a_folder_in_s3_that_fails_at_random_gives_the_rows_of_the_disk(
    command: Command,
    tmp_path: Path,
    faults: Served,
    model: Path,
    images: Images,
    expected: Array,
) -> None:
    ended = command("extract", model, *LAYER, "s3://bucket/photos", "-o", tmp_path / "out.npz")
    assert ended.code == 0, ended.err
    assert min(faults.faulty["cut"], faults.faulty["503"]) > 0
    assert faults.faulty.total() > 3
    assert ended.err.count("had to be made again") == 1
    with layerprobe.open(tmp_path / "out.npz") as found:
        assert found["predictions"].tobytes() == expected.tobytes()
        assert found.paths == [f"s3://bucket/photos/{name}" for name in images]


def test_a_web_server_that_fails_at_random_gives_the_rows_of_the_disk(
    command: Command, tmp_path: Path, model: Path, images: Images, expected: Array
) -> None:
    with store_servers.web({f"a/{name}": data for name, data in images.items()}, at_random(7)) as served:
        keys = check(command, tmp_path, expected, model, f"{served.url}/a/")
        assert keys == [f"{served.url}/a/{name}" for name in images]
        assert served.faulty.total() > 3


def test_patterns_and_brace_ranges_name_objects_in_their_order(s3: Served, images: Images) -> None:
    def names(given: str) -> list[str]:
        return [sample.key.rpartition("/")[2] for sample in image_source([given])]

    assert names("s3://bucket/photos/*.jpg") == [name for name in images if name.endswith(".jpg")]
    assert names("s3://bucket/**/star_*") == ["star_09.png", "star_10.jpg"]
    assert names("s3://bucket/photos/{ring,star}_{10..11}.png") == [
        "ring_10.png",
        "ring_11.png",
        "star_10.png",
        "star_11.png",
    ]
    with pytest.raises(NoInputError, match="nothing matches"):
        image_source(["s3://bucket/photos/*.gif"])


def test_a_folder_follows_the_rules_of_folders_on_the_disk(tmp_path: Path) -> None:
    import fsspec

    png = (tmp_path / "x").name  # no image: text
    system = fsspec.filesystem("memory")
    names = ["a/2.png", "a.png", "a/1.png", "b/.hidden/x.png", "b/.x.png", "b/Thumbs.db", "b/text", "z.JPG"]
    for name in names:
        system.pipe_file(f"/rules/{name}", png.encode())
        (tmp_path / "rules" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rules" / name).write_text(png)
    gif = b"GIF89a" + bytes(20)
    system.pipe_file("/rules/b/without_suffix", gif)
    (tmp_path / "rules/b/without_suffix").write_bytes(gif)
    there = [sample.key for sample in image_source(["memory://rules"])]
    here = [sample.key for sample in image_source([str(tmp_path / "rules")])]
    assert there == [f"memory://{os.path.relpath(key, tmp_path)}" for key in here]
    assert len(there) == 5


def test_a_list_in_a_store_names_what_is_beside_it(
    command: Command,
    tmp_path: Path,
    faults: Served,
    model: Path,
    images: Images,
    expected: Array,
) -> None:
    first, *others = images
    lines = [f'{{"path": "../photos/{first}", "label": 3}}']
    lines += [f'{{"path": "s3://bucket/photos/{name}"}}' for name in others]
    faults.faults, slow = store_servers.no_faults, faults.faults
    faults.put("lists/all.jsonl", "\n".join(lines).encode())  # type: ignore[attr-defined]
    faults.faults = slow
    keys = check(command, tmp_path, expected, model, "--from-file", "s3://bucket/lists/all.jsonl")
    assert keys == [f"s3://bucket/photos/{name}" for name in images]
    with layerprobe.open(tmp_path / "out.npz") as found:
        assert found.fields[0] == {"label": 3}


def test_shards_are_read_in_ranges_and_give_the_rows_of_the_disk(
    command: Command, tmp_path: Path, model: Path, images: Images, expected: Array
) -> None:
    names = list(images)
    large = {"hole.bin": bytes(8 * 2**20)}
    shards = {
        f"s/data-{number:04}.tar": tar_of({name: images[name] for name in names[4 * number :][:4]} | large)
        for number in range(3)
    }
    with store_servers.web(shards, at_random(3, 0.2)) as served:
        keys = check(command, tmp_path, expected, model, f"{served.url}/s/data-{{0000..0002}}.tar")
        assert keys[5] == f"{served.url}/s/data-0001.tar::{names[5]}"
        assert served.sent < sum(map(len, shards.values())) / 2, "members that are no images are not fetched"


def test_a_shard_of_a_server_without_ranges_is_fetched_once(
    command: Command, tmp_path: Path, model: Path, images: Images, expected: Array
) -> None:
    with store_servers.web({"all.tar": tar_of(images)}, ranges=False) as served:
        check(command, tmp_path, expected, model, f"{served.url}/all.tar")
        assert served.requests["GET"] <= 3


def test_a_compressed_shard_loses_no_row_when_the_connection_is_cut(
    command: Command, tmp_path: Path, model: Path, images: Images, expected: Array
) -> None:
    def cut_twice(method: str, path: str, number: int) -> str | None:
        return "cut" if method == "GET" and number <= 2 else None

    with store_servers.web({"all.tar.gz": tar_of(images, "w:gz")}, cut_twice) as served:
        check(command, tmp_path, expected, model, f"{served.url}/all.tar.gz")
        assert served.faulty["cut"] == 2


def test_what_is_missing_or_fails_every_time_is_a_row_that_fails_in_its_place(
    command: Command, tmp_path: Path, model: Path, images: Images, expected: Array
) -> None:
    def third_never(method: str, path: str, number: int) -> str | None:
        return "503" if path.endswith("cross_03.png") and method == "GET" else None

    with store_servers.web(dict(images), third_never) as served:
        names = [f"{served.url}/{name}" for name in images]
        names[1] = f"{served.url}/nothing.jpg"
        (tmp_path / "list").write_text("\n".join(names))
        ended = command("extract", model, *LAYER, "--from-file", tmp_path / "list", "-o", tmp_path / "o.npz")
        assert ended.code == 3
        assert "row 1 failed" in ended.err
        assert served._seen["GET", "/cross_03.png"] == attempts.TRIES
    with layerprobe.open(tmp_path / "o.npz") as found:
        assert [row for row, status in enumerate(found.status) if status == "failed"] == [1, 2]
        assert found.error[1] == "no such object"
        assert found.error[2] == f"the store answers 503 made up (tried {attempts.TRIES} times)"
        np.testing.assert_array_equal(found["predictions"][3:], expected[3:])


def test_an_object_that_changed_is_computed_anew_and_the_listing_tells(
    command: Command, tmp_path: Path, s3: Served, model: Path, images: Images
) -> None:
    for name, data in images.items():
        s3.put(f"changing/{name}", data)  # type: ignore[attr-defined]
    stops = iter([False, False, True])
    options: dict[str, Any] = {"layers": ["predictions"], "output": tmp_path / "out.npz", "batch_size": 3}
    with pytest.raises(layerprobe.LayerprobeError, match="stopped"):
        layerprobe.extract(model, ["s3://bucket/changing/"], stop=lambda: next(stops), **options)
    s3.put("changing/circle_01.png", images["star_09.png"])  # type: ignore[attr-defined]
    s3.requests.clear()
    done: list[int] = []
    layerprobe.extract(
        model,
        ["s3://bucket/changing/"],
        resume=True,
        progress=lambda rows, *_: done.append(rows),
        **options,
    )
    assert done[0] == 6, "two of three batches are taken as they are"
    assert s3.requests["HEAD"] <= 2, "the listing told of each object already"
    with layerprobe.open(tmp_path / "out.npz") as found:
        values = found["predictions"]
        assert values[0].argmax() == values[list(images).index("star_09.png")].argmax()


def test_arrays_are_read_row_by_row_from_where_they_are(tmp_path: Path) -> None:
    values = np.arange(4000, dtype=np.float32).reshape(20, 200)
    np.save(tmp_path / "x.npy", values)
    np.savez(tmp_path / "x.npz", one=values, other=values + 1)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["group/x"] = values
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with store_servers.web(files, at_random(5, 0.3)) as served:
        for name, wanted in (("x.npy", values), ("x.npz::other", values + 1), ("x.h5::group/x", values)):
            source = open_source([f"{served.url}/{name}"])
            rows = [sample.read() for sample in source]
            np.testing.assert_array_equal(rows, wanted)
            assert next(iter(source)).key == f"{served.url}/{name}[0]"


def test_samples_of_a_store_can_be_sent_to_another_process(s3: Served, images: Images) -> None:
    import pickle

    source = pickle.loads(pickle.dumps(image_source(["s3://bucket/photos/"])))
    assert [sample.read() for sample in source] == list(images.values())
    assert source.far
