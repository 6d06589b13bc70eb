"""Draws curves as small SVG files: no library, no style sheet, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from tests.longlife.sampling import Curve

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 8, 40, 34
COLOURS = ("#2f7ed8", "#d9822b", "#3fa34d", "#b04fc4", "#c0392b", "#7f8c8d")
POINTS_MAX = 240


def draw(file: Path, title: str, unit: str, curves: Sequence[Curve], marks: Sequence[tuple[float, str]] = (), scale: float = 1.0) -> None:
    """Write one picture.

    Args:
        file: where.
        title, unit: what is drawn, and in what after `scale`.
        curves: one line each.
        marks: (seconds, text): vertical lines.
        scale: what values are multiplied with.
    """
    points = [point for curve in curves for point in curve.points]
    last, most = max(at for at, _ in points) or 1.0, max(value for _, value in points) * scale or 1.0
    top = _round_up(most)

    def x(at: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * at / last, 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top, 1)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11" fill="#888">']
    parts.append(f'<text x="{LEFT}" y="14" font-size="13">{escape(title)}</text>')
    for part in range(5):
        value = top * part / 4
        parts.append(f'<path d="M{LEFT} {y(value)}H{WIDTH - RIGHT}" stroke="#8884"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{y(value) + 4}" text-anchor="end">{value:,.4g}</text>')
        at = last * part / 4
        parts.append(f'<text x="{x(at)}" y="{HEIGHT - BOTTOM + 14}" text-anchor="{"end" if part == 4 else "middle"}">{at:,.0f} s</text>')
    parts.append(f'<text x="{LEFT - 4}" y="{TOP - 8}" text-anchor="end">{escape(unit)}</text>')
    for place, (at, text) in enumerate(marks):
        parts.append(f'<path d="M{x(at)} {TOP}V{HEIGHT - BOTTOM}" stroke="#888" stroke-dasharray="3 3"/>')
        parts.append(f'<text x="{x(at) + 3}" y="{TOP + 10 + 12 * (place % 6)}">{escape(text)}</text>')
    for place, curve in enumerate(curves):
        colour = COLOURS[place % len(COLOURS)]
        line = " ".join(f"{x(at)},{y(value * scale)}" for at, value in _thinned(curve.points))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        row = 28 if place < 4 else HEIGHT - 4
        parts.append(f'<text x="{LEFT + 8 + 150 * (place % 4)}" y="{row}" fill="{colour}">{escape(curve.name)}</text>')
    file.write_text("\n".join([*parts, "</svg>\n"]))


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most so many points; of each group the highest, so that no peak is lost."""
    size = -(-len(points) // POINTS_MAX)
    return [max(points[at : at + size], key=lambda point: point[1]) for at in range(0, len(points), size or 1)]


def _round_up(value: float) -> float:
    """The next number of the kind 1, 2, 4, 5, 8 times a power of ten."""
    power = 10 ** (len(str(int(value))) - 1) if value >= 1 else 1
    return next(float(step * power) for step in (1, 2, 4, 5, 8, 10, 20) if step * power >= value)
