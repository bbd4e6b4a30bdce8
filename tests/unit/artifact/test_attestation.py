import base64
import hashlib
import json
import subprocess
import sys

import artifact_sample as sample
import pytest

from compress import __version__
from compress.artifact import attestation, envelope, keys, layout, manifest, statement
from compress.artifact.signing import Signing
from compress.artifact.verify import check
from compress.cli.main import main
from compress.core.errors import IntegrityError
from compress.recipe import document

FAILED = sample.with_statuses("passed", "failed", "inconclusive")
STEPS = (
    "signature", "subject", "predicateType", "verifier.id", "resourceUri", "verificationResult", "verifiedLevels",
)  # fmt: skip
OURS = ("policy", "inputAttestations", "tests")


@pytest.fixture
def signing(tmp_path):
    keys.generate(tmp_path / "key")
    return Signing(keys.read_private(tmp_path / "key"))


@pytest.fixture
def folder(tmp_path, signing):
    return sample.settle(tmp_path, signed=signing)


def envelopes(folder):
    return envelope.parse((folder / layout.ATTESTATIONS).read_bytes(), "x")


def statements(folder):
    return [json.loads(each.payload) for each in envelopes(folder)]


def examine(folder, signing, resource=None):
    return attestation.check(folder, check(folder), signing.signer.public_key, resource)


def statuses(signed):
    return {each.name: each.status for each in signed.checks}


def put(folder, *lines):
    """Write attestations that may be anything, and make the manifest fit again."""
    (folder / layout.ATTESTATIONS).write_bytes(b"".join(line + b"\n" for line in lines))
    sample.forge(folder)


def sealed(data, signing):
    return envelope.seal(json.dumps(data).encode(), signing.signer)


def resign(folder, signing, change):
    """What the owner of the key would sign by mistake: the statements after a change, the summary naming the tests."""
    tests, summary = statements(folder)
    change(tests, summary)
    line = sealed(tests, signing)
    for each in summary["predicate"].get("inputAttestations", []):
        if each["name"] == statement.TEST_RESULT:
            each["digest"]["sha256"] = hashlib.sha256(line).hexdigest()
    put(folder, line, sealed(summary, signing))


def test_the_seven_steps_of_the_specification_and_ours(folder, signing):
    signed = examine(folder, signing)
    assert tuple(statuses(signed)) == STEPS + OURS
    assert set(statuses(signed).values()) == {"ok"}
    signed.require("x")


def test_the_test_result(folder):
    policy = document.read(folder / layout.POLICY).digest
    uri = "ni:///sha-256;" + base64.urlsafe_b64encode(bytes.fromhex(policy)).decode().rstrip("=")
    assert statements(folder)[0] == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "tiny", "digest": {"sha256": manifest.read(folder).subject}}],
        "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
        "predicate": {
            "result": "PASSED",
            "configuration": [{"name": "clip_release", "uri": uri, "digest": {"sha256": policy}}],
            "passedTests": [
                "reading.accuracy worst_slice [size=6-8]",
                "reading.accuracy worst_slice [size=9-12]",
                "size.ratio at_most",
            ],
            "warnedTests": [],
            "failedTests": [],
        },
    }


def test_the_verification_summary(folder, signing):
    made = statements(folder)[1]
    policy = document.read(folder / layout.POLICY).digest
    evidence = ["README.md", layout.GATE_REPORT, layout.JUNIT]
    digests = [hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in evidence]
    line = (folder / layout.ATTESTATIONS).read_bytes().split(b"\n")[0]
    assert made["subject"] == [{"name": "tiny", "digest": {"sha256": manifest.read(folder).subject}}]
    assert made["predicateType"] == "https://slsa.dev/verification_summary/v1"
    predicate = made["predicate"]
    assert len(predicate.pop("timeVerified")) == len("2026-01-01T00:00:00Z")
    assert predicate["policy"]["digest"] == {"sha256": policy}
    del predicate["policy"]
    assert predicate == {
        "verifier": {"id": keys.named_information(signing.key_id), "version": {"compress": __version__}},
        "resourceUri": "pkg:generic/tiny",
        "inputAttestations": [
            {
                "name": "https://in-toto.io/attestation/test-result/v0.1",
                "digest": {"sha256": hashlib.sha256(line).hexdigest()},
            },
            *({"name": path, "digest": {"sha256": sha256}} for path, sha256 in zip(evidence, digests, strict=True)),
        ],
        "verificationResult": "PASSED",
        "verifiedLevels": ["SLSA_BUILD_LEVEL_UNEVALUATED", "COMPRESS_GATES_PASSED"],
        "slsaVersion": "1.1",
    }


@pytest.mark.parametrize(
    ("status", "findings"),
    [("failed", FAILED), ("inconclusive", sample.with_statuses("passed", "passed", "inconclusive")), ("ungated", ())],
)
def test_what_did_not_pass_is_signed_as_failed(tmp_path, signing, status, findings):
    folder = sample.settle(tmp_path, status, findings, signed=signing)
    tests, summary = (each["predicate"] for each in statements(folder))
    assert tests["result"] == summary["verificationResult"] == "FAILED"
    assert summary["verifiedLevels"] == ["FAILED"]
    assert len(tests["passedTests"]) == sum(finding[3] == "passed" for finding in findings)
    assert len(tests["failedTests"]) == sum(finding[3] != "passed" for finding in findings)
    assert b"PASSED" not in b"".join(each.payload for each in envelopes(folder))
    signed = examine(folder, signing)
    signed.require("x")
    assert [name for name, status in statuses(signed).items() if status == "failed"] == list(STEPS[5:])
    if status == "ungated":
        assert summary["policy"] == {"name": "none", "uri": "data:,none"}


def test_it_is_deterministic_but_for_the_time(tmp_path, signing):
    made = [sample.settle(tmp_path / name, signed=signing) for name in ("a", "b")]
    (tests, summary), (tests_again, summary_again) = map(statements, made)
    assert tests == tests_again
    summary_again["predicate"]["timeVerified"] = summary["predicate"]["timeVerified"]
    assert summary == summary_again


def of_tests(**changes):
    return lambda tests, summary: tests["predicate"].update(changes)


def of_summary(**changes):
    return lambda tests, summary: summary["predicate"].update(changes)


def of_both(**changes):
    return lambda tests, summary: (tests.update(changes), summary.update(changes))


OTHER = {"sha256": "0" * 64}
WRONG = {
    "subject of another artifact": ("subject", of_both(subject=[{"name": "tiny", "digest": OTHER}])),
    "subject of another name": (
        "subject",
        lambda tests, summary: [each["subject"][0].update(name="tinier") for each in (tests, summary)],
    ),
    "no subject": ("subject", of_both(subject=[])),
    "two subjects": (
        "subject",
        lambda tests, summary: summary["subject"].append({"name": "tiny", "digest": OTHER}),
    ),
    "subject of the tests alone": (
        "subject",
        lambda tests, summary: tests.update(subject=[{"name": "tiny", "digest": OTHER}]),
    ),
    "later summary": ("predicateType", lambda tests, summary: summary.update(predicateType="x/summary/v2")),
    "other tests": ("predicateType", lambda tests, summary: tests.update(predicateType="x/test-result/v1")),
    "verifier of another key": ("verifier.id", of_summary(verifier={"id": keys.named_information("0" * 64)})),
    "verifier text": ("verifier.id", of_summary(verifier="me")),
    "no verifier": ("verifier.id", lambda tests, summary: summary["predicate"].pop("verifier")),
    "other resource": ("resourceUri", of_summary(resourceUri="pkg:generic/other")),
    "no resource": ("resourceUri", lambda tests, summary: summary["predicate"].pop("resourceUri")),
    "result failed": ("verificationResult", of_summary(verificationResult="FAILED")),
    "result in small letters": ("verificationResult", of_summary(verificationResult="passed")),
    "result true": ("verificationResult", of_summary(verificationResult=True)),
    "no result": ("verificationResult", lambda tests, summary: summary["predicate"].pop("verificationResult")),
    "no level": ("verifiedLevels", of_summary(verifiedLevels=[])),
    "level failed": ("verifiedLevels", of_summary(verifiedLevels=["FAILED"])),
    "levels text": ("verifiedLevels", of_summary(verifiedLevels="COMPRESS_GATES_PASSED")),
    "other policy": ("policy", of_summary(policy={"name": "clip_release", "uri": "x:", "digest": OTHER})),
    "no policy": ("policy", lambda tests, summary: summary["predicate"].pop("policy")),
    "other evidence": (
        "inputAttestations",
        lambda tests, summary: summary["predicate"]["inputAttestations"][2].update(digest=OTHER),
    ),
    "less evidence": ("inputAttestations", lambda tests, summary: summary["predicate"]["inputAttestations"].pop()),
    "more evidence": (
        "inputAttestations",
        lambda tests, summary: summary["predicate"]["inputAttestations"].append({"name": "x", "digest": OTHER}),
    ),
    "no evidence": ("inputAttestations", lambda tests, summary: summary["predicate"].pop("inputAttestations")),
    "tests failed": ("tests", of_tests(result="FAILED")),
    "no test": ("tests", of_tests(passedTests=[])),
    "a test failed": ("tests", of_tests(failedTests=["size.ratio at_most"])),
    "tests of another policy": ("tests", of_tests(configuration=[{"uri": "data:,none"}])),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_every_step_is_taken(folder, signing, name):
    """Signed by the right key, and about something else: what a replay is."""
    step, change = WRONG[name]
    resign(folder, signing, change)
    signed = examine(folder, signing)
    assert {each for each, status in statuses(signed).items() if status == "mismatch"} == {step}
    with pytest.raises(IntegrityError, match=step.replace(".", r"\.")):
        signed.require("x")


def test_every_step_has_something_wrong():
    assert {step for step, _ in WRONG.values()} == {*STEPS, *OURS} - {"signature"}


def test_unknown_keys_are_no_reason_to_refuse(folder, signing):
    def change(tests, summary):
        for each in (tests, summary):
            each["note"] = each["predicate"]["note"] = "of a later minor version"

    resign(folder, signing, change)
    examine(folder, signing).require("x")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda tests, summary: summary.update(_type="x/Statement/v0.1"), id="old statement"),
        pytest.param(lambda tests, summary: summary.pop("_type"), id="no type"),
        pytest.param(lambda tests, summary: summary.update(predicate=[]), id="predicate list"),
        pytest.param(lambda tests, summary: summary.update(subject={}), id="subject object"),
    ],
)  # fmt: skip
def test_a_signed_payload_that_is_no_statement_is_refused(folder, signing, change):
    tests, summary = statements(folder)
    change(tests, summary)
    put(folder, sealed(tests, signing), sealed(summary, signing))
    with pytest.raises(IntegrityError):
        examine(folder, signing)


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b'{"_type": 1, "_type": 2}', b"[" * 50_000, b"\xff"])
def test_a_signed_payload_that_is_no_json_is_refused(folder, signing, payload):
    put(folder, envelopes(folder)[0].line, envelope.seal(payload, signing.signer))
    with pytest.raises(IntegrityError):
        examine(folder, signing)


@pytest.mark.parametrize("order", [(), (0,), (1,), (1, 0), (0, 0), (1, 1), (0, 1, 1), (0, 1, 0, 1)])
def test_there_is_one_of_each_in_order(folder, signing, order):
    both = envelopes(folder)
    put(folder, *(both[at].line for at in order))
    with pytest.raises(IntegrityError):
        examine(folder, signing).require("x")


def test_another_key(folder, tmp_path):
    keys.generate(tmp_path / "other")
    other = Signing(keys.read_private(tmp_path / "other"))
    signed = examine(folder, other)
    assert statuses(signed) == {"signature": "mismatch"}
    with pytest.raises(IntegrityError, match="not by"):
        signed.require("x")


@pytest.mark.parametrize("which", [0, 1])
def test_one_envelope_by_another_key(folder, signing, tmp_path, which):
    keys.generate(tmp_path / "other")
    other = Signing(keys.read_private(tmp_path / "other"))
    made = statements(folder)
    lines = [sealed(each, other if at == which else signing) for at, each in enumerate(made)]
    put(folder, *lines)
    assert statuses(examine(folder, signing)) == {"signature": "mismatch"}
    lines[which] = lines[which].replace(other.key_id.encode(), signing.key_id.encode())  # it claims the right key
    put(folder, *lines)
    assert statuses(examine(folder, signing)) == {"signature": "mismatch"}


def test_nothing_is_read_before_the_signature_holds(folder, signing):
    line = envelopes(folder)[0].line
    bad = base64.b64encode(b"[" * 50_000)
    payload = json.loads(line)["payload"].encode()
    put(folder, line.replace(payload, bad), envelopes(folder)[1].line)
    assert statuses(examine(folder, signing)) == {"signature": "mismatch"}


def test_the_resource_is_where_the_signer_says(tmp_path, signing):
    uri = "https://example.com/models/tiny/1.2.0"
    folder = sample.settle(tmp_path, signed=Signing(signing.signer, uri))
    examine(folder, signing, uri).require("x")
    for other in (None, "https://example.com/models/tiny/1.1.0"):
        with pytest.raises(IntegrityError, match="resourceUri"):
            examine(folder, signing, other).require("x")


def test_no_attestation(tmp_path, signing):
    with pytest.raises(IntegrityError, match="nobody has signed"):
        examine(sample.settle(tmp_path), signing)


def test_what_it_shows_has_no_control_characters(folder, signing):
    resign(folder, signing, of_summary(resourceUri="x:\x1b[2J" + "long" * 500, timeVerified="\x1b[2J"))
    signed = examine(folder, signing)
    assert "\x1b" not in signed.time
    (wrong,) = signed.mismatched
    assert "\x1b" not in wrong.detail
    assert len(wrong.detail) < 300


def key_of(tmp_path):
    return str(tmp_path / "key.pub")


def test_command_line(folder, tmp_path, capsys):
    assert main(["verify", str(folder)]) == 0
    assert "signature  not checked" in capsys.readouterr().out
    assert main(["verify", str(folder), "--public-key", key_of(tmp_path)]) == 0
    out = capsys.readouterr().out
    for name in STEPS + OURS:
        assert f"  {name} " in out
    keys.generate(tmp_path / "other")
    assert main(["verify", str(folder), "--public-key", str(tmp_path / "other.pub")]) == 6
    assert main(["verify", str(folder), "--public-key", key_of(tmp_path), "--resource-uri", "x:y"]) == 6
    assert main(["verify", str(folder), "--public-key", str(tmp_path / "key")]) == 2
    assert main(["verify", str(folder), "--public-key", str(tmp_path / "absent")]) == 2
    assert main(["verify", str(folder), "--public-key", key_of(tmp_path), "--resource-uri", "nowhere"]) == 2
    assert main(["verify", str(folder), "--resource-uri", "x:y"]) == 2


def test_command_line_json(folder, tmp_path, capsys):
    def told(*words):
        code = main(["verify", str(folder), "--json", *words])
        out = json.loads(capsys.readouterr().out)
        assert out["exit_code"] == code
        return code, out["signature"]

    code, signature = told()
    assert (code, signature) == (0, {"status": "not checked"})
    code, signature = told("--public-key", key_of(tmp_path))
    assert (code, signature["status"], len(signature["checks"])) == (0, "ok", 10)
    assert signature["checks"][0]["name"] == "signature"
    code, signature = told("--public-key", key_of(tmp_path), "--resource-uri", "x:y")
    assert (code, signature["status"]) == (6, "mismatch")
    wrong = [each["name"] for each in signature["checks"] if each["status"] == "mismatch"]
    assert wrong == ["resourceUri"]
    (folder / layout.ATTESTATIONS).unlink()
    sample.forge(folder)
    assert told() == (0, {"status": "none"})
    assert told("--public-key", key_of(tmp_path)) == (6, {"status": "none"})


@pytest.mark.parametrize(("status", "code"), [("failed", 3), ("inconclusive", 4), ("ungated", 4)])
def test_a_true_signature_does_not_make_it_pass(tmp_path, signing, capsys, status, code):
    found = {
        "failed": FAILED,
        "inconclusive": sample.with_statuses("passed", "passed", "inconclusive"),
        "ungated": (),
    }[status]
    folder = sample.settle(tmp_path, status, found, signed=signing)
    assert main(["verify", str(folder), "--public-key", key_of(tmp_path)]) == code
    assert "verificationResult  failed  FAILED" in capsys.readouterr().out


def test_with_a_key_it_loads_no_machine_learning_library(folder, tmp_path):
    program = (
        "import sys; from compress.cli.main import main;"
        "code = main(['verify', sys.argv[1], '--public-key', sys.argv[2]]);"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'numpy', 'scipy', 'transformers', 'rich'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, folder, key_of(tmp_path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_without_a_key_no_cryptography_is_loaded(folder):
    program = (
        "import sys; from compress.cli.main import main; code = main(['verify', sys.argv[1]]);"
        "sys.exit(code or 'cryptography' in sys.modules or 'securesystemslib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, folder], check=False, capture_output=True).returncode == 0
