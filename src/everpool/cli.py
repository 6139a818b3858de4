"""The command ``everpool``."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from everpool import __version__

if TYPE_CHECKING:
    import click

__all__ = ["main"]

# A command and the module that has it, under its own name with _ for -. Loaded when it is called:
# each needs packages that the pools do not.
_COMMANDS = {
    "check": "everpool.check",
    "dashboard-json": "everpool.telemetry.commands",
    "demo": "everpool.demo.command",
    "environments": "everpool.environments.command",
    "migrate": "everpool.work.command",
    "rules": "everpool.telemetry.commands",
    "survey": "everpool.survey.command",
}
_EXTRAS = ("click", "rich")


def main() -> None:
    """Run the command named on the command line."""
    if sys.argv[1:] == ["--version"]:
        print(f"everpool {__version__}")
        return
    try:
        _group()(prog_name="everpool")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        extra = "demo" if sys.argv[1:2] == ["demo"] else "cli"
        needed = f'{package} is not installed, and needed here: pip install "everpool[{extra}]"'
        print(f"Error: {needed}", file=sys.stderr)
        sys.exit(2)


def _group() -> click.Group:
    import click

    class Commands(click.Group):
        def list_commands(self, ctx: click.Context) -> list[str]:
            return sorted(_COMMANDS)

        def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
            if name not in _COMMANDS:
                return None
            module = import_module(_COMMANDS[name])
            command: click.Command = getattr(module, name.replace("-", "_"))
            return command

    group = Commands(help="PostgreSQL connections that outlive the cloud.")
    return click.version_option(__version__, prog_name="everpool", message="%(prog)s %(version)s")(
        group
    )


if __name__ == "__main__":
    main()
