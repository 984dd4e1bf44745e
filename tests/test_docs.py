"""The documents are promises: every option is in them, every block runs and prints what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from layerprobe.cli import COMMANDS, cli

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "commands.md"
PAGES = [ROOT / "README.md", REFERENCE, ROOT / "docs" / "function.md", ROOT / "docs" / "scale.md"]

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ELLIPSIS = re.compile(r"\\\.\\\.\\\.")


def blocks(page: Path, language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(page.read_text()) if name == language]


def sections(page: Path) -> dict[str, str]:
    """Text under each heading `## name`."""
    parts = re.split(r"^## `?(.*?)`?$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_in_the_reference(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    text = sections(REFERENCE)[f"layerprobe {name}"]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for spelling in parameter.opts:
                assert f"`{spelling}" in text or f", {spelling}" in text, f"{name} {spelling}"
            if isinstance(parameter.type, click.Choice):
                for choice in parameter.type.choices:
                    assert f"`{choice}`" in text, f"{name} {parameter.name} {choice}"
        else:
            assert f"`{parameter.name.upper()}`" in text, f"{name} {parameter.name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_names_no_option_that_is_not_there(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    known = {spelling for parameter in command.params for spelling in parameter.opts} | {"--help"}
    for row in re.findall(r"^\| `(-[^`]*)`", sections(REFERENCE)[f"layerprobe {name}"], re.MULTILINE):
        for spelling in re.findall(r"--?[\w-]+", row):
            assert spelling in known, f"{name} {spelling}"


def test_the_readme_says_how_to_install_and_test_as_the_gate_does() -> None:
    readme = (ROOT / "README.md").read_text()
    gate = (ROOT / ".ci" / "run").read_text()
    install, test = "pip install '.[test]'", "python -m pytest"
    assert install in readme
    assert test in readme
    assert "install --quiet --no-compile '.[dev,benchmarks]'" in gate, "dev is test, ruff and mypy"
    assert f"\n{test}\n" in gate


def test_every_shown_language_is_run() -> None:
    for page in PAGES:
        assert {name for name, _ in BLOCK.findall(page.read_text())} <= {"console", "python", "sh", "text"}


def test_links_to_files_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CHANGELOG.md", ROOT / "sample_models" / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_links_within_a_page_lead_to_a_heading() -> None:
    for page in PAGES:
        headings = re.findall(r"^#+ (.*)$", re.sub(BLOCK, "", page.read_text()), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
        for target in re.findall(r"\]\(#([^)]+)\)", page.read_text()):
            assert target in anchors, f"{page.name}: {target}"


def test_every_section_is_in_the_table_of_contents() -> None:
    text = REFERENCE.read_text()
    contents = text[: text.index("| exit code |")]
    for heading in re.findall(r"^##+ `?(.*?)`?$", text, re.MULTILINE):
        assert f"](#{heading.lower().replace(' ', '-')})" in contents, heading


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a checkout, to run the blocks in."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "sample_models").symlink_to(ROOT / "sample_models")
    return folder


def matches(expected: str, actual: str) -> bool:
    """Whether the output is the shown one, where `...` stands for anything; ends of lines do not count."""
    expected, actual = ("\n".join(map(str.rstrip, text.rstrip().split("\n"))) for text in (expected, actual))
    return re.fullmatch(ELLIPSIS.sub(".*", re.escape(expected)), actual, re.DOTALL) is not None


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_runs_and_prints_what_it_says(page: Path, scratch: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "200",
    }
    environment["PYTHONPATH"] = str(ROOT)
    environment["LAYERPROBE_CACHE"] = str(tmp_path)  # Nothing was converted before.
    for language, text in BLOCK.findall(page.read_text()):
        if language == "console":
            for step in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                line, _, expected = step.partition("\n")
                line = re.sub(r"\blayerprobe (?=[a-z])", f"{sys.executable} -m layerprobe ", line)
                done = subprocess.run(
                    ["bash", "-c", f"set -o pipefail; {line}"],
                    cwd=scratch, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                )  # fmt: skip
                assert matches(expected, done.stdout), f"$ {line}\n{done.stdout}"
        elif language == "python":
            done = subprocess.run(
                [sys.executable, "-c", text], cwd=scratch, env=environment, text=True, capture_output=True
            )
            assert done.returncode == 0, f"{text}\n{done.stderr}"
