"""Draws the rooms of the package: ``python docs/draw_rooms.py``; ``--check`` tells if that is due.

The layers come from the contract in pyproject.toml, the arrows and the table from the imports in
the code. The picture is explanation/rooms.svg; the table stands in explanation/architecture.md.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any
from xml.sax.saxutils import escape

import grimp

ROOT = Path(__file__).parent.parent
PACKAGE = "mlaas4hep_dask"
PICTURE = ROOT / "docs" / "explanation" / "rooms.svg"
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
BEGIN, END = "<!-- rooms: written by docs/draw_rooms.py -->", "<!-- end of rooms -->"
WIDTH, BOX, HEIGHT, ROW, MARGIN = 920, 112, 34, 84, 24  # pixels
FONT = 'font-family="sans-serif" font-size="14"'
TIP = (
    '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0L8 4L0 8z" fill="#667788"/></marker>'
)

FLOOR = 2  # of the lowest layers: arrows to them would hide all others
SWEEPS = 40
LIBRARIES = {"dask": "Dask", "uproot": "files", "torch": "torch"}  # one of each kind

Layers = Sequence[Sequence[str]]
Imports = Mapping[str, set[str]]


def contracts() -> list[dict[str, Any]]:
    """The contracts of import-linter."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    return found


def layers() -> list[list[str]]:
    """The rooms of each layer, the highest first."""
    (contract,) = (each for each in contracts() if each["type"] == "layers")
    return [[room.strip() for room in layer.split("|")] for layer in contract["layers"]]


def imports(rooms: Sequence[str]) -> dict[str, set[str]]:
    """The rooms that each room imports."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    names = {f"{PACKAGE}.{room}": room for room in rooms}
    for name in names:
        if graph.find_children(name):
            graph.squash_module(name)
    return {
        room: {names[each] for each in graph.find_modules_directly_imported_by(name) & names.keys()}
        - {room}
        for name, room in names.items()
    }


def reduced(found: Imports) -> dict[str, set[str]]:
    """The imports without those to which a longer way leads."""

    def below(room: str) -> set[str]:
        return found[room].union(*map(below, found[room]))

    return {room: found[room] - set().union(*map(below, found[room])) for room in found}


def svg(rows: Layers, arrows: Imports) -> str:
    """The picture."""
    floor = {room for row in rows[-FLOOR:] for room in row}
    arrows = {room: arrows[room] - floor for room in arrows}
    place = _places(rows, arrows)
    height = MARGIN * 2 + ROW * (len(rows) - 1) + HEIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {FONT}>',
        "<title>The rooms of the package by layer, and what they import</title>",
        f"<defs>{TIP}</defs>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    used: set[tuple[int, int]] = set()
    for room in place:
        targets = sorted(arrows[room], key=lambda target: place[target][1])
        for index, target in enumerate(targets):
            start = place[room][1] + BOX * ((index + 1) / (len(targets) + 1) - 0.5)
            lines.append(_arrow(room, target, start, rows, place, used))
    for room, (number, middle) in place.items():
        top = MARGIN + ROW * number
        lines.append(
            f'<rect x="{middle - BOX / 2:.0f}" y="{top}" width="{BOX}" height="{HEIGHT}" rx="5" '
            'fill="#eef3f8" stroke="#335577"/>'
        )
        lines.append(
            f'<text x="{middle:.0f}" y="{top + HEIGHT / 2 + 5:.0f}" text-anchor="middle" '
            f'fill="#112233">{escape(room)}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])


def _places(rows: Layers, arrows: Imports) -> dict[str, tuple[int, float]]:
    """The layer of each room, and where its middle is: near the rooms that it has to do with."""
    middle = {
        room: WIDTH * (index + 1) / (len(row) + 1) for row in rows for index, room in enumerate(row)
    }
    near = {
        room: [*arrows[room], *(other for other in arrows if room in arrows[other])]
        for room in arrows
    }
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 else rows[::-1]:
            wanted = {
                room: mean(map(middle.__getitem__, near[room])) if near[room] else middle[room]
                for room in row
            }
            places = sorted(wanted.values())
            least, centre = BOX + 2 * MARGIN, mean(places)
            for index in range(1, len(places)):  # apart from each other, from the left
                places[index] = max(places[index], places[index - 1] + least)
            lowest, highest = BOX / 2 + MARGIN - places[0], WIDTH - BOX / 2 - MARGIN - places[-1]
            shift = max(lowest, min(highest, centre - mean(places)))  # and within the picture
            places = [place + shift for place in places]
            middle.update(zip(sorted(wanted, key=lambda room: wanted[room]), places, strict=True))
    return {room: (number, middle[room]) for number, row in enumerate(rows) for room in row}


def _arrow(
    room: str,
    target: str,
    start: float,
    rows: Layers,
    place: Mapping[str, tuple[int, float]],
    used: set[tuple[int, int]],
) -> str:
    """A line from the lower edge of one box to the upper edge of another, around those between."""
    (first, _), (last, end) = place[room], place[target]
    points = [(start, MARGIN + ROW * first + HEIGHT)]
    for number in range(first + 1, last):
        straight = start + (end - start) * (number - first) / (last - first)
        middles = sorted(place[each][1] for each in rows[number])
        edges = [-BOX / 2, *middles, WIDTH + BOX / 2]
        gaps = [
            min(max(straight, left + BOX / 2 + 9), right - BOX / 2 - 9)
            for left, right in pairwise(edges)
            if right - left > BOX + 18
        ]
        gap = min(gaps, key=lambda middle: abs(middle - straight))
        side = 1 if gap >= straight else -1  # away from the box, where others go the same way
        while (number, round(gap / 8)) in used:
            gap += 8 * side
        used.add((number, round(gap / 8)))
        top = MARGIN + ROW * number
        points += [(gap, top), (gap, top + HEIGHT)]
    points.append((end, MARGIN + ROW * last - 2))
    path = f"M{points[0][0]:.0f} {points[0][1]:.0f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        bend = (y1 - y0) / 2
        path += f"C{x0:.0f} {y0 + bend:.0f} {x1:.0f} {y1 - bend:.0f} {x1:.0f} {y1:.0f}"
    return (
        f'<path d="{path}" fill="none" stroke="#667788" stroke-width="1.2" '
        f'marker-end="url(#tip)"><title>{room} imports {target}</title></path>'
    )


def table(rooms: Sequence[str], found: Imports) -> str:
    """What each room is, what it imports, and which libraries it must not."""
    lines = ["| room | what it is | imports | must not import |", "|---|---|---|---|"]
    for room in rooms:
        names = ", ".join(f"`{name}`" for name in rooms if name in found[room]) or "nothing"
        lines.append(f"| `{room}` | {_purpose(room)} | {names} | {_forbidden(room)} |")
    return "\n".join(lines)


def _forbidden(room: str) -> str:
    forbidden = {
        library
        for contract in contracts()
        if contract["type"] == "forbidden" and f"{PACKAGE}.{room}" in contract["source_modules"]
        for library in contract["forbidden_modules"]
    }
    return ", ".join(kind for library, kind in LIBRARIES.items() if library in forbidden)


def _purpose(room: str) -> str:
    """The first line of the room's docstring, without its name."""
    path = ROOT / PACKAGE / room
    module = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    line = (ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "").splitlines()[0]
    head, colon, rest = line.partition(": ")
    text = rest if colon and len(head.split()) == 1 else line
    return (text[:1].lower() + text[1:]).rstrip(".").replace("``", "`").replace("|", "\\|")


def drawn() -> dict[Path, str]:
    """What the picture and the page have to hold."""
    rows = layers()
    rooms = [room for row in rows for room in row]
    found = imports(rooms)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page = f"{before}{BEGIN}\n{table(rooms, found)}\n{END}{after}"
    return {PICTURE: svg(rows, reduced(found)), PAGE: page}


def main() -> int:
    """Draw, or tell whether that is due; the exit status."""
    due = {path: text for path, text in drawn().items() if not _holds(path, text)}
    for path, text in due.items():
        name = path.relative_to(ROOT)
        if "--check" in sys.argv[1:]:
            sys.stderr.write(f"{name} is not what the code says: run python docs/draw_rooms.py\n")
        else:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{name} is drawn\n")
    return 1 if due and "--check" in sys.argv[1:] else 0


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
