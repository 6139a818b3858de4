"""``everpool environments``: what is known of clouds, proxies and poolers, for people to read."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import inf
from typing import TYPE_CHECKING, Any

import click

from .catalogue import UnknownEnvironment, entries, find
from .entry import Entry
from .words import described, row, settings, source, trust

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["environments"]


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_data", is_flag=True, help="Print JSON, nothing else.")
def environments(name: str | None, as_data: bool) -> None:
    """List what ends connections on the way to a database, or tell all of one NAME.

    A pool takes the same names: ConnectionPool(..., environment="aws-nlb").
    """
    try:
        entry = None if name is None else find(name)
    except UnknownEnvironment as error:
        raise click.UsageError(str(error)) from None
    if as_data:
        data = [_data(each) for each in entries().values()] if entry is None else _all_of(entry)
        click.echo(json.dumps(data, ensure_ascii=False, indent=1))
        return
    from rich.console import Console

    console = Console(highlight=False)
    if entry is None:
        _print_table(console)
    else:
        _print_entry(console, entry)


def _print_table(console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0))  # the longest name leaves no more at 80
    columns = ("idle cut", "max age", "ends by", "counts", "confidence")
    for column in ("name", *columns):
        right = column in ("idle cut", "max age")
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    group = None
    for entry in entries().values():
        if entry.group != group:
            group = entry.group
            table.add_row()
            table.add_row(Text(group, style="bold"))
        words = row(entry)
        table.add_row(entry.name, *(words[column] for column in columns))
    console.print(table)
    console.print(
        "\nidle cut, max age: after so long without activity, or in all, a connection is ended, by"
        " default. ends by: fin and rst are heard at once, fatal says why, rst-next and silence are"
        " found out by the next use only. counts: with packets TCP keepalives are activity, with"
        " bytes only data are. ?: not known. –: nothing to know."
        "\n\neverpool environments NAME tells all of one."
    )


def _print_entry(console: Console, entry: Entry) -> None:
    from rich.table import Table
    from rich.text import Text

    _, lines = settings(entry)
    console.print(Text(f"{entry.title} ({entry.name})", style="bold"))
    console.print(Text(f"\n{entry.text}\n"))
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    for label, text in described(entry):
        facts.add_row(label, Text(text))
    facts.add_row("Confidence", trust(entry))
    if entry.aliases:
        facts.add_row("Also called", Text(", ".join(entry.aliases)))
    if entry.hosts:
        facts.add_row("Host names", Text(", ".join(entry.hosts)))
    console.print(facts)
    console.print(Text("\nSources", style="bold"))
    for url in entry.sources:
        console.print(Text(source(url)), soft_wrap=True)  # unbroken, to be copied
    console.print(Text("\nSettings that follow", style="bold"))
    console.print(Text(f'ConnectionPool(..., environment="{entry.name}")\n'), soft_wrap=True)
    reasons = Table.grid(padding=(0, 2))
    for line in lines:
        setting, _, why = line.partition(": ")
        reasons.add_row(Text(setting, no_wrap=True), Text(why))
    console.print(reasons)


def _data(entry: Entry) -> dict[str, Any]:
    """An entry in JSON's terms: "never" for infinity, null for what is not known."""
    values = asdict(entry)
    facts = values.pop("facts")
    del facts["name"]
    return {name: _plain(value) for name, value in {**values, **facts}.items()}


def _all_of(entry: Entry) -> dict[str, Any]:
    policy, _ = settings(entry)
    decided = {
        name: {"value": _plain(getattr(policy, name)), **asdict(reason)}
        for name, reason in policy.reasons.items()
    }
    return {**_data(entry), "settings": decided}


def _plain(value: Any) -> Any:
    return "never" if value == inf else value
