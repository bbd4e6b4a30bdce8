"""The doctor tells what is missing, too old or in each other's way, and never falls over it."""

import json
import subprocess
import sys
from importlib import metadata

import pytest

from compress.cli import health
from compress.cli.main import main

REQUIRES = [
    "click>=8.1",
    "securesystemslib[crypto]>=1.1",
    'onnxruntime>=1.24.4; extra == "cpu"',
    'ruff>=0.8; extra == "dev"',
]
INSTALLED = {"click": "8.1.0", "securesystemslib": "1.10", "onnxruntime": "1.24.4"}


@pytest.fixture
def machine(monkeypatch):
    """Replaces what is installed; a version of None takes a package away."""

    def install(**changes):
        there = {**INSTALLED, **{name.replace("_", "-"): version for name, version in changes.items()}}

        def version(name):
            if there.get(name) is None:
                raise metadata.PackageNotFoundError(name)
            return there[name]

        monkeypatch.setattr(health.metadata, "version", version)
        monkeypatch.setattr(health.metadata, "requires", lambda name: REQUIRES)

    install()
    return install


def by_name(checks):
    return {each.name: each for each in checks}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("click>=8.1", ("click", "8.1", "")),
        ("securesystemslib[crypto]>=1.1", ("securesystemslib", "1.1", "")),
        ('onnxruntime>=1.24.4; extra == "cpu"', ("onnxruntime", "1.24.4", '; extra == "cpu"')),
        ("PyYAML", ("pyyaml", "", "")),
        ("a>=1.0,<2", ("a", "1.0", "")),
        ("ruamel.yaml >= 0.18.6 ; python_version > '3'", ("ruamel.yaml", "0.18.6", "; python_version > '3'")),
    ],
)
def test_requirement_lines(line, expected):
    assert health.parsed(line) == expected


@pytest.mark.parametrize(
    ("found", "floor", "older"),
    [
        ("2.6.0", "2.6", False),
        ("2.6", "2.6.0", False),
        ("2.13.0+cpu", "2.6", False),
        ("2.5.9", "2.6", True),
        ("1.10", "1.9", False),
        ("5.3.0.dev0", "5.3", False),
    ],
)
def test_versions(found, floor, older):
    assert health.older(found, floor) is older


def test_all_is_well(machine):
    checks = [*health.packages(), *health.clashes()]
    assert [(each.name, each.status) for each in checks[1:]] == [(name, "ok") for name in INSTALLED]


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"click": None}, "click", "not installed"),
        ({"click": "8.0.9"}, "click", "8.0.9, needs 8.1"),
        ({"onnxruntime": None}, "onnxruntime", "not installed"),
        ({"onnxruntime": None, "onnxruntime_gpu": "1.20"}, "onnxruntime-gpu", "needs 1.24.4"),
    ],
)
def test_what_is_missing_or_too_old(machine, changes, name, words):
    machine(**changes)
    found = by_name(health.packages())[name]
    assert found.status == "missing"
    assert words in found.found
    assert "pip install" in found.hint


def test_the_gpu_runtime_alone_is_enough(machine):
    machine(onnxruntime=None, onnxruntime_gpu="1.25")
    assert {each.status for each in health.packages()} == {"ok"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"onnxruntime_gpu": "1.24.4"}, "onnxruntime-gpu"),
        ({"optimum_onnx": "0.1.0", "transformers": "4.58.0"}, "optimum-onnx 0.1.0 and transformers 4.58.0"),
    ],
)
def test_clashes(machine, changes, words):
    machine(**changes)
    (found,) = health.clashes()
    assert (found.status, words in found.found) == ("warning", True)


def test_an_older_transformers_goes_with_optimum_onnx(machine):
    machine(optimum_onnx="0.1.0", transformers="4.57.3")
    assert not list(health.clashes())


def test_not_installed_at_all(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(health.metadata, "requires", absent)
    assert [each.status for each in health.packages()] == ["ok", "missing"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\n", {"fpu", "avx2", "avx512_vnni"}),
        ("Features\t: fp asimddp\n", {"fp", "asimddp"}),
        ("model name: x\n", set()),
    ],
)
def test_cpu_flags(tmp_path, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    assert health.cpu_flags(tmp_path / "cpuinfo") == expected
    assert health.cpu_flags(tmp_path / "none") == set()


def test_exit_codes(machine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(health, "_providers", lambda: health.Check("providers", "ok", "CPUExecutionProvider"))
    assert main(["doctor", "--json", "--output", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    machine(click="8.0")
    assert main(["doctor", "--json", "--output", str(tmp_path)]) == 5
    told = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in told["checks"] if each["status"] == "missing"] == ["click"]
    assert main(["doctor", "--output", str(tmp_path)]) == 5
    assert "pip install 'click>=8.1'" in capsys.readouterr().out


def test_a_runtime_that_does_not_load_is_told(tmp_path):
    code = (
        "import sys; sys.modules['onnxruntime'] = None; from compress.cli.main import main; "
        "code = main(['doctor', '--output', sys.argv[1]]); "
        "assert not {'torch', 'transformers', 'onnx'} & sys.modules.keys(); sys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 5, ran.stderr
    assert "onnxruntime does not load" in ran.stdout
