"""``everpool migrate``: the table that ``commit="token"`` needs, shown or made."""

from __future__ import annotations

import json

import click

from ..conninfo import redact
from .token import GRANT, KEPT, SCHEMA, SWEEP, TABLE

__all__ = ["migrate"]


@click.command()
@click.argument("dsn", required=False)
@click.option("--grant", "roles", multiple=True, metavar="ROLE", help="Let ROLE use the table.")
@click.option("--json", "as_data", is_flag=True, help="Print JSON, nothing else.")
def migrate(dsn: str | None, roles: tuple[str, ...], as_data: bool) -> None:
    """Create the table that pool.run(commit="token") writes its tokens to.

    Without a DSN, the SQL is only shown, for your own migrations. Doing it twice does no harm.
    Owner of the table is who runs it; others need --grant.
    """
    import psycopg
    from psycopg import sql

    named = [GRANT.format(role=sql.Identifier(role).as_string()) for role in roles]
    script = SCHEMA + "".join(named)
    if dsn is None:
        if as_data:
            click.echo(json.dumps({"applied": False, "sql": script}))
        else:
            click.echo(f"-- everpool migrate{''.join(f' --grant {role}' for role in roles)}")
            click.echo(script.rstrip())
            click.echo(f"\n-- Pools delete tokens older than {KEPT // 86400} days by themselves:")
            click.echo(f"-- {SWEEP.decode()}")
        return
    try:
        with psycopg.connect(dsn) as conn:
            conn.execute("SET LOCAL lock_timeout = '5s'")
            conn.execute(script.encode())
    except psycopg.Error as ex:
        diag = ex.diag.message_primary
        why = f"{ex.sqlstate}: {diag}" if diag else redact(str(ex), dsn, {})
        raise click.ClickException(f"nothing was changed: {why}") from None
    if as_data:
        click.echo(json.dumps({"applied": True, "table": TABLE, "granted": list(roles)}))
    else:
        to = f", and {', '.join(roles)} may use it" if roles else ""
        click.echo(f"The table {TABLE} is there{to}.")
