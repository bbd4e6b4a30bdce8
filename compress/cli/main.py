"""The entry point: finds commands by file name, and is the only place where an error becomes an exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import Any

import click

from compress import __version__
from compress.core import names
from compress.core.errors import CompressError

_COMMANDS = "compress.cli.commands"


class Commands(click.Group):
    """A group whose commands are files, imported only when used or listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name.replace("_", "-") for name in names.available(_COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        try:
            found: click.Command = names.load(_COMMANDS, cmd_name.replace("-", "_")).command
        except KeyError:
            return None
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            hint = names.did_you_mean(args[0], self.list_commands(ctx))
            ctx.fail(f"no command {args[0]!r}" + (f" ({hint})" if hint else ""))
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="compress")
def root() -> None:
    """Make multimodal encoders small and fast, and release only what passes its gates."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code: Any = root.main(args=argv, prog_name="compress", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except CompressError as error:
        click.echo(f"compress: {error}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("compress: interrupted; nothing was published", err=True)
        return 130
    except _Terminated:
        click.echo("compress: terminated; nothing was published", err=True)
        return 143
    except MemoryError:
        click.echo("compress: out of memory; free some or use a smaller batch, then run again", err=True)
        return 7
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno in _OUT_OF_ROOM:
            click.echo(f"compress: {error.strerror}: {error.filename}; make room, then run again", err=True)
            return 7
        return _bug()
    except Exception:
        return _bug()


_OUT_OF_ROOM = {28, 27, 122}  # ENOSPC, EFBIG, EDQUOT


class _Terminated(BaseException):
    """SIGTERM arrived."""


def _terminated(signum: int, frame: Any) -> None:
    raise _Terminated


def _bug() -> int:
    traceback.print_exc()
    click.echo("compress: this is a bug; please report the lines above", err=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
