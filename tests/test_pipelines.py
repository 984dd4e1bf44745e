"""Pipelines in a real shell: what goes in through a pipe, and what comes out of one."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

import layerprobe

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "sample_models" / "vgg_shapes.h5"
IMAGES = ROOT / "sample_models" / "images"
EXTRACT = f"{sys.executable} -m layerprobe extract {MODEL} -l predictions --preprocess raw"


class Shell:
    """bash, in a folder that holds `images`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "images").symlink_to(IMAGES)

    def run(self, line: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run one line in which LP is the command; the exit code is that of the last part that fails."""
        quiet = EXTRACT if "--verbose" in line else f"{EXTRACT} -q"
        return subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line.replace('LP', quiet)}"],
            cwd=self.folder, input=stdin, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def out(self, line: str, stdin: bytes = b"") -> bytes:
        """Run one line, in which nothing fails or is said; gives what it prints."""
        done = self.run(line, stdin)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What each image gives when it is named, in a file."""
    output = tmp_path_factory.mktemp("reference") / "all.npz"
    layerprobe.extract(MODEL, [str(IMAGES)], ["predictions"], output, preprocess="raw")
    with layerprobe.open(output) as reader:
        return {Path(path).name: reader["predictions"][row] for row, path in enumerate(reader.paths)}


def values(reference: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
    return np.stack([reference[Path(name).name] for name in names])


def close(found: object, expected: np.ndarray) -> bool:
    """Equal but for the order of sums, which depends on how many rows a batch has."""
    return bool(np.allclose(np.asarray(found, "f4"), expected, rtol=1e-5, atol=1e-7))


@pytest.mark.parametrize("flag", ["", "z", "j", "J"], ids=["tar", "gzip", "bzip2", "xz"])
@pytest.mark.parametrize("output", ["out.h5", "out.npz", "out", "out.jsonl", "out.tar"])
def test_a_tar_file_on_stdin_is_read_as_a_stream(
    shell: Shell, reference: dict[str, np.ndarray], flag: str, output: str
) -> None:
    if flag and output != "out.h5":
        pytest.skip("compression and format do not meet")
    shell.out(f"tar c{flag}hf - images/*.jpg images/labels.txt images/*.png | LP - -o {output}")
    with layerprobe.open(shell.folder / output) as reader:
        assert len(reader.paths) == 12
        assert all(path.startswith("-::images/") for path in reader.paths)
        assert close(reader["predictions"], values(reference, reader.paths))
        assert reader.provenance["inputs"]["rows"] == 12
    assert sorted(os.listdir(shell.folder)) == ["images", output]


def test_a_compressed_tar_file_among_other_inputs(shell: Shell, reference: dict[str, np.ndarray]) -> None:
    shell.out("tar czhf some.tar.gz images/*.jpg; LP images/star_09.png some.tar.gz images/*.png -o o.npz")
    with layerprobe.open(shell.folder / "o.npz") as reader:
        assert reader.paths[:2] == ["images/star_09.png", "some.tar.gz::images/circle_02.jpg"]
        assert close(reader["predictions"], values(reference, reader.paths))


def test_a_tar_stream_that_is_cut_short_keeps_what_came_and_says_so(shell: Shell) -> None:
    done = shell.run("tar chf - images | head -c 40000 | LP - -o o.h5")
    assert done.returncode == 3
    with layerprobe.open(shell.folder / "o.h5") as reader:
        assert reader.error[-1].startswith("truncated")
        assert "ok" in reader.status
        assert np.isnan(reader["predictions"][-1]).all()


def test_a_tar_stream_without_its_end_is_told(shell: Shell) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(IMAGES / "star_09.png", "star_09.png")
        end = archive.offset
    done = shell.run("LP - -o o.npz", data.getvalue()[:end])
    assert done.returncode == 3
    with layerprobe.open(shell.folder / "o.npz") as reader:
        assert reader.status == ["ok", "failed"]
        assert reader.error[1].endswith("so that rows may be missing")


@pytest.mark.parametrize("output", ["out.h5", "out.h5 --compress gzip", "out.jsonl"])
def test_a_stream_that_was_interrupted_goes_on_when_it_comes_again(shell: Shell, output: str) -> None:
    stream, extract = "tar chf - --sort=name images", "LP --batch-size 2"
    shell.out(f"{stream} | {extract} -o whole-{output} -")
    # The tar file ends within its last row, which ends the run.
    cut = shell.run(f"{stream} | head -c 400000 | {extract} --on-error fail -o {output} -")
    assert cut.returncode == 65
    assert b"rows are kept in an unfinished output, for when the same stream is given again" in cut.stderr
    other = shell.run(f"tar chf - images/star_09.png images | {extract} --resume -o {output} -")
    assert other.returncode == 65
    assert b"row 0 is '-::images/star_09.png' and was '-::images/circle_01.png'" in other.stderr
    shell.out(f"{stream} | {extract} --resume --on-error fail -o {output} -")
    name = output.partition(" ")[0]
    with (
        layerprobe.open(shell.folder / name) as found,
        layerprobe.open(shell.folder / f"whole-{name}") as expected,
    ):
        assert found.paths == expected.paths
        np.testing.assert_array_equal(found["predictions"], expected["predictions"])
    assert sorted(os.listdir(shell.folder)) == sorted(["images", name, f"whole-{name}"])


HARD = [
    "line\nbreak.png",
    "\x1b[31mred.png",
    "tab\t.png",
    "-dash.png",
    "@at=.png",
    "\udcff\udc80.png",
    "ä'\".png",
]


@pytest.mark.parametrize("output", ["out.h5", "out.npz", "out", "out.jsonl", "out.tar"])
def test_names_that_are_hard_come_through_unharmed(shell: Shell, output: str) -> None:
    for name in HARD:
        (shell.folder / name).write_bytes((IMAGES / "star_09.png").read_bytes())
    find = "find . -maxdepth 1 -name '*.png' -print0 | sort -z"
    shell.out(f"{find} | LP -0 - -o {output}")
    shell.out(f"{find} | tar c --null --no-recursion -T - | LP - -o tarred-{output}")
    for made, prefix in ((output, ""), (f"tarred-{output}", "-::")):
        with layerprobe.open(shell.folder / made) as reader:
            assert sorted(reader.paths) == sorted(f"{prefix}./{name}" for name in HARD)


def test_a_terminal_sees_no_control_characters(shell: Shell) -> None:
    (shell.folder / "\x1b[31m\n.png").write_bytes(b"no image")
    done = shell.run(r"printf '%s\0' images/star_09.png $'\x1b[31m\n.png' | LP -0 - -o o.npz --verbose")
    assert done.returncode == 3
    assert b"\\x1b[31m\\n.png" in done.stderr
    assert b"\x1b" not in done.stderr


ROWS = (
    b'{"path": "images/star_09.png", "label": "star", "weight": 0.5}\n'
    b"\n"
    b'{"path": "images/ring_05.png"}\n'
    b'{"tags": ["a", null], "path": "images/missing.png"}\n'
)


@pytest.mark.parametrize(
    "output", ["out.h5", "out.npz", "out", "out.jsonl", "out.tar", "out.safetensors", "out.parquet"]
)
@pytest.mark.parametrize("how", ["LP - < rows", "LP --from-file rows", "LP --from-file <(cat rows)"])
def test_json_lines_are_a_list_whose_fields_are_kept(shell: Shell, output: str, how: str) -> None:
    (shell.folder / "rows").write_bytes(ROWS)
    done = shell.run(f"{how} -o {output}")
    assert done.returncode == 3, done.stderr
    with layerprobe.open(shell.folder / output) as reader:
        assert reader.fields == [{"label": "star", "weight": 0.5}, {}, {"tags": ["a", None]}]
        assert reader.status == ["ok", "ok", "failed"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"path": 3}', b"line 1: expected an object with a path"),
        (b'{"path": "a.png"}\n["a.png"]', b"line 2: expected an object with a path"),
        (b'{"path": "a.png"', b"line 1, is not JSON"),
        (b'{"path": "a.png", "x": NaN}', b"NaN is no number in JSON"),
    ],
)
def test_a_broken_list_of_json_lines_is_refused(shell: Shell, line: bytes, told: bytes) -> None:
    done = shell.run("LP - -o o.npz", line)
    assert done.returncode == 2
    assert told in done.stderr
    assert os.listdir(shell.folder) == ["images"]


def test_json_lines_on_stdout_are_rows(shell: Shell, reference: dict[str, np.ndarray]) -> None:
    (shell.folder / "cut.png").write_bytes((IMAGES / "star_09.png").read_bytes()[:300])
    done = shell.run("LP images/*.png cut.png -l conv1_1 -o - --format jsonl")
    assert done.returncode == 3
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["status"] for row in rows] == ["ok"] * 7 + ["failed"]
    names = [row["path"] for row in rows[:-1]]
    assert close([row["layers"]["predictions"] for row in rows[:-1]], values(reference, names))
    assert rows[-1]["layers"]["predictions"] == [None] * 6
    assert "truncated" in rows[-1]["error"]
    assert np.array(rows[0]["layers"]["conv1_1"]).shape == (112, 112, 8)


def test_a_tar_file_on_stdout_is_unpacked_by_tar(shell: Shell, reference: dict[str, np.ndarray]) -> None:
    shell.out(
        "tar chf in.tar --sort=name images; mkdir x;"
        " LP in.tar images/star_09.png -o - --format tar | tar xC x"
    )
    shell.out("LP in.tar images/star_09.png -o file.tar")
    for name, expected in reference.items():
        member = shell.folder / "x" / "images" / Path(name).stem
        assert close(np.load(f"{member}.predictions.npy"), expected)
        said = {"path": f"in.tar::images/{name}", "status": "ok", "error": ""}
        assert json.loads(Path(f"{member}.json").read_text()) == said
    with tarfile.open(shell.folder / "file.tar") as archive:
        names = archive.getnames()
    assert names[0] == "images/circle_01.predictions.npy"
    assert names[-3:] == ["images/star_09~2.predictions.npy", "images/star_09~2.json", "provenance.json"]
    record = json.loads((shell.folder / "x" / "provenance.json").read_text())
    assert record["inputs"]["rows"] == 13


def test_npz_on_stdout_is_what_a_file_would_be(shell: Shell) -> None:
    python = f"{sys.executable} -c"
    read = "import io, sys, numpy as np; print(*np.load(io.BytesIO(sys.stdin.buffer.read()))['paths'])"
    told = shell.out(f'LP images/s*.png -o - | {python} "{read}"')
    assert told.split() == [b"images/square_07.png", b"images/square_08.png", b"images/star_09.png"]
    shell.out("LP images/s*.png -o - > piped; LP images/s*.png -o file.npz")
    with layerprobe.open(shell.folder / "piped") as piped, layerprobe.open(shell.folder / "file.npz") as file:
        np.testing.assert_array_equal(piped["predictions"], file["predictions"])
        assert piped.paths == file.paths


@pytest.mark.parametrize("inputs", ["LP images/*.png", "tar chf - images/*.png | LP -"])
def test_npy_on_stdout_is_one_array(shell: Shell, reference: dict[str, np.ndarray], inputs: str) -> None:
    found = np.load(io.BytesIO(shell.out(f"{inputs} -o - --format npy")))
    assert close(found, values(reference, [name for name in sorted(reference) if name.endswith("png")]))


@pytest.mark.parametrize("inputs", ["LP images/*.png", "tar chf - images/*.png | LP -"])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--format npy -l conv1_1", b"npy holds one layer"),
        ("--format hdf5", b"HDF5 needs a seekable file"),
        ("--json", b"both want standard output"),
        ("--overwrite", b"overwrite is about files"),
        ("--resume", b"resume is about files"),
    ],
)
def test_what_a_pipe_cannot_take_is_refused_and_nothing_is_on_stdout(
    shell: Shell, inputs: str, options: str, told: bytes
) -> None:
    done = shell.run(f"{inputs} {options} -o - | cat")
    assert (done.returncode, done.stdout) == (2, b"")
    assert told in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_format_of_a_file_is_refused(shell: Shell) -> None:
    assert b"of a file the suffix says it" in shell.run("LP images --format jsonl -o x.npz").stderr


@pytest.mark.parametrize("file_format", ["jsonl", "npy", "npz", "tar"])
def test_a_reader_that_goes_away_ends_it_quietly(shell: Shell, file_format: str) -> None:
    layer = "-l conv1_1" if file_format != "npy" else ""
    many = "images/*.png images/*.png images/*.png images/*.png"
    done = shell.run(f"LP {many} {layer} -o - --format {file_format} | head -c 1 > /dev/null")
    if file_format == "npy":  # less than a pipe holds: whether it is written before the reader ends is chance
        assert done.returncode in (0, 141)
    else:
        assert done.returncode == 141
    assert done.stderr == b""


@pytest.mark.parametrize("file_format", ["jsonl", "npy", "npz", "safetensors", "tar"])
def test_a_full_standard_output_is_told(shell: Shell, file_format: str) -> None:
    done = shell.run(f"LP images -o - --format {file_format} > /dev/full")
    assert done.returncode == 74
    assert done.stderr == b"layerprobe: cannot write to standard output: No space left on device\n"
