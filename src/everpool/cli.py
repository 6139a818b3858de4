"""The command ``everpool``."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

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
# The same for those of ``everpool lab``. Its own module, the room of that name, knows no pools.
_LAB = {
    "torture": "everpool.torture.command",
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
        def __init__(self, modules: dict[str, str], **settings: Any) -> None:
            super().__init__(**settings)
            self.modules = modules

        def list_commands(self, ctx: click.Context) -> list[str]:
            return sorted({*self.modules, *self.commands})

        def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
            if name not in self.modules:
                return self.commands.get(name)
            module = import_module(self.modules[name])
            command: click.Command = getattr(module, name.replace("-", "_"))
            return command

    group = Commands(_COMMANDS, help="PostgreSQL connections that outlive the cloud.")
    group.add_command(
        Commands(_LAB, name="lab", help="Try pools against faults, on servers made for it.")
    )
    return click.version_option(__version__, prog_name="everpool", message="%(prog)s %(version)s")(
        group
    )


if __name__ == "__main__":
    main()
