"""A disk in memory that forgets: what was not synced may be gone after a power cut, or half there, in any mixture.

It has the methods of ``edge.device.disk.Disk``. Every call that changes something counts as one operation; the power
is cut in the operation that the test names, which is then torn. A file's bytes and a folder's names are kept apart, as
file systems do: a name may outlive the bytes that it was made for, and the other way round.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from dataclasses import dataclass, field


class PowerCut(BaseException):
    """The power is gone. No Exception: nothing may catch it and tidy up."""


class Loss(enum.Enum):
    """What a power cut takes of the operations that were not synced."""

    NOTHING = "nothing"
    """All of them stay: what a killed process leaves."""
    EVERYTHING = "everything"
    """All of them are gone."""
    ANYTHING = "anything"
    """Each of them stays, goes or is torn, by chance."""


@dataclass
class _File:
    now: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # (offset, bytes), or (size, None): a cut
    links: int = 0
    is_executable: bool = False
    was_executable: bool = False


@dataclass
class _Folder:
    now: dict[str, _Node] = field(default_factory=dict)
    synced: dict[str, _Node] = field(default_factory=dict)
    pending: list[dict[str, _Node | None]] = field(default_factory=list)  # each entry is atomic

    def change(self, names: dict[str, _Node | None]) -> None:
        self.pending.append(names)
        _apply(self.now, names)


_Node = _File | _Folder


class MemoryDisk:
    """A disk whose power can be cut.

    Args:
        capacity: bytes of all files together; a write above it raises OSError(ENOSPC).
    """

    def __init__(self, capacity: int = 1 << 30) -> None:
        self._root = _Folder()
        self._capacity = capacity
        self.operations = 0
        """Changing calls so far."""
        self.cut_at: int | None = None
        """The operation in which the power goes, counted as `operations` is."""
        self.is_dead = False

    # ------------------------------------------------------------------ looking

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""
        node = self._find(name)
        return len(node.now) if isinstance(node, _File) else None

    def names(self, folder: str) -> list[str]:
        """What is in a folder, sorted."""
        return sorted(self._folder(folder).now)

    def read(self, name: str, offset: int = 0, size: int = -1) -> bytes:
        """Bytes of a file from `offset` on."""
        data = self._file(name).now
        return bytes(data[offset:] if size < 0 else data[offset : offset + size])

    def is_same(self, one: str, other: str) -> bool:
        """Whether both names are there and mean one file."""
        node = self._find(one)
        return node is not None and node is self._find(other)

    def links(self, name: str) -> int:
        """How many names a file has."""
        return self._file(name).links

    def is_executable(self, name: str) -> bool:
        """Whether a file may be run."""
        return self._file(name).is_executable

    def free(self) -> int:
        """Bytes that still fit."""
        self._check_power()
        return self._capacity - _held(self._root, set())

    # ------------------------------------------------------------------ changing

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Put bytes at `offset`; torn by a power cut, half of them are in the cache."""
        node = self._find(name)
        if node is not None and not isinstance(node, _File):
            raise IsADirectoryError(name)
        growth = offset + len(data) - (len(node.now) if node is not None else 0)
        if growth > self.free():
            raise OSError(28, "No space left on device", name)
        is_cut = self._count()
        if node is None:
            folder, last = self._place(name)
            node = _File(links=1)
            folder.change({last: node})
        kept = data[: len(data) // 2] if is_cut else data
        _put(node.now, offset, kept)
        node.pending.append((offset, bytes(kept)))
        self._cut_if(is_cut)

    def cut(self, name: str, size: int) -> None:
        """Shorten a file."""
        node = self._file(name)
        self._count_and_cut()
        del node.now[size:]
        node.pending.append((size, None))

    def sync(self, name: str) -> None:
        """Make a file's bytes, or a folder's names, durable."""
        node = self._find(name)
        if node is None:
            raise FileNotFoundError(name)
        self._count_and_cut()
        if isinstance(node, _File):
            node.synced, node.was_executable = bytes(node.now), node.is_executable
        else:
            node.synced = dict(node.now)
        node.pending.clear()

    def rename(self, source: str, target: str) -> None:
        """Give a file or folder another name. Across folders the two names may come apart in a power cut."""
        node = self._find(source)
        if node is None:
            raise FileNotFoundError(source)
        (from_folder, from_name), (to_folder, to_name) = self._place(source), self._place(target)
        old = to_folder.now.get(to_name)
        if isinstance(old, _Folder):
            raise OSError(39, "Directory not empty", target)
        self._count_and_cut()
        if old is not None:
            old.links -= 1
        if from_folder is to_folder:
            from_folder.change({from_name: None, to_name: node})
        else:
            to_folder.change({to_name: node})
            from_folder.change({from_name: None})

    def link(self, source: str, target: str) -> None:
        """Give a file one more name."""
        node = self._file(source)
        folder, last = self._place(target)
        if last in folder.now:
            raise FileExistsError(target)
        self._count_and_cut()
        node.links += 1
        folder.change({last: node})

    def remove(self, name: str) -> None:
        """Take a name away."""
        node = self._file(name)
        folder, last = self._place(name)
        self._count_and_cut()
        node.links -= 1
        folder.change({last: None})

    def allow_execution(self, name: str) -> None:
        """Let a file be run; durable when the file is synced."""
        node = self._file(name)
        self._count_and_cut()
        node.is_executable = True

    def make_folder(self, name: str) -> None:
        """Make a folder."""
        folder, last = self._place(name)
        if last in folder.now:
            raise FileExistsError(name)
        self._count_and_cut()
        folder.change({last: _Folder()})

    def remove_folder(self, name: str) -> None:
        """Remove an empty folder."""
        if self._folder(name).now:
            raise OSError(39, "Directory not empty", name)
        folder, last = self._place(name)
        self._count_and_cut()
        folder.change({last: None})

    # ------------------------------------------------------------------ power

    def cut_power(self) -> None:
        """The power goes now; every call raises PowerCut until `restart`."""
        self.is_dead = True

    def restart(self, loss: Loss = Loss.ANYTHING, chance: random.Random | None = None) -> None:
        """The power comes back: what was synced is here, of the rest what `loss` leaves.

        Args:
            loss: what is taken.
            chance: decides for Loss.ANYTHING; seeded by the caller.
        """
        keeps: Callable[[], bool]
        if loss is Loss.ANYTHING:
            drawn = chance or random.Random(0)  # noqa: S311  a simulation wants the same numbers again
            keeps = lambda: drawn.random() < 0.5  # noqa: E731
        else:
            keeps = lambda: loss is Loss.NOTHING  # noqa: E731
        _settle(self._root, keeps, set())
        _count_links(self._root)
        self.is_dead = False
        self.cut_at = None

    # ------------------------------------------------------------------ inside

    def _check_power(self) -> None:
        if self.is_dead:
            raise PowerCut

    def _count(self) -> bool:
        self.operations += 1
        return self.cut_at is not None and self.operations >= self.cut_at

    def _cut_if(self, is_cut: bool) -> None:
        if is_cut:
            self.is_dead = True
            raise PowerCut

    def _count_and_cut(self) -> None:
        self._cut_if(self._count())

    def _find(self, name: str) -> _Node | None:
        self._check_power()
        node: _Node | None = self._root
        for part in filter(None, name.split("/")):
            node = node.now.get(part) if isinstance(node, _Folder) else None
        return node

    def _file(self, name: str) -> _File:
        node = self._find(name)
        if not isinstance(node, _File):
            raise FileNotFoundError(name)
        return node

    def _folder(self, name: str) -> _Folder:
        node = self._find(name)
        if not isinstance(node, _Folder):
            raise NotADirectoryError(name)
        return node

    def _place(self, name: str) -> tuple[_Folder, str]:
        folder, _, last = name.rpartition("/")
        return self._folder(folder), last


def _put(data: bytearray, offset: int, new: bytes) -> None:
    data.extend(bytes(max(0, offset - len(data))))
    data[offset : offset + len(new)] = new


def _apply(names: dict[str, _Node], change: dict[str, _Node | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _held(node: _Node, seen: set[int]) -> int:
    """Bytes of every file once, however many names it has."""
    if isinstance(node, _Folder):
        return sum(_held(child, seen) for child in node.now.values())
    if id(node) in seen:
        return 0
    seen.add(id(node))
    return len(node.now)


def _settle(node: _Node, keeps: Callable[[], bool], seen: set[int]) -> None:
    """What a power cut leaves of a node and of everything that is or was below it."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, _Folder):
        names = dict(node.synced)
        for change in node.pending:
            if keeps():
                _apply(names, change)
        node.now, node.synced = names, dict(names)
        for child in names.values():
            _settle(child, keeps, seen)
    else:
        data = bytearray(node.synced)
        for offset, new in node.pending:
            if not keeps():
                continue
            if new is None:
                del data[offset:]
            else:
                _put(data, offset, new if keeps() else new[: len(new) // 2])
        node.now, node.synced = data, bytes(data)
        node.is_executable = node.was_executable = node.is_executable if keeps() else node.was_executable
    node.pending.clear()


def _count_links(root: _Folder) -> None:
    files: dict[int, _File] = {}
    counts: dict[int, int] = {}

    def visit(folder: _Folder) -> None:
        for child in folder.now.values():
            if isinstance(child, _Folder):
                visit(child)
            else:
                files[id(child)] = child
                counts[id(child)] = counts.get(id(child), 0) + 1

    visit(root)
    for key, file in files.items():
        file.links = counts[key]
