"""``everpool rules`` and ``everpool dashboard-json``: print the files that come with everpool."""

from __future__ import annotations

from importlib.resources import files

import click

__all__ = ["dashboard_json", "rules"]


@click.command()
def rules() -> None:
    """Print recording and alerting rules for Prometheus.

    \b
    everpool rules > /etc/prometheus/everpool.rules.yml
    """
    _print("rules.yml")


@click.command("dashboard-json")
def dashboard_json() -> None:
    """Print a Grafana dashboard.

    Import it in Grafana, or put it where dashboards are provisioned from.
    """
    _print("dashboard.json")


def _print(name: str) -> None:
    click.echo(files("everpool.telemetry").joinpath(name).read_text("utf-8"), nl=False)
