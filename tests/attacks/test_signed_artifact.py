"""What somebody without the key does to a signed artifact, its manifest made to fit again: everything ends 6."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "unit" / "artifact"))
import artifact_sample as sample

from compress.artifact import keys, layout, manifest
from compress.artifact.signing import Signing
from compress.artifact.verify import verify as passes
from compress.cli.main import main
from compress.recipe import document

FAILED = sample.with_statuses("passed", "failed", "inconclusive")


@pytest.fixture
def signing(tmp_path):
    keys.generate(tmp_path / "key")
    return Signing(keys.read_private(tmp_path / "key"))


@pytest.fixture
def folder(tmp_path, signing):
    return sample.settle(tmp_path, signed=signing)


@pytest.fixture
def verify(tmp_path, capsys):
    """The exit code under the owner's key, and the names of the checks that do not hold."""

    def run(folder, *words):
        code = main(["verify", str(folder), "--public-key", str(tmp_path / "key.pub"), "--json", *words])
        told = json.loads(capsys.readouterr().out)
        checks = told["signature"].get("checks", [])
        return code, {each["name"] for each in checks if each["status"] == "mismatch"}

    return run


def fits(folder):
    """Make gate report and manifest fit what is there now, as somebody without a key can."""
    policy = {"name": "clip_release", "digest": document.read(folder / layout.POLICY).digest}
    sample.forge(folder)
    sample.edit_report(folder, digest=manifest.read(folder).subject, policy=policy)


def test_it_verifies_while_nobody_touches_it(folder, verify):
    assert verify(folder) == (0, set())


@pytest.mark.parametrize("path", ["config.json", "onnx/vision_model_q4.onnx", layout.POLICY])
def test_edited_payload_with_everything_else_made_to_fit(folder, verify, path):
    with (folder / path).open("ab") as opened:
        opened.write(b"# \n")
    if path == layout.POLICY:
        (folder / path).write_text(sample.POLICY.replace("0.02", "0.9"))
    fits(folder)
    passes(folder)  # a consistent other artifact: only the signature tells
    code, wrong = verify(folder)
    assert code == 6
    assert {"subject", "inputAttestations"} <= wrong
    assert ("policy" in wrong) == (path == layout.POLICY)


@pytest.mark.parametrize("path", ["README.md", layout.GATE_REPORT, layout.JUNIT])
def test_edited_evidence(folder, verify, path):
    with (folder / path).open("ab") as opened:
        opened.write(b"\n")
    sample.forge(folder)
    passes(folder)
    assert verify(folder) == (6, {"inputAttestations"})


@pytest.mark.parametrize("path", ["extra.bin", ".hidden", ".git/config", "compress/.x", "onnx/text_model.onnx"])
@pytest.mark.parametrize("listed", [False, True])
def test_an_added_file(folder, verify, path, listed):
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_bytes(b"")
    if listed:
        fits(folder)
    assert verify(folder)[0] == 6


@pytest.mark.parametrize("path", [layout.HTML_REPORT, layout.SAMPLES, layout.ENVIRONMENT])
def test_added_evidence(folder, verify, path):
    (folder / path).write_bytes(b"made up")
    sample.forge(folder)
    passes(folder)
    assert verify(folder) == (6, {"inputAttestations"})


@pytest.mark.parametrize("path", ["README.md", "config.json", "onnx/text_model_q4.onnx", layout.ATTESTATIONS])
@pytest.mark.parametrize("how", ["removed", "renamed", "symbolic link", "hard link"])
@pytest.mark.parametrize("listed", [False, True])
def test_a_file_that_is_not_where_it_was(folder, verify, path, how, listed):
    if how == "hard link":
        os.link(folder / path, folder.parent / "outside")
    elif how == "removed":
        (folder / path).unlink()
    else:
        moved = folder / "renamed" if how == "renamed" else folder.parent / "outside"
        (folder / path).rename(moved)
        if how == "symbolic link":
            (folder / path).symlink_to(moved)
    if listed and how in ("removed", "renamed"):
        fits(folder)
    assert verify(folder)[0] == 6


def test_another_name(folder, verify):
    (folder / layout.MANIFEST).write_bytes(manifest.scan(folder, "tinier").to_json())
    sample.edit_report(folder, name="tinier")
    passes(folder)
    code, wrong = verify(folder)
    assert (code, "subject" in wrong, "resourceUri" in wrong) == (6, True, True)


def test_the_attestation_of_another_artifact(folder, tmp_path, signing, verify):
    other = sample.settle(tmp_path / "other", weights=b"these passed", signed=signing)
    shutil.copy(other / layout.ATTESTATIONS, folder / layout.ATTESTATIONS)
    sample.forge(folder)
    code, wrong = verify(folder)
    assert (code, "subject" in wrong) == (6, True)


def test_the_attestation_of_an_earlier_run_on_the_same_payload(tmp_path, signing, verify):
    """It passed once, say on a quieter machine; measured again it does not."""
    earlier = sample.settle(tmp_path / "earlier", signed=signing)
    blocked = sample.settle(tmp_path, "failed", FAILED, signed=signing)
    assert manifest.read(earlier).subject == manifest.read(blocked).subject
    assert verify(blocked) == (3, set())
    shutil.copy(earlier / layout.ATTESTATIONS, blocked / layout.ATTESTATIONS)
    sample.forge(blocked)
    code, wrong = verify(blocked)
    assert code == 6
    assert wrong == {"verificationResult", "verifiedLevels", "inputAttestations", "tests"}


def test_the_passed_evidence_of_an_earlier_run_below_a_failed_attestation(tmp_path, signing, verify):
    earlier = sample.settle(tmp_path / "earlier", signed=signing)
    blocked = sample.settle(tmp_path, "failed", FAILED, signed=signing)
    for path in (layout.GATE_REPORT, layout.JUNIT):
        shutil.copy(earlier / path, blocked / path)
    sample.forge(blocked)
    passes(blocked)
    assert "verificationResult" in verify(blocked)[1]
    assert verify(blocked)[0] == 6


@pytest.mark.parametrize("line", [0, 1])
def test_one_envelope_of_another_run(folder, tmp_path, signing, verify, line):
    other = sample.settle(tmp_path / "other", weights=b"these passed", signed=signing)
    mine, others = (each.joinpath(layout.ATTESTATIONS).read_bytes().split(b"\n") for each in (folder, other))
    mine[line] = others[line]
    (folder / layout.ATTESTATIONS).write_bytes(b"\n".join(mine))
    sample.forge(folder)
    assert verify(folder)[0] == 6


def test_a_blocked_artifact_that_says_it_passed(tmp_path, signing, verify):
    blocked = sample.settle(tmp_path, "failed", FAILED, signed=signing)
    passed = [
        {**each, "status": "passed"} for each in json.loads((blocked / layout.GATE_REPORT).read_text())["findings"]
    ]
    (blocked / layout.JUNIT).write_bytes(sample.junit(sample.FINDINGS))
    sample.edit_report(blocked, status="passed", exit_code=0, findings=passed)
    passes(blocked)
    code, wrong = verify(blocked)
    assert code == 6
    assert {"verificationResult", "verifiedLevels", "tests"} <= wrong


def test_signed_by_somebody_else(folder, tmp_path, verify):
    keys.generate(tmp_path / "other")
    other = sample.settle(tmp_path / "theirs", signed=Signing(keys.read_private(tmp_path / "other")))
    assert verify(other) == (6, {"signature"})
    claims = (other / layout.ATTESTATIONS).read_bytes()
    for line in claims.splitlines():
        data = json.loads(line)
        data["signatures"][0]["keyid"] = keys.read_public(tmp_path / "key.pub").keyid
        claims = claims.replace(line, json.dumps(data).encode())
    (other / layout.ATTESTATIONS).write_bytes(claims)
    sample.forge(other)
    assert verify(other) == (6, {"signature"})


def test_not_signed_at_all(tmp_path, signing, verify):
    assert verify(sample.settle(tmp_path)) == (6, set())


def test_the_required_policy_is_another(folder, tmp_path, verify):
    weaker = tmp_path / "weaker.yaml"
    weaker.write_text(sample.POLICY.replace("0.02", "0.9"))
    assert verify(folder, "--policy", str(weaker))[0] == 6


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"{}\n{}\n", b"[" * 50_000 + b"\n", b"\xff\n\xff\n", b"nul\0\n", b"{}\n" * 100_000]
)
def test_garbage_for_an_attestation(folder, verify, content):
    (folder / layout.ATTESTATIONS).write_bytes(content)
    sample.forge(folder)
    assert verify(folder) == (6, set())


def test_an_attestation_too_large_to_read(folder, verify):
    with (folder / layout.ATTESTATIONS).open("r+b") as opened:
        opened.truncate((32 << 20) + 1)
    sample.forge(folder)
    assert verify(folder) == (6, set())


def test_no_flipped_bit_of_the_attestations_is_accepted(folder, verify):
    path = folder / layout.ATTESTATIONS
    good = path.read_bytes()
    for where in range(0, len(good), 7):
        bad = bytearray(good)
        bad[where] ^= 1 << (where % 8)
        path.write_bytes(bad)
        sample.forge(folder)
        assert verify(folder)[0] == 6, where
