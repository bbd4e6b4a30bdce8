"""What compress needs and what this machine has. Nothing here fails because something is not installed."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

from compress.core import names

Status = Literal["ok", "warning", "missing"]
_DISTRIBUTION: Final = "compress-encoders"
_RUNTIMES: Final = ("onnxruntime", "onnxruntime-gpu")
_REQUIREMENT: Final = re.compile(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*(?:>=\s*([0-9][0-9.]*))?[^;]*(;.*)?")
_FEATURES: Final = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
_FAST: Final = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
"""Instructions that multiply 8-bit integers: without one of them int8 is small, but hardly fast."""

_LITTLE_DISK: Final = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what was found, and what to do if that is not enough."""

    name: str
    status: Status
    found: str
    hint: str = ""


def examine(output: Path) -> tuple[Check, ...]:
    """Everything there is to check."""
    return (*packages(), *clashes(), _providers(), *_machine(output), *_bundled())


def packages() -> Iterator[Check]:
    """Python and every required package against the floor that the installed metadata state."""
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    try:
        needed = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield Check(_DISTRIBUTION, "missing", "not installed", "pip install -e '.[cpu]' in the source tree")
        return
    floors = {}
    for line in needed:
        name, floor, marker = parsed(line)
        if name in _RUNTIMES or "extra" not in marker:
            floors[name] = floor
    for name, floor in floors.items():
        if name not in _RUNTIMES:
            yield _package(name, floor)
    yield _runtime(floors.get("onnxruntime", ""))


def parsed(requirement: str) -> tuple[str, str, str]:
    """Name, floor ('' if none) and marker of a line such as `onnxruntime>=1.24.4; extra == "cpu"`."""
    found = _REQUIREMENT.match(requirement)
    return (found[1].lower(), found[2] or "", found[3] or "") if found else (requirement, "", "")


def version(name: str) -> str | None:
    """The installed version of a distribution, None where it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def older(found: str, floor: str) -> bool:
    """Whether a version is below a floor, by the numbers of its release alone."""
    return _release(found) < _release(floor)


def _release(text: str) -> tuple[int, ...]:
    numbers = re.match(r"[0-9]+(\.[0-9]+)*", text)
    told = [int(part) for part in numbers[0].split(".")] if numbers else []
    while told and told[-1] == 0:
        told.pop()  # 2.0 is 2
    return tuple(told)


def _package(name: str, floor: str) -> Check:
    found = version(name)
    if found is None:
        return Check(
            name, "missing", "not installed", f"pip install '{name}>={floor}'" if floor else f"pip install {name}"
        )
    if floor and older(found, floor):
        return Check(name, "missing", f"{found}, needs {floor}", f"pip install '{name}>={floor}'")
    return Check(name, "ok", f"{found} (needs {floor})" if floor else found)


def _runtime(floor: str) -> Check:
    """Some ONNX Runtime, whichever it is."""
    there = [name for name in _RUNTIMES if version(name) is not None]
    return _package(there[0] if there else _RUNTIMES[0], floor)


def clashes() -> Iterator[Check]:
    """Packages that are all right alone and not together."""
    both = {name: found for name in _RUNTIMES if (found := version(name)) is not None}
    if len(both) > 1:
        told = " and ".join(f"{name} {found}" for name, found in both.items())
        yield Check("clash", "warning", told, "they overwrite each other's files: uninstall both, install one")
    exporter, transformers = version("optimum-onnx"), version("transformers")
    if exporter is not None and transformers is not None and not older(transformers, "4.58"):
        told = f"optimum-onnx {exporter} and transformers {transformers}"
        yield Check("clash", "warning", told, "it needs transformers < 4.58: keep it in an environment of its own")


def _providers() -> Check:
    try:
        import onnxruntime

        offered = onnxruntime.get_available_providers()
    except Exception as error:  # a broken wheel raises whatever it likes
        return Check("providers", "missing", f"onnxruntime does not load: {error}", "install the extra [cpu] again")
    return Check("providers", "ok", ", ".join(offered))


def _machine(output: Path) -> Iterator[Check]:
    flags = cpu_flags(Path("/proc/cpuinfo"))
    told = ", ".join(name for name in (*_FEATURES, "asimddp") if name in flags) or "none that is looked for"
    slow = "no integer dot product: int8 will be small, but hardly faster than float"
    yield Check("cpu features", "ok" if flags & _FAST else "warning", told, "" if flags & _FAST else slow)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Check("cores", "ok", f"{usable} usable of {os.cpu_count()}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Check("memory", "ok", f"{memory / 1e9:.1f} GB")
    nearest = next(each for each in (output.absolute(), *output.absolute().parents) if each.is_dir())
    free = shutil.disk_usage(nearest).free
    little = free < _LITTLE_DISK
    yield Check("disk", "warning" if little else "ok", f"{free / 1e9:.1f} GB free for {output}",
                "a run holds the float reference, a staged copy and the artifact" if little else "")  # fmt: skip
    if not os.access(nearest, os.W_OK):
        yield Check("output", "missing", f"{nearest} cannot be written", "choose another --output")


def cpu_flags(file: Path) -> set[str]:
    """Instruction set extensions as the kernel names them; none where it does not say."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return set()
    told = next((line for line in lines if line.split(":")[0].strip() in {"flags", "Features"}), "")
    return set(told.partition(":")[2].split())


def _bundled() -> Iterator[Check]:
    weights = names.bundled("pocket_clip", "model.safetensors")
    recipes = sorted(path.stem for path in names.bundled("recipes").glob("*.yaml"))
    again = "the installation is not whole: install compress-encoders again"
    here = weights.is_file()
    yield Check("pocket-clip", "ok" if here else "missing", f"{weights.stat().st_size / 1e6:.1f} MB" if here else
                "not found", "" if here else again)  # fmt: skip
    yield Check("recipes", "ok" if recipes else "missing", ", ".join(recipes) or "not found", "" if recipes else again)
