"""The package: metadata in one place, pins for every Python, a wheel that works anywhere, Make's stamps."""

import configparser
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parents[2]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
DATA = ("recipes", "evals", "pocket_clip")


def setup():
    read = configparser.ConfigParser()
    read.read(HERE / "setup.cfg")
    return read


def requirements():
    """What the package, its runtime extra and its tests ask for."""
    read = setup()
    told = "\n".join([read["options"]["install_requires"], *read["options.extras_require"].values()])
    return [Requirement(line) for line in map(str.strip, told.splitlines()) if line and not line.startswith("#")]


def pins(python):
    """Name -> version that the constraints give a Python."""
    lines = (line for line in (HERE / "constraints.txt").read_text().splitlines() if not line.startswith("#"))
    found = [each for each in map(Requirement, lines) if holds(each, python)]
    made = {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in found}
    assert len(made) == len(found), "something is pinned twice"
    return made


def holds(requirement, python):
    return requirement.marker is None or requirement.marker.evaluate({"python_version": python, "extra": ""})


@pytest.mark.parametrize("python", PYTHONS)
def test_what_is_required_is_pinned_for_every_python(python):
    pinned = pins(python)
    for each in requirements():
        if holds(each, python):
            assert pinned[canonicalize_name(each.name)] in each.specifier, each


def test_metadata_stand_in_setup_cfg_alone():
    tables = [line for line in (HERE / "pyproject.toml").read_text().splitlines() if line.startswith("[")]
    assert tables == ["[build-system]"]
    assert setup()["options"]["python_requires"] == f">={PYTHONS[0]}"


def shipped():
    """Every data file of the checkout, by its place in the wheel."""
    bundled = HERE / "compress" / "bundled"
    files = [path for name in DATA for path in (bundled / name).rglob("*") if path.is_file()]
    files += [*HERE.glob("compress/report/*.jinja"), *HERE.glob("compress/report/*.css"), HERE / "compress/py.typed"]
    return {path.relative_to(HERE).as_posix(): path for path in files}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the source distribution as an index would."""
    place = tmp_path_factory.mktemp("build")
    source = place / "source"
    left = shutil.ignore_patterns("__pycache__", "*.egg-info")
    source.mkdir()
    for name in ("compress", "recipes", "evals"):
        shutil.copytree(HERE / name, source / name, symlinks=True, ignore=left)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(HERE / name, source)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place / "dist"), str(source)]
    ran = subprocess.run(build, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(list((place / "dist").glob("*.tar.gz"))) == 1
    (made,) = (place / "dist").glob("*.whl")
    return made


@pytest.mark.slow
def test_the_wheel_holds_every_file(wheel):
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
        for name, path in shipped().items():
            assert opened.read(name) == path.read_bytes(), name
        for path in HERE.glob("compress/**/*.py"):
            assert path.relative_to(HERE).as_posix() in names
        (metadata,) = (opened.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {"compress"} == {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert "License-Expression: Apache-2.0" in metadata


PROBE = """
import json, compress
from compress.core import names
from compress.evals.task import task_names
from compress.models.source import Access, check_folder, locate
folder = locate("pocket-clip", Access())
print(json.dumps({
    "package": compress.__file__, "tasks": task_names(), "model": str(folder),
    "options": check_folder(folder, Access()),
    "policies": sorted(path.stem for path in names.bundled("evals", "policies").glob("*.yaml")),
}))
"""


@pytest.mark.slow
def test_it_works_installed_elsewhere(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}  # before the checkout that the tests run from

    def run(*words):
        ran = subprocess.run(words, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    told = json.loads(run(sys.executable, "-c", PROBE))
    assert Path(told["package"]).is_relative_to(site)
    assert Path(told["model"]).is_relative_to(site)
    assert told["tasks"] == sorted(path.stem for path in (HERE / "evals/tasks").glob("*.yaml"))
    assert told["policies"] == sorted(path.stem for path in (HERE / "evals/policies").glob("*.yaml"))

    compress = (sys.executable, str(site / "bin" / "compress"))
    recipes = [each["name"] for each in json.loads(run(*compress, "recipe", "list", "--json"))]
    root = HERE / "recipes"
    assert sorted(recipes) == sorted(each.relative_to(root).with_suffix("").as_posix() for each in root.rglob("*.yaml"))
    for report in json.loads(run(*compress, "recipe", "check", *recipes, "int4_clip.yaml", "--json")):
        assert report["ok"], report


PIP = """#!/bin/sh
echo "$@" >> {calls}
exit $(cat {code})
"""


def make(folder, stamp):
    """Make with a Python that notes what it is asked for and ends as it is told."""
    words = ["make", f"VENV={folder}/venv", f"PYTHON={folder}/python", f"{folder}/venv/{stamp}"]
    return subprocess.run(words, cwd=HERE, capture_output=True, text=True, check=False)


@pytest.fixture
def stub(tmp_path):
    """A `python` whose virtual environments hold a copy of it."""
    (tmp_path / "code").write_text("0")
    program = tmp_path / "python"
    program.write_text(PIP.format(calls=tmp_path / "calls", code=tmp_path / "code"))
    program.chmod(0o755)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    shutil.copy(program, tmp_path / "venv" / "bin" / "python")
    return tmp_path


def test_make_installs_once(stub):
    assert make(stub, ".dev").returncode == 0
    calls = (stub / "calls").read_text()
    assert calls.count("pip install") == 2
    assert calls.count("-c constraints.txt") == 2
    assert make(stub, ".dev").returncode == 0
    assert (stub / "calls").read_text() == calls


def test_make_leaves_no_stamp_behind_a_failure(stub):
    assert make(stub, ".made").returncode == 0
    (stub / "code").write_text("1")
    assert make(stub, ".cpu").returncode != 0
    assert not (stub / "venv" / ".cpu").exists()
    (stub / "code").write_text("0")
    assert make(stub, ".cpu").returncode == 0
    assert (stub / "venv" / ".cpu").exists()


def test_make_tells_which_python_it_needs(stub):
    (stub / "code").write_text("1")  # what an old one ends with when it is asked for its version
    ran = make(stub, ".made")
    assert ran.returncode != 0
    assert "needs Python 3.10 or newer" in ran.stderr
    assert not (stub / "venv" / ".made").exists()
