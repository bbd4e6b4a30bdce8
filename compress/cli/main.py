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
from compress.core.errors import CompressError, disk_full

_COMMANDS = "compress.cli.commands"


class Commands(click.Group):
    """A group whose commands are files, imported only when used or listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [name.replace("_", "-") for name in names.available(_COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
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
        ended: Any = root.main(args=argv, prog_name="compress", standalone_mode=False)
        code = ended if isinstance(ended, int) else 0
    except click.exceptions.Exit as asked:
        code = asked.exit_code
    except click.ClickException as error:
        error.show()
        code = 2
    except CompressError as error:
        code = _told(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        code = _told("interrupted; nothing was published", 130)
    except _Terminated:
        code = _told("terminated; nothing was published", 143)
    except MemoryError:
        code = _told("out of memory; free some or use a smaller batch, then run again", 7)
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        full = f"{error.strerror or error}{where}; make room, then run again"
        code = _told(full, 7) if disk_full(error) else _bug()
    except Exception:
        code = _bug()
    return code


def _told(line: str, code: int) -> int:
    click.echo(f"compress: {line}", err=True)
    return code


class _Terminated(BaseException):
    """SIGTERM arrived."""


def _terminated(*_: Any) -> None:
    raise _Terminated


def _bug() -> int:
    traceback.print_exc()
    click.echo("compress: this is a bug; please report the lines above", err=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
