"""The signed artifact of every released format version verifies for ever, as it was made (`make.py` tells how)."""

import shutil
from pathlib import Path

import pytest

from compress.artifact import layout, manifest
from compress.artifact.attestation import check as check_attestation
from compress.artifact.keys import read_public
from compress.artifact.verify import verify
from compress.cli.main import main
from compress.report import document

HERE = Path(__file__).parent

GOLDEN = {
    "v1": (
        "bd6510247df61b920776166522290a24604128c7b5259fa9766cbb512f5c404c",
        "7f5ede07a32e93638ad645500c554cb9028e5e886df06d25ee41fd4b2dc1b7ad",
        "2026-11-21T10:34:23Z",
    ),
}
"""Format version -> subject, id of the key that signed, and when. Entries are added, and never changed."""


@pytest.fixture(params=GOLDEN)
def version(request):
    return request.param


@pytest.fixture
def golden(version, tmp_path):
    """A copy, so that a checkout made of hard links is no reason to refuse it."""
    return shutil.copytree(HERE / version / "golden", tmp_path / "golden")


def test_there_is_one_for_every_version():
    assert set(GOLDEN) == {f"v{number}" for number in range(1, manifest.VERSION + 1)}
    assert {path.name for path in HERE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(GOLDEN)


def test_it_verifies(version, golden):
    report = verify(golden)
    signed = check_attestation(golden, report, read_public(HERE / version / "key.pub"))
    signed.require("x")
    assert {each.status for each in signed.checks} == {"ok"}
    assert (report.subject, signed.key_id, signed.time) == GOLDEN[version]


def test_through_the_command_line(version, golden, capsys):
    key = ["--public-key", str(HERE / version / "key.pub")]
    assert main(["verify", str(golden), *key, "--policy", str(golden / layout.POLICY)]) == 0
    assert main(["inspect", str(golden)]) == 0
    with (golden / "README.md").open("ab") as opened:
        opened.write(b"\n")
    assert main(["verify", str(golden), *key]) == 6


def test_its_report_is_read(golden):
    read = document.read(golden)
    assert (read.status, read.exit_code) == ("passed", 0)
    assert read.findings
    assert read.sizes


def test_no_private_key_was_kept():
    for path in HERE.rglob("*"):
        if path.is_file() and path != Path(__file__):
            assert b"PRIVATE KEY" not in path.read_bytes(), path
