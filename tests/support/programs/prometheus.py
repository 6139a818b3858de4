"""Prometheus, which collects metrics, and Alertmanager, which sends alarms; with the tools that check their files."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from .process import HOST, Program, find, run, running

__all__ = ["alertmanager", "amtool", "prometheus", "promtool"]

_PROMETHEUS = "prometheus"
_ALERTMANAGER = "prometheus-alertmanager"


def promtool(*args: str, stdin: str = "") -> tuple[int, str]:
    """Run promtool; return its exit code and all it wrote. ``check metrics`` reads *stdin*."""
    return run([find("promtool", _PROMETHEUS), *args], stdin)


def amtool(*args: str, stdin: str = "") -> tuple[int, str]:
    """Run amtool; return its exit code and all it wrote."""
    return run([find("amtool", _ALERTMANAGER), *args], stdin)


def prometheus(
    config_text: str, files: Mapping[str, str] | None = None
) -> AbstractContextManager[Program]:
    """A Prometheus with this configuration, next to which lie *files*, of rules say.

    ``scrape_interval`` may be as short as 1ms. Its `json` answers ``/api/v1/query?query=up``.
    """
    path = find("prometheus", _PROMETHEUS)
    files = {"prometheus.yml": config_text, **(files or {})}
    return running(lambda directory: _Prometheus(path, directory, ports=1), files)


def alertmanager(
    config_text: str, files: Mapping[str, str] | None = None
) -> AbstractContextManager[Program]:
    """An Alertmanager with this configuration, next to which lie *files*, of templates say.

    Its `json` answers ``/api/v2/alerts``, and takes new ones there.
    """
    path = find("prometheus-alertmanager", _ALERTMANAGER)
    files = {"alertmanager.yml": config_text, **(files or {})}
    return running(lambda directory: _Alertmanager(path, directory, ports=1), files)


class _Prometheus(Program):
    def arguments(self) -> list[str]:
        return [
            f"--config.file={self.directory}/prometheus.yml",
            f"--storage.tsdb.path={self.directory}/data",
            f"--web.listen-address={HOST}:{self.port}",
        ]

    def ready(self) -> None:
        self.get("/-/ready")


class _Alertmanager(Program):
    def arguments(self) -> list[str]:
        return [
            f"--config.file={self.directory}/alertmanager.yml",
            f"--storage.path={self.directory}/data",
            f"--web.listen-address={HOST}:{self.port}",
            "--cluster.listen-address=",  # alone
        ]

    def ready(self) -> None:
        self.get("/-/ready")
