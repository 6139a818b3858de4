"""What a user installs: the wheel, built without network and looked into."""

from __future__ import annotations

import email
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import everpool

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "everpool"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel):
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert tops == {"everpool", f"everpool-{everpool.__version__}.dist-info"}
    wanted = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted == {name for name in wheel.namelist() if name.startswith("everpool/")}
    assert "everpool/py.typed" in wanted


def test_every_async_module_has_its_sync_twin(wheel):
    names = [name for name in wheel.namelist() if name.endswith(".py")]
    written = {name for name in names if name.startswith("everpool/_async/")}
    generated = {name for name in names if name.startswith("everpool/_sync/")}
    assert {name.replace("/_async/", "/_sync/") for name in written} == generated


def test_metadata(wheel, metadata):
    assert metadata["Name"] == "everpool"
    assert metadata["Version"] == everpool.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())
    # The description on the package index is the README.
    description = metadata.get_payload(decode=True).decode()
    assert description.strip() == (ROOT / "README.md").read_text("utf-8").strip()


def test_a_plain_install_brings_only_psycopg_and_its_pool(metadata):
    needed = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    assert sorted(needed) == ["psycopg-pool>=3.3.1", "psycopg>=3.3.6"]


def test_the_command_is_installed(wheel):
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/entry_points.txt"))
    assert "everpool = everpool.cli:main" in wheel.read(name).decode()
