"""The only code that writes where verdicts lead (released/, blocked/, ...): work in a staging folder, one rename."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import filelock

from compress.artifact import attestation, layout, manifest, verify
from compress.core.errors import ConflictError, IntegrityError, UsageError

_STAGING = "staging"


@dataclass(frozen=True, slots=True)
class Store:
    """An output root with its folders staging/, released/, blocked/, waived/ and ungated/."""

    root: Path

    @contextmanager
    def stage(self, name: str) -> Iterator[Staging]:
        """Lend an empty folder to build artifact `name` in; whatever was not settled is gone afterwards.

        Raises UsageError for a name that is no plain file name, ConflictError while another run builds it.
        """
        if not layout.is_name(name):
            raise UsageError(
                f"{name!r} cannot name an artifact", hint="use letters, digits, '_', '-' and '.', at most 100"
            )
        home = self.root / _STAGING
        home.mkdir(parents=True, exist_ok=True)
        with _held(home / f".{name}.lock", name):
            self._recover(name)
            folder = home / f"{name}-{secrets.token_hex(4)}"
            try:
                folder.mkdir()
                yield Staging(self.root, name, folder)
            finally:
                _remove(folder)

    def _recover(self, name: str) -> None:
        """Clear what a killed run of this name left; the lock, which dies with its process, says that none lives."""
        left = re.compile(re.escape(name) + r"-[0-9a-f]{8}(?:\.(released|ungated)|\.(?:blocked|waived))?")
        for path in (self.root / _STAGING).iterdir():
            if not (found := left.fullmatch(path.name)):
                continue
            if found[1] and not os.path.lexists(target := self.root / found[1] / name):
                path.rename(target)  # killed between the two renames of a replacement: the old artifact goes back
            else:
                _remove(path)


@dataclass(frozen=True, slots=True)
class Staging:
    """A folder that becomes an artifact when it is settled. Made by `Store.stage`."""

    root: Path
    name: str
    folder: Path

    def path(self, relative: str) -> Path:
        """Where a file of the artifact goes, its folder made. Raises IntegrityError if that is not inside."""
        if problem := layout.path_problem(relative):
            raise IntegrityError(problem, ascii(relative))
        made = self.folder / relative
        made.parent.mkdir(parents=True, exist_ok=True)
        return made

    def write(self, relative: str, content: bytes) -> Path:
        """Write one file of the artifact."""
        path = self.path(relative)
        write_file(path, content)
        return path

    def scan(self) -> manifest.Manifest:
        """What the folder holds now; its `subject` is the digest that the gate report must carry."""
        return manifest.scan(self.folder, self.name)

    def settle(self, status: layout.Status, replace: bool = False) -> Path:
        """Publish or block: complete the folder, then rename it to where `status` leads; returns that path.

        A name taken by the same payload keeps the artifact that is there. Raises ConflictError if it is taken by
        another one, or by one without this signature, and not `replace`; IntegrityError if the gate report in the
        folder does not support `status`.
        """
        files = self.scan()
        stated = verify.judge(self.folder, files).status
        if stated != status:
            raise IntegrityError(f"asked to settle as {status}, but the gate report says {stated}", str(self.folder))
        self.write(layout.MANIFEST, files.to_json())
        _sync_tree(self.folder, files)

        blocked = layout.PLACES[status] in ("blocked", "waived")  # many of one name: they go by their digest
        target = self.root / layout.PLACES[status] / (f"{self.name}-{files.subject[:8]}" if blocked else self.name)
        target.parent.mkdir(exist_ok=True)
        if not os.path.lexists(target):
            self._publish(target)
        elif replace or blocked:
            aside = self.folder.with_name(f"{self.folder.name}.{target.parent.name}")
            target.rename(aside)
            self._publish(target)
            _remove(aside)
        elif not _holds(target, files.subject):
            raise ConflictError(
                f"{self.name!r} is taken by a different artifact",
                str(target),
                "pass --replace, or choose another name or --output",
            )
        elif (claim := attestation.claim(self.folder)) and claim != attestation.claim(target):
            hint = "`compress sign` signs the one that is there; --replace puts this one in its place"
            raise ConflictError(f"{self.name!r} is there already, and not signed like this", str(target), hint)
        return target

    def _publish(self, target: Path) -> None:
        self.folder.rename(target)
        _sync(target.parent)


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that, whatever happens, it is absent, old or complete. Raises OSError naming the file."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with draft.open("xb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        draft.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a failed write does not say where
        raise
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _held(lock: Path, name: str) -> Iterator[None]:
    try:
        held = filelock.FileLock(lock).acquire(blocking=False)
    except filelock.Timeout as error:
        hint = "wait for it to end, or choose another name or --output"
        raise ConflictError(f"another run is building {name!r}", str(lock), hint) from error
    with held:
        yield


def _holds(target: Path, subject: str) -> bool:
    """Whether an intact artifact with this payload is there."""
    with suppress(IntegrityError, OSError):
        there = manifest.read(target)
        return there.subject == subject and not manifest.differences(there, target)
    return False


def _sync_tree(folder: Path, files: manifest.Manifest) -> None:
    """Force everything to the disk: after a power cut the rename must not be all that is left."""
    paths = [folder / path for path in (*files.paths, layout.MANIFEST)]
    folders = {parent for path in paths for parent in path.parents if parent.is_relative_to(folder)}
    for path in (*paths, *folders):
        _sync(path)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
