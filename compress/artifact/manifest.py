"""What a folder contains, as pure data: every file with size and SHA-256, and the digest of what runs."""

from __future__ import annotations

import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from compress.artifact import layout, strict_json
from compress.core import digest
from compress.core.errors import IntegrityError

VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST_SIZE = 2**53 - 1  # the largest integer that canonical JSON can carry


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One regular file: POSIX path relative to the folder, size in bytes, hex SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Every file of an artifact but the manifest itself, sorted by path whatever order they come in.

    Raises IntegrityError for an entry that could not stand for one safe file on every file system.
    """

    entries: tuple[Entry, ...]
    name: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", tuple(sorted(self.entries)))
        problems = [*_entry_problems(self.entries), *_collisions(entry.path for entry in self.entries)]
        if not layout.is_name(self.name):
            problems.append(f"{self.name!a} cannot name an artifact")
        if problems:
            raise IntegrityError("\n".join(problems), layout.MANIFEST)

    @property
    def subject(self) -> str:
        """Digest over the payload alone: equal for equal recipes, inputs and versions."""
        return digest.of_data([asdict(entry) for entry in self.entries if entry.path not in layout.EVIDENCE])

    @property
    def paths(self) -> frozenset[str]:
        """Every path listed."""
        return frozenset(entry.path for entry in self.entries)

    def to_json(self) -> bytes:
        """The text of compress/manifest.json: one file per line, so that two of them diff well."""
        head = {"version": VERSION, "name": self.name, "subject": self.subject}
        opening = json.dumps(head, ensure_ascii=False)[:-1]
        files = ",\n  ".join(json.dumps(asdict(entry), ensure_ascii=False) for entry in self.entries)
        return f'{opening}, "files": [\n  {files}\n]}}\n'.encode()

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """Read strictly what `to_json` writes. Raises IntegrityError."""
        where = layout.MANIFEST
        kinds = {"version": int, "name": str, "subject": str, "files": list}
        data = strict_json.fields(strict_json.parse(content, where), kinds, where)
        if data["version"] != VERSION:
            raise IntegrityError(f"format version {data['version']}; this release reads {VERSION}", where)
        kinds = {"path": str, "size": int, "sha256": str}
        files = [strict_json.fields(each, kinds, f"{where} files[{i}]") for i, each in enumerate(data["files"])]
        made = cls(tuple(Entry(**each) for each in files), data["name"])
        if data["subject"] != made.subject:
            raise IntegrityError(f"subject {data['subject']!r} is not the digest of the files it lists", where)
        return made


@dataclass(frozen=True, slots=True)
class Differences:
    """How a folder differs from its manifest; paths, for `unsafe` with the reason. False when it does not."""

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    changed: tuple[str, ...]
    unsafe: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra or self.changed or self.unsafe)

    @property
    def lines(self) -> tuple[str, ...]:
        """One line per file: `changed: onnx/model.onnx`."""
        kinds = (("missing", self.missing), ("extra", self.extra), ("changed", self.changed), ("unsafe", self.unsafe))
        return tuple(f"{kind}: {path}" for kind, paths in kinds for path in paths)


def scan(folder: Path, name: str | None = None) -> Manifest:
    """Describe a folder, by default under its own name. Raises IntegrityError naming all that is no plain file."""
    sizes, unsafe = _walk(folder)
    if unsafe:
        raise IntegrityError("\n".join(f"unsafe: {line}" for line in unsafe), str(folder))
    sizes.pop(layout.MANIFEST, None)
    entries = tuple(Entry(path, size, digest.of_file(folder / path)) for path, size in sizes.items())
    return Manifest(entries, folder.name if name is None else name)


def read(folder: Path) -> Manifest:
    """The manifest that an artifact carries. Raises IntegrityError where it is absent or malformed."""
    return Manifest.from_json(strict_json.read_bytes(folder / layout.MANIFEST))


def differences(manifest: Manifest, folder: Path) -> Differences:
    """Compare a folder with its manifest: all names, sizes and, where the size is right, all bytes."""
    sizes, unsafe = _walk(folder)
    sizes.pop(layout.MANIFEST, None)
    present = [entry for entry in manifest.entries if entry.path in sizes]
    return Differences(
        missing=tuple(entry.path for entry in manifest.entries if entry.path not in sizes),
        extra=tuple(sorted(sizes.keys() - manifest.paths)),
        changed=tuple(entry.path for entry in present if _changed(entry, sizes[entry.path], folder)),
        unsafe=unsafe,
    )


def _changed(entry: Entry, size: int, folder: Path) -> bool:
    return size != entry.size or digest.of_file(folder / entry.path) != entry.sha256


def _walk(folder: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """Plain files as path -> size, and what must not be there as 'path (reason)'. Follows no link."""
    sizes: dict[str, int] = {}
    unsafe: list[str] = []
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            found = list(os.scandir(folder / prefix))
        except OSError as error:
            unsafe.append(f"{prefix or '.'} ({error.strerror})")
            continue
        for each in found:
            path = prefix + each.name
            status = each.stat(follow_symlinks=False)
            if reason := layout.path_problem(path) or _kind_problem(status):
                unsafe.append(f"{path if path.isprintable() else ascii(path)} ({reason})")
            elif stat.S_ISDIR(status.st_mode):
                pending.append(f"{path}/")
            else:
                sizes[path] = status.st_size
    return sizes, tuple(sorted(unsafe))


def _kind_problem(status: os.stat_result) -> str:
    if stat.S_ISDIR(status.st_mode):
        return ""
    if stat.S_ISLNK(status.st_mode):
        return "symbolic link"
    if not stat.S_ISREG(status.st_mode):
        return "fifo, socket or device"
    return "hard link" if status.st_nlink != 1 else ""


def _entry_problems(entries: Iterable[Entry]) -> Iterable[str]:
    for entry in entries:
        problem = layout.path_problem(entry.path)
        if not problem and entry.path == layout.MANIFEST:
            problem = "a manifest does not list itself"
        if not problem and not _SHA256.fullmatch(entry.sha256):
            problem = "sha256 is not 64 lower-case hex digits"
        if not problem and not 0 <= entry.size <= _LARGEST_SIZE:
            problem = f"impossible size {entry.size}"
        if problem:
            yield f"{entry.path!a}: {problem}"


def _collisions(paths: Iterable[str]) -> Iterable[str]:
    """Paths that a case-insensitive or normalizing file system takes for one."""
    seen: dict[str, str] = {}
    for path in paths:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
        if key in seen:
            yield f"{seen[key]!a} and {path!a} are one file on some file systems"
        seen[key] = path
