import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from compress.artifact import envelope, keys
from compress.core.errors import IntegrityError

PAYLOAD = b'{"some": "statement"}'


@pytest.fixture(params=keys.KINDS)
def signer(tmp_path, request):
    keys.generate(tmp_path / "key", request.param)
    return keys.read_private(tmp_path / "key")


@pytest.fixture
def line(signer):
    return envelope.seal(PAYLOAD, signer)


def test_what_is_sealed_is_read_back_and_verified(signer, line):
    (read,) = envelope.parse(line + b"\n", "x")
    assert (read.line, read.payload, read.key_id) == (line, PAYLOAD, signer.public_key.keyid)
    assert read.verified(signer.public_key)


def test_the_signature_is_over_the_pre_authentication_encoding(signer, line):
    """DSSE 1.0.2, protocol: "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body."""
    (read,) = envelope.parse(line + b"\n", "x")
    signed, public = b"DSSEv1 28 application/vnd.in-toto+json 21 " + PAYLOAD, signer.public_key.keyval["public"]
    if signer.public_key.keytype == "ed25519":
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(read.signature, signed)
    else:
        load_pem_public_key(public.encode()).verify(read.signature, signed, ECDSA(SHA256()))


def test_another_key_or_payload_or_signature_does_not_verify(signer, line, tmp_path):
    (read,) = envelope.parse(line + b"\n", "x")
    keys.generate(tmp_path / "other")
    other = keys.read_public(tmp_path / "other.pub")
    claiming = envelope.Envelope(read.line, read.payload, other.keyid, read.signature)
    assert not read.verified(other)
    assert not claiming.verified(other)
    assert not claiming.verified(signer.public_key)
    for where in range(len(read.signature)):
        bad = bytearray(read.signature)
        bad[where] ^= 1 << (where % 8)
        assert not envelope.Envelope(read.line, read.payload, read.key_id, bytes(bad)).verified(signer.public_key)
    for signature in (b"", read.signature[:-1], read.signature + b"\0"):
        assert not envelope.Envelope(read.line, read.payload, read.key_id, signature).verified(signer.public_key)
    assert not envelope.Envelope(read.line, PAYLOAD + b" ", read.key_id, read.signature).verified(signer.public_key)


def changed(line, **changes):
    return json.dumps({**json.loads(line), **changes}).encode() + b"\n"


def signatures(line, **changes):
    (one,) = json.loads(line)["signatures"]
    return [{**one, **changes}]


BROKEN = {
    "empty line": lambda line: b"\n",
    "no JSON": lambda line: b"signed\n",
    "no object": lambda line: b"[]\n",
    "truncated": lambda line: line[:-1] + b"\n",
    "no end": lambda line: line,
    "blank line after": lambda line: line + b"\n\n",
    "text after": lambda line: line + b" signed\n",
    "text after the last line": lambda line: line + b"\nsigned",
    "two objects in a line": lambda line: line + line + b"\n",
    "no UTF-8": lambda line: b"\xff" + line + b"\n",
    "UTF-16": lambda line: line.decode().encode("utf-16") + b"\n",
    "byte order mark": lambda line: b"\xef\xbb\xbf" + line + b"\n",
    "deep nesting": lambda line: b"[" * 100_000 + b"\n",
    "duplicate key": lambda line: line.replace(b'{"payload":', b'{"payload":"e30=","payload":') + b"\n",
    "duplicate key in a signature": lambda line: line.replace(b'{"keyid":', b'{"keyid":"x","keyid":') + b"\n",
    "unknown key": lambda line: changed(line, certificate="x"),
    "NaN": lambda line: changed(line, payload=float("nan")),
    "other payload type": lambda line: changed(line, payloadType="application/json"),
    "payload type in capitals": lambda line: changed(line, payloadType="application/vnd.in-toto+JSON"),
    "payload type number": lambda line: changed(line, payloadType=1),
    "payload null": lambda line: changed(line, payload=None),
    "payload object": lambda line: changed(line, payload={}),
    "no Base64": lambda line: changed(line, payload="e30*"),
    "Base64 without padding": lambda line: changed(line, payload="e30"),
    "Base64 with other trailing bits": lambda line: changed(line, payload="e31="),
    "Base64 with white space": lambda line: changed(line, payload="e3 0="),
    "Base64 beyond ASCII": lambda line: changed(line, payload="e30\u0661"),
    "Base64 for URLs": lambda line: changed(line, payload="-_-_"),
    "no signature": lambda line: changed(line, signatures=[]),
    "several signatures": lambda line: changed(line, signatures=signatures(line) * 2),
    "signatures object": lambda line: changed(line, signatures={}),
    "signature text": lambda line: changed(line, signatures=["x"]),
    "signature with an unknown key": lambda line: changed(line, signatures=signatures(line, cert="x")),
    "signature without key id": lambda line: changed(line, signatures=[{"sig": "e30="}]),
    "key id null": lambda line: changed(line, signatures=signatures(line, keyid=None)),
    "signature no Base64": lambda line: changed(line, signatures=signatures(line, sig="...")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_malformed_envelope_is_refused(line, name):
    with pytest.raises(IntegrityError):
        envelope.parse(BROKEN[name](line), "x")


def test_the_line_is_told(line):
    with pytest.raises(IntegrityError, match="x line 2"):
        envelope.parse(line + b"\n{}\n", "x")


def test_a_payload_of_bytes_survives(signer):
    payload = hashlib.sha512(b"any").digest() * 40
    (read,) = envelope.parse(envelope.seal(payload, signer) + b"\n", "x")
    assert read.payload == payload
    assert base64.b64encode(payload) in read.line
