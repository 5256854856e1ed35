# SPDX-License-Identifier: Apache-2.0
"""The contact sheet: each picture as it is sent, under its policy key, and small with red and blue exchanged.

In: policy key to picture. Out: one PNG, for a person's eye.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw

from pi05_websocket.data import UInt8Array

__all__ = ["write_sheet"]

_HEIGHT = 360
_SMALL = 120
_MARGIN = 16
_LINE = 20
_INK, _PAPER, _GREY = (20, 20, 20), (255, 255, 255), (110, 110, 110)


def write_sheet(path: Path, pictures: Mapping[str, UInt8Array], origins: Mapping[str, str]) -> None:
    """Write the sheet.

    Args:
        path: Where to; folders are made.
        pictures: Policy key to `(rows, columns, 3)` RGB.
        origins: Policy key to the robot's camera.
    """
    tiles = [_tile(key, picture, origins[key]) for key, picture in pictures.items()]
    width = sum(tile.width for tile in tiles) + _MARGIN * (len(tiles) + 1)
    sheet = Image.new("RGB", (width, max(tile.height for tile in tiles) + 2 * _MARGIN), _PAPER)
    left = _MARGIN
    for tile in tiles:
        sheet.paste(tile, (left, _MARGIN))
        left += tile.width + _MARGIN
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _tile(key: str, picture: UInt8Array, origin: str) -> Image.Image:
    rows, columns = picture.shape[:2]
    size = (max(1, round(columns * _HEIGHT / rows)), _HEIGHT)
    small = (max(1, round(columns * _SMALL / rows)), _SMALL)
    lines = (key, f"camera {origin}, sent as {columns} x {rows} pixels")
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    question = "if this one looks right,\nred and blue are exchanged"
    wide = [size[0], small[0] + 8 + 180, *(int(pen.textlength(line)) + 4 for line in lines)]
    tile = Image.new("RGB", (max(wide), 2 * _LINE + _HEIGHT + 8 + _SMALL), _PAPER)
    draw = ImageDraw.Draw(tile)
    draw.text((0, 0), lines[0], _INK)
    draw.text((0, _LINE), lines[1], _GREY)
    tile.paste(Image.fromarray(picture).resize(size), (0, 2 * _LINE))
    below = 2 * _LINE + _HEIGHT + 8
    tile.paste(Image.fromarray(picture[..., ::-1].copy()).resize(small), (0, below))
    draw.text((small[0] + 8, below), question, _GREY)
    return tile
