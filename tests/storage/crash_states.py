"""The states in which a crash may leave a disk, after any operation of a record.

What POSIX lets a file system do (Pillai et al., ALICE, OSDI 2014): what was written to a file
may be lost, or partly there, until the file is synced; a new name, a rename or a removal may be
undone until its folder is synced, each without the others and in any order. A file's sync does
not save its name. Only a rename is one step.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product

from watched_disk import Operation

# The content of each file, and None for each folder, by path.
Tree = dict[str, bytes | None]
# At most so many operations are tried in all combinations.
EXHAUSTIVE = 5


@dataclass(frozen=True)
class Pending:
    """An operation that a crash may undo.

    Attributes:
        folders: Those whose sync saves it; of a write none.
        node: The file written, or what has the name.
        changes: What it does to names: (folder, name, node); no node if the name goes.
        offset: Where `content` was written; -1 cuts the file to `size`.
    """

    folders: tuple[int, ...]
    node: int
    changes: tuple[tuple[int, str, int | None], ...] = ()
    offset: int = 0
    content: bytes = b""
    size: int = 0


@dataclass
class Disk:
    """What programs see, what is safe, and what may be lost. Node 0 holds the roots."""

    seen: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})
    safe: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})
    contents: dict[int, bytes] = field(default_factory=dict)
    safe_contents: dict[int, bytes] = field(default_factory=dict)
    pending: list[Pending] = field(default_factory=list)
    handles: dict[str, int] = field(default_factory=dict)
    nodes: int = 0

    @classmethod
    def of(cls, tree: Tree) -> Disk:
        """A disk with all of a tree safely on it."""
        disk = cls()
        for path in sorted(tree):
            folder, name = disk._folder(path)
            content = tree[path]
            node = disk._new(content)
            disk.seen[folder][name] = disk.safe[folder][name] = node
        return disk

    def apply(self, operation: Operation) -> None:
        """Do what a program did."""
        match operation:
            case ("open", handle, path, created, truncated):
                folder, name = self._folder(path)
                # One that is there and yet unknown was made by a writer that is not watched.
                if created or name not in self.seen[folder]:
                    self._name(folder, name, self._new(b""))
                self.handles[handle] = self.seen[folder][name]
                if truncated:
                    self._cut(self.handles[handle], 0)
            case ("write", handle, offset, content):
                node = self.handles[handle]
                self.contents[node] = spliced(self.contents[node], offset, content)
                self.pending.append(Pending((), node, offset=offset, content=content))
            case ("truncate", handle, size):
                self._cut(self.handles[handle], size)
            case ("sync", handle):
                self._sync(self.handles[handle])
            case ("rename", source, target):
                before, after = self._folder(source), self._folder(target)
                node = self.seen[before[0]].get(before[1])
                if node is not None:
                    self._change(((*before, None), (*after, node)), node)
            case ("remove" | "remove folder", path):
                folder, name = self._folder(path)
                if name in self.seen[folder]:
                    self._name(folder, name, None)
            case ("folder", path):
                self._name(*self._folder(path), self._new(None))
            case ("sync path", path):
                folder, name = self._folder(path)
                self._sync(self.seen[folder][name])
            case ("mark", *_):
                pass
            case _:
                raise ValueError(operation)

    def tree(self) -> Tree:
        """What programs see; what a kill leaves."""
        return _tree(self.seen, self.contents)

    def content(self, path: str) -> bytes | None:
        """What programs see in a file; None if there is none."""
        folder, name = self._folder(path)
        return self.contents.get(self.seen[folder].get(name, -1))

    def crashed(self, kept: Iterable[tuple[Pending, int | None]]) -> Tree:
        """What is there if some pending operations have reached the disk.

        Args:
            kept: Each in order, with the number of bytes that a write got to; None for all of
                it, and a negative number for zeros in place of all.
        """
        names, contents = dict(self.safe), dict(self.safe_contents)
        copied: set[int] = set()
        for pending, length in kept:
            if pending.folders:
                for folder in {folder for folder, _, _ in pending.changes} - copied:
                    copied.add(folder)
                    names[folder] = dict(names[folder])
                change(names, pending)
            elif pending.offset < 0:
                contents[pending.node] = contents[pending.node][: pending.size]
            else:
                content = pending.content if length is None else pending.content[:length]
                if length is not None and length < 0:
                    content = bytes(len(pending.content))
                old = contents[pending.node]
                contents[pending.node] = spliced(old, pending.offset, content)
        return _tree(names, contents)

    def states(self, chance: random.Random, count: int) -> Iterator[Tree]:
        """At most so many states that a crash may leave now; the plain ones first."""
        if not self.pending:
            yield self.tree()
            return
        choices = [[*_lengths(p, chance)] for p in self.pending]
        if len(self.pending) <= EXHAUSTIVE:
            every = [*product(*choices)]
            chance.shuffle(every)
        else:
            every = []
        plain = [
            [None] * len(choices),
            [0 if p.folders else "lost" for p in self.pending],
        ]
        some = ([chance.choice(one) for one in choices] for _ in range(count))
        for chosen in [*plain, *every][:count] if every else [*plain, *some]:
            yield self.crashed(
                (p, c if isinstance(c, int) else None)
                for p, c in zip(self.pending, chosen, strict=True)
                if c != "lost" and not (p.folders and c == 0)
            )

    def _sync(self, node: int) -> None:
        if node in self.contents:
            self.safe_contents[node] = self.contents[node]
            self.pending = [p for p in self.pending if p.folders or p.node != node]
            return
        for pending in self.pending:
            if node in pending.folders:
                change(self.safe, pending)
        self.pending = [p for p in self.pending if node not in p.folders]

    def _folder(self, path: str) -> tuple[int, str]:
        """Return the folder's node and the name; folders that nobody made are there safely."""
        *folders, name = path.split("/")
        node = 0
        for part in folders:
            if part not in self.seen[node]:
                self.seen[node][part] = self.safe[node][part] = self._new(None)
            node = self.seen[node][part]
        return node, name

    def _new(self, content: bytes | None) -> int:
        self.nodes += 1
        if content is None:
            self.seen[self.nodes], self.safe[self.nodes] = {}, {}
        else:
            self.contents[self.nodes] = self.safe_contents[self.nodes] = content
        return self.nodes

    def _name(self, folder: int, name: str, node: int | None) -> None:
        owner = self.seen[folder][name] if node is None else node
        self._change(((folder, name, node),), owner)

    def _change(self, changes: tuple[tuple[int, str, int | None], ...], node: int) -> None:
        pending = Pending(tuple(folder for folder, _, _ in changes), node, changes)
        change(self.seen, pending)
        self.pending.append(pending)

    def _cut(self, node: int, size: int) -> None:
        self.contents[node] = self.contents[node][:size]
        self.pending.append(Pending((), node, offset=-1, size=size))


def change(names: dict[int, dict[str, int]], pending: Pending) -> None:
    """Do to names what an operation does; a removal takes only what it removed."""
    for folder, name, node in pending.changes:
        if node is not None:
            names[folder][name] = node
        elif names[folder].get(name) == pending.node:
            del names[folder][name]


def spliced(old: bytes, offset: int, content: bytes) -> bytes:
    return old[:offset].ljust(offset, b"\0") + content + old[offset + len(content) :]


def _lengths(pending: Pending, chance: random.Random) -> Iterator[int | str | None]:
    """What may have become of an operation: done, lost, torn at any byte, or zeros."""
    yield None
    if pending.folders:
        yield 0
        return
    yield "lost"
    if pending.content:
        yield -1
        yield chance.randrange(len(pending.content))


def _tree(names: dict[int, dict[str, int]], contents: dict[int, bytes]) -> Tree:
    tree: Tree = {}
    left = [("", 0)]
    while left:
        prefix, folder = left.pop()
        for name, node in names[folder].items():
            content = contents.get(node)
            tree[prefix + name] = content
            if content is None:
                left.append((f"{prefix}{name}/", node))
    return tree
