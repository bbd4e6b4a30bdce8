"""Linting: every rule of a target on every file, in a child process, because a graph from elsewhere is opened there."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx

from compress.core import names
from compress.core.errors import UsageError
from compress.core.progress import Silent
from compress.data import child
from compress.data.child import Channel, Data, Limits
from compress.targets.lint.finding import Finding
from compress.targets.lint.view import Shapes, View

_FOLDER = "compress.targets.lint"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a rule is called, what it wants, and why."""

    id: str
    what: str
    why: str


def linted() -> tuple[str, ...]:
    """Targets that have rules, as a recipe writes them."""
    folders = (name.split(".")[0] for name in names.available(_FOLDER) if "." in name)
    return tuple(dict.fromkeys(folder.replace("_", "-") for folder in folders))


def catalogue(target: str) -> tuple[Rule, ...]:
    """The rules of a target in the order of their ids."""
    modules = (names.load(_FOLDER, name) for name in _rules(target))
    made = (Rule(each.ID, (each.__doc__ or "").strip(), each.WHY) for each in modules)
    return tuple(sorted(made, key=lambda rule: rule.id))


def lint(target: str, files: Mapping[Path, Shapes | None]) -> dict[Path, tuple[Finding, ...]]:
    """Findings by file. Each file comes with its profile shapes by input, None where there are none.

    Raises UsageError for what is no ONNX file.
    """
    listed = list(files)
    request = {"target": target, "files": [[str(path.resolve()), files[path]] for path in listed]}
    told = child.run("compress.targets.lint.check", request, Limits.of_machine(), Silent(), "lint")
    made = [tuple(Finding(**each) for each in found) for found in told["findings"]]
    return dict(zip(listed, made, strict=True))


def findings(target: str, view: View) -> Iterator[Finding]:
    """What the rules of a target find in one graph."""
    for name in _rules(target):
        yield from names.load(_FOLDER, name).find(view)


def _rules(target: str) -> list[str]:
    folder = f"{target.replace('-', '_')}."
    found = [name for name in names.available(_FOLDER) if name.startswith(folder)]
    if not found:
        raise UsageError(f"there are no rules for {target!r}", "--target", names.did_you_mean(target, linted()))
    return found


def work(request: Data, channel: Channel) -> Data:  # noqa: ARG001  (every child's work has one signature)
    """Lint `files`, pairs of a path and its profile shapes; findings in the same order."""
    made = []
    for path, shapes in request["files"]:
        try:
            model = onnx.load(path, load_external_data=False)
        except Exception as error:  # protobuf raises a class of its own, files that are none of it others
            raise UsageError(f"not an ONNX file: {error}", Path(path).name) from error
        found = sorted(findings(request["target"], View(model, shapes)), key=lambda each: each.rule)
        made.append([asdict(each) for each in found])
    return {"findings": made}


if __name__ == "__main__":
    sys.exit(child.serve(work))
