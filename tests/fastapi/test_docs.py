"""The quick start in the documentation does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.fastapi.conftest import running
from tests.support.database import Database

PAGE = Path(__file__).parents[2] / "docs" / "fastapi.md"


@pytest.mark.anyio
async def test_the_quick_start(dsn: str, database: Database) -> None:
    database.execute("insert into books values ('Middlemarch')")
    source = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)[0]
    names: dict[str, Any] = {"__name__": "quick_start"}
    exec(compile(source.replace("postgresql://app@db/app", dsn), str(PAGE), "exec"), names)
    async with running(names["app"]) as client:
        assert (await client.get("/books")).json() == ["Middlemarch"]
        assert (await client.get("/internal/live")).status_code == 200
