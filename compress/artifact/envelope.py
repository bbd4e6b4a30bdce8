"""DSSE envelopes, one a line: signed, read strictly as data nobody vouches for, verified.

Dead Simple Signing Envelope 1.0 (github.com/secure-systems-lab/dsse), with exactly one signature each.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from securesystemslib import dsse
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from compress.artifact import strict_json
from compress.core.errors import IntegrityError

PAYLOAD_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True, slots=True)
class Envelope:
    """One line of an attestation file: its bytes, what is signed, the signature and the id of the key it claims."""

    line: bytes
    payload: bytes
    key_id: str
    signature: bytes

    def verified(self, key: SSlibKey) -> bool:
        """Whether this key has signed the payload."""
        signature = Signature(self.key_id, self.signature.hex())
        try:
            dsse.Envelope(self.payload, PAYLOAD_TYPE, {self.key_id: signature}).verify([key], 1)
        except VerificationError:
            return False
        return True


def seal(payload: bytes, signer: CryptoSigner) -> bytes:
    """The line of a signed envelope, without its end."""
    made = dsse.Envelope(payload, PAYLOAD_TYPE, {})
    made.sign(signer)
    return json.dumps(made.to_dict(), separators=(",", ":"), sort_keys=True).encode()


def parse(content: bytes, where: str) -> tuple[Envelope, ...]:
    """The envelopes of an attestation file, none verified. Raises IntegrityError for whatever `seal` does not write."""
    *lines, rest = content.split(b"\n")
    if rest:
        raise IntegrityError("the last line has no end", where)
    return tuple(_read(line, f"{where} line {at}") for at, line in enumerate(lines, 1))


def _read(line: bytes, where: str) -> Envelope:
    kinds = {"payloadType": str, "payload": str, "signatures": list}
    data = strict_json.fields(strict_json.parse(line, where), kinds, where)
    if data["payloadType"] != PAYLOAD_TYPE:
        raise IntegrityError(f"payloadType is {data['payloadType']!a}, not {PAYLOAD_TYPE}", where)
    if len(data["signatures"]) != 1:
        raise IntegrityError(f"{len(data['signatures'])} signatures; there has to be one", where)
    signature = strict_json.fields(data["signatures"][0], {"keyid": str, "sig": str}, f"{where} signatures[0]")
    return Envelope(line, _decoded(data["payload"], where), signature["keyid"], _decoded(signature["sig"], where))


def _decoded(text: str, where: str) -> bytes:
    """Bytes of the one Base64 text that stands for them."""
    try:
        made = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise IntegrityError(f"malformed Base64: {error}", where) from error
    if base64.b64encode(made).decode() != text:
        raise IntegrityError("malformed Base64: not in its one canonical form", where)
    return made
