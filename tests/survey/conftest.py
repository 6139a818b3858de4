from __future__ import annotations

from .standin import install

install()
