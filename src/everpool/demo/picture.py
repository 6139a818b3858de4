"""The final screen as an SVG that refers to nothing outside itself."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console, Group
from rich.terminal_theme import TerminalTheme

from everpool.demo import screen
from everpool.demo.run import Moment

__all__ = ["write"]

_COLUMNS = 88
_ID = "everpool"  # fixed, so that the same text gives the same file

# Rich's own frame loads a font from elsewhere. Each piece of text comes with its length, so any
# font of equal widths will do.
_FRAME = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<title>everpool demo</title>
<style>
.{unique_id}-matrix {{
  font-family: "DejaVu Sans Mono", Menlo, Consolas, "Liberation Mono", monospace;
  font-size: {char_height}px;
  line-height: {line_height}px;
}}
.{unique_id}-title {{ font: bold 18px sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""

_NIGHT = TerminalTheme(
    (24, 27, 33),
    (205, 210, 218),
    [
        (70, 76, 88), (232, 104, 104), (126, 196, 120), (222, 184, 96),
        (110, 160, 224), (196, 136, 214), (104, 190, 196), (205, 210, 218),
    ],
)  # fmt: skip


def write(moment: Moment, path: Path) -> None:
    """Write the picture of how a run went.

    :raises OSError: *path* cannot be written.
    """
    console = Console(
        file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8"),
        width=_COLUMNS,
        record=True,
        force_terminal=True,
        color_system="truecolor",
        no_color=False,
        legacy_windows=False,
    )
    console.print(Group(screen.introduction(moment.plan), screen.ending(moment, console)))
    svg = console.export_svg(title="everpool demo", theme=_NIGHT, code_format=_FRAME, unique_id=_ID)
    path.write_text(svg, encoding="utf-8")
