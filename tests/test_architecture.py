"""The rooms of the house, and who may import whom. A new module must be given its floor here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "layerprobe"

FLOORS = [
    {"__main__"},
    {"cli"},
    {"__init__"},
    {"class_maps", "layer_gradients", "looking", "retrying"},
    {"bench", "engine_check", "layer_listing", "pipeline", "planning", "probe"},
    {"cluster"},
    {"diagnosis", "workers", "merging", "verification", "reporting"},
    {"run"},
    {"engines", "backend_function", "similarity", "statistics", "views"},
    {"loading"},
    {"modelfile", "taps", "sources", "reductions", "formats"},
    {"images", "stores"},
    {"labels", "protocols", "registry"},
    {"columns"},
    {"errors", "escaping", "options", "processors", "records", "version"},
    {"hiding"},
]
"""From the top down. A module may import from the floors below its own, and from its own room."""

THIRD_PARTIES = {
    "click": {"cli"},
    "rich": {"cli"},
    "PIL": {"bench", "images", "reporting", "views"},
    "aiohttp": {"stores"},
    "fsspec": {"stores"},
    "pyarrow": {"formats", "sources"},
    "hdf5plugin": {"formats"},
    "h5py": {"modelfile", "formats", "sources", "loading"},
    "keras": {"engines", "loading", "taps", "backend_function"},
    "tensorflow": {"engines", "loading", "taps", "backend_function"},
    "openvino": {"engines"},
    "xdis": {"modelfile"},
    "zlib_ng": {"formats", "modelfile"},
    "ray": {"cluster"},
    "scipy": {"backend_function"},
    "zarr": {"formats"},
}
"""Who may import what, type checking aside."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor_of(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def imports(path: Path) -> Iterator[str]:
    """Dotted names of what a module imports when it runs; what only a type checker sees is left out."""

    def visit(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{name.name}" for name in node.names)
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    yield from visit(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_only_downwards(path: Path) -> None:
    room = room_of(path)
    for name in imports(path):
        if not name.startswith("layerprobe."):
            continue
        other = name.split(".")[1]
        if other == room or (room, other) == ("cli", "__init__"):
            continue
        assert floor_of(room) < floor_of(other), f"{room} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_third_parties_stay_in_their_rooms(path: Path) -> None:
    for name in imports(path):
        allowed = THIRD_PARTIES.get(name.split(".")[0])
        assert allowed is None or room_of(path) in allowed, f"{room_of(path)} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_readable_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 350


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_never_prints(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_every_room_has_its_floor() -> None:
    assert {room_of(path) for path in modules()} == set().union(*FLOORS)
