"""What the commands that sign share: their options, and how the key is opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from compress.artifact import layout
from compress.core.errors import UsageError

if TYPE_CHECKING:
    from compress.artifact.signing import Signing

PASSPHRASE: Final = "COMPRESS_KEY_PASSPHRASE"  # noqa: S105  (the name of a variable)
KEY: Final = click.Path(exists=True, dir_okay=False, path_type=Path)

RESOURCE: Final = click.option(
    "--resource-uri", "resource", metavar="URI",
    help="Where the artifact will be found; by default pkg:generic/NAME.",
)  # fmt: skip
BUNDLE: Final = click.option(
    "--bundle", is_flag=True, help="Write an OpenSSF model-signing bundle as well; the key has to be of type p256.",
)  # fmt: skip
OPTIONS: Final = (
    click.option("--sign", "key", type=KEY, metavar="KEY",
                 help=f"Sign the verdict, whichever it is; {PASSPHRASE} opens an encrypted key."),
    RESOURCE,
    BUNDLE,
)  # fmt: skip


def signing_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that makes an artifact."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def passphrase() -> bytes | None:
    """The passphrase in the environment, which is taken out of it: no child process needs it."""
    text = os.environ.pop(PASSPHRASE, None)
    if text == "":
        raise UsageError("is empty", PASSPHRASE, "unset it for a key without passphrase")
    return None if text is None else os.fsencode(text)


def signing_of(given: dict[str, Any]) -> Signing | None:
    """What the options of a command say about signing; None where they ask for none, or the command has none."""
    if given.get("key") is not None:
        return opened(given["key"], given["resource"], given["bundle"])
    for name, value in (("--resource-uri", given.get("resource")), ("--bundle", given.get("bundle"))):
        if value:
            raise UsageError("nothing is signed", name, "pass --sign KEY with it")
    return None


def opened(key: Path, resource: str | None, bundle: bool) -> Signing:
    """The key, opened: before a run, not after it."""
    check_resource(resource)
    from compress.artifact import bundle as bundles
    from compress.artifact import keys
    from compress.artifact.signing import Signing

    secret = passphrase()
    signer = keys.read_private(key, secret)
    return Signing(signer, resource, bundles.opened(key, signer, secret) if bundle else None)


def check_resource(uri: str | None) -> None:
    """Raise UsageError for what is no absolute URI."""
    if uri is not None and not layout.is_uri(uri):
        raise UsageError(f"{uri!a} is no absolute URI", "--resource-uri", "such as https://example.com/models/clip")
