"""The types that users see are those of psycopg_pool."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.packages import PACKAGES

SAMPLE = Path(__file__).with_name("typing_sample.py")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_strict_type_checker_is_content_with_what_users_write(
    package: str, tmp_path: Path
) -> None:
    source = SAMPLE.read_text().replace("from everpool import", f"from {package} import")
    sample = tmp_path / f"uses_{package}.py"
    sample.write_text(source)
    # mypy's cache of the last run, of `make lint` perhaps, makes this a matter of seconds.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.11", str(sample)],
        cwd=SAMPLE.parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
