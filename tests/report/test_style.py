import re
from itertools import combinations, pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from jigsaw_triton.report.style import STYLE

Colour = NDArray[np.float64]

VISION = {
    "normal": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
"""Kind of colour vision -> its simulation for linear sRGB (Machado, Oliveira and Fernandes, 2009)."""

_TO_XYZ = np.array([[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8729]])
"""Linear sRGB to CIE XYZ, relative to its white."""

LIGHT, DARK = STYLE.split("@media screen", 1)


def colours(sheet: str) -> dict[str, Colour]:
    """Returns the first value of each colour of a style sheet, as linear sRGB."""
    found: dict[str, Colour] = {}
    for name, digits in re.findall(r"--(\w+):#(\w+)", sheet):
        long = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
        value = np.array([int(long[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        found.setdefault(name, np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4))
    return found


def difference(one: Colour, other: Colour, vision: str) -> float:
    """Returns the CIE 1976 difference of two colours, as seen with a kind of colour vision."""
    labs = []
    for colour in (one, other):
        xyz = _TO_XYZ @ np.clip(np.array(VISION[vision]) @ colour, 0, 1)
        root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        labs.append(np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])]))
    return float(np.linalg.norm(labs[0] - labs[1]))


def contrast(one: Colour, other: Colour) -> float:
    """Returns the contrast of two colours as WCAG 2 defines it."""
    low, high = sorted(float(_TO_XYZ[1] @ colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("sheet", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
def test_colours_can_be_told_apart(sheet: str, vision: str) -> None:
    found = colours(sheet)
    distinct, ordered = ([found[f"{kind}{index}"] for index in range(7)] for kind in "hs")
    assert min(difference(*pair, vision) for pair in combinations(distinct, 2)) > 18
    assert min(difference(*pair, vision) for pair in pairwise(ordered)) > 7


@pytest.mark.parametrize("sheet", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_stand_out_from_the_charts(sheet: str) -> None:
    found = colours(sheet)
    assert min(contrast(found[f"{kind}{index}"], found["card"]) for kind in "hs" for index in range(7)) >= 2.95
    assert all(contrast(found[name], found["paper"]) >= 4.5 for name in ("ink", "soft", "link", "error", "warning"))
