"""What is on a disk when the power goes: all that was brought there, and of the rest anything.

    disk = Disk(folder, chance)         # what is there now is on disk
    with disk.recording(patch):
        disk.cut_at({3: [target]})      # at the third call, leave in `target` what a power cut would
        ...

A file's bytes and length are on disk once it was synced, a name once its folder was: then they are as they
were at that moment. What came later is there wholly, in part (sectors of 512 bytes), or not at all, and each
change of a name by itself, whatever came before it. A rename is there or not: never both names, or none.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from layerprobe.formats import disk as system
from layerprobe.formats import pending

SECTOR = 512

Key = tuple[int, int]
"""Of a file or a folder, whatever it is called: device and number."""


@dataclass
class _File:
    descriptor: int
    """Kept open: so its number is not given to another file."""
    durable: bytes

    def now(self) -> bytes:
        return os.pread(self.descriptor, os.fstat(self.descriptor).st_size, 0)


@dataclass
class _Folder:
    descriptor: int
    durable: dict[str, Key]
    now: dict[str, Key]
    changes: list[dict[str, Key | None]] = field(default_factory=list)
    """Since the folder was synced: each is there as a whole or not, and gives names a new meaning or none."""

    def change(self, names: dict[str, Key | None]) -> None:
        self.changes.append(names)
        self.now = _changed(self.now, names)


class Disk:
    """A folder, and what of it is on disk.

    Args:
        folder: Everything in it, and below, is on disk now.
        chance: Decides what is left.
    """

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._chance = chance
        self._nodes: dict[Key, _File | _Folder] = {}
        self._folder = folder
        self._root = self._take(str(folder), durable=True)
        self.calls = 0
        """So many calls changed what is on disk, or what it is called."""
        self._cuts: Mapping[int, Sequence[Path]] = {}
        self._leaving = False
        """Whether what changes now is what is left somewhere."""

    def cut_at(
        self, cuts: Mapping[int, Sequence[Path]], told: Callable[[Path], object] = lambda _: None
    ) -> None:
        """Say at which calls, from 1, what could be left is to be put where; `told` is called then."""
        self._cuts, self._told = cuts, told

    @contextmanager
    def recording(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        """Watch what this process does; nothing is really brought to disk meanwhile."""
        with patch.context() as context:
            for name in ("fsync", "fdatasync"):
                context.setattr(os, name, self._synced)
            for name in ("rename", "replace"):
                context.setattr(os, name, self._renaming(getattr(os, name)))
            for name in ("unlink", "mkdir", "rmdir"):
                context.setattr(os, name, self._watched(getattr(os, name)))
            context.setattr(pending, "exchange", self._exchanging(system.exchange))
            yield
        self._call()

    def close(self) -> None:
        """Let the files go."""
        for node in self._nodes.values():
            os.close(node.descriptor)

    def _call(self) -> None:
        """What is on disk, or called so, is about to change."""
        if self._leaving:
            return
        self._look(str(self._folder), self._root)
        self.calls += 1
        self._leaving = True
        for target in self._cuts.get(self.calls, ()):
            self._leave(self._root, target)
            self._told(target)
        self._leaving = False

    def _synced(self, descriptor: int) -> None:
        self._call()
        node = self._nodes.get(_key(os.fstat(descriptor)))
        if isinstance(node, _File):
            node.durable = node.now()
        elif node is not None:
            node.durable, node.changes = dict(node.now), []

    def _watched(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self._call()
            return original(*args, **options)

        return call

    def _renaming(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: Any, target: Any) -> None:
            self._call()
            original(source, target)
            if (found := self._parent(source)) is not None:
                assert found is self._parent(target)
                names: dict[str, Key | None] = {os.path.basename(source): None}
                found.change({**names, os.path.basename(target): _key(os.lstat(target))})

        return call

    def _exchanging(self, original: Callable[..., bool]) -> Callable[..., bool]:
        def call(first: str, second: str) -> bool:
            self._call()
            done = original(first, second)
            found = self._parent(first)
            if done and found is not None:
                found.change({os.path.basename(name): _key(os.lstat(name)) for name in (first, second)})
            return done

        return call

    def _parent(self, path: Any) -> _Folder | None:
        found = self._nodes.get(_key(os.stat(os.path.dirname(path) or ".")))
        assert found is None or isinstance(found, _Folder)
        return found

    def _take(self, path: str, durable: bool) -> Key:
        """Get to know a file or a folder."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        key = _key(os.fstat(descriptor))
        if key in self._nodes:
            os.close(descriptor)
        elif os.path.isdir(path):
            names = {name: self._take(f"{path}/{name}", durable) for name in os.listdir(path)}
            new = _Folder(descriptor, dict(names) if durable else {}, dict(names))
            new.changes = [] if durable else [{name: child} for name, child in names.items()]
            self._nodes[key] = new
        else:
            file = _File(descriptor, b"")
            file.durable = file.now() if durable else b""
            self._nodes[key] = file
        return key

    def _look(self, path: str, key: Key) -> None:
        """Note what is new and what is gone in a folder, and below."""
        folder = self._nodes[key]
        assert isinstance(folder, _Folder)
        found = {name: self._take(f"{path}/{name}", durable=False) for name in os.listdir(path)}
        for name in sorted({*found, *folder.now}):
            if found.get(name) != folder.now.get(name):
                folder.change({name: found.get(name)})
        for name, child in found.items():
            if isinstance(self._nodes[child], _Folder):
                self._look(f"{path}/{name}", child)

    def _leave(self, key: Key, target: Path) -> None:
        """Put what is left where it can be gone on with."""
        # Of each file and each folder all, nothing or some: so any of them may be ahead of the others.
        node, share = self._nodes[key], self._chance.choice([0.0, 1.0, self._chance.random()])
        if isinstance(node, _File):
            target.write_bytes(self._mixed(node.durable, node.now(), share))
            return
        target.mkdir()
        names = dict(node.durable)
        for change in node.changes:
            if self._chance.random() < share:
                names = _changed(names, change)
        for name, child in names.items():
            self._leave(child, target / name)

    def _mixed(self, durable: bytes, now: bytes, share: float) -> bytes:
        """Some sectors as they are now, the others as they were; of one of the two lengths, or between."""
        sizes = sorted([len(durable), len(now)])
        size = self._chance.choice([len(durable), len(now), self._chance.randint(*sizes)])
        if share in (0, 1):
            size = len(now) if share else len(durable)
        mixed = bytearray(size)
        for start in range(0, size, SECTOR):
            part = (now if self._chance.random() < share else durable)[start : min(start + SECTOR, size)]
            mixed[start : start + len(part)] = part
        return bytes(mixed)


def _key(found: os.stat_result) -> Key:
    return found.st_dev, found.st_ino


def _changed(names: Mapping[str, Key], change: Mapping[str, Key | None]) -> dict[str, Key]:
    return {name: key for name, key in {**names, **change}.items() if key is not None}
