"""Rendered pages with known text, for measurements and examples.

`python pages.py FOLDER --count 4 --flavour hard` writes page images and, for each, a JSON file with its lines.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Flavour = Literal["easy", "hard"]
FLAVOURS: tuple[Flavour, ...] = ("easy", "hard")

HERE = Path(__file__).parent
WIDTH, HEIGHT, MARGIN = 640, 960, 40
CELLS = (MARGIN, 340)
"""Left edges of the two columns of a table, in pixels."""

LONGEST = 16
"""Length of the longest lines, as a multiple of the font size."""

FONTS = ("Vera", "VeraBd", "VeraIt", "DejaVuSansMono", "SourceSerifPro-Regular", "SourceSerifPro-It")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text on a page.

    Attributes:
        text: Characters of the line.
        box: Bounds x0, y0, x1, y1 in pixels, from the top of the capitals to the foot of the descenders.
    """

    text: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered page.

    Attributes:
        image: Pixels, UINT8 [960, 640, 3], RGB.
        lines: Lines in reading order: from top to bottom, and from left to right.
    """

    image: NDArray[np.uint8]
    lines: tuple[Line, ...]


def render(seed: int, flavour: Flavour) -> Page:
    """Renders a page of headings, paragraphs and tables of two columns.

    Args:
        seed: Seed of the page; equal seeds and flavours give equal pages.
        flavour: `easy` is crisp, black on white. `hard` is pale, unevenly lit, turned by up to a degree, blurred, noisy
            and saved as a poor JPEG.
    """
    rng = np.random.default_rng((seed, FLAVOURS.index(flavour)))
    ink, paper = (0, 255) if flavour == "easy" else (int(rng.integers(60, 120)), int(rng.integers(180, 230)))
    picture = Image.new("L", (WIDTH, HEIGHT), paper)
    lines = _typeset(ImageDraw.Draw(picture), rng, ink)
    grey = np.asarray(picture)
    if flavour == "hard":
        grey, lines = _wear(grey, lines, rng, paper)
    return Page(np.repeat(grey[:, :, None], 3, axis=2), tuple(lines))


def _typeset(draw: ImageDraw.ImageDraw, rng: np.random.Generator, ink: int) -> list[Line]:
    words = _words()
    at = int(rng.integers(len(words)))
    lines: list[Line] = []
    y = MARGIN
    while True:
        kind = rng.choice(["heading", "paragraph", "table"], p=[0.2, 0.5, 0.3])
        size = int(rng.integers(18, 28) if kind == "heading" else rng.integers(11, 19))
        face = _font(FONTS[int(rng.integers(len(FONTS)))], size)
        starts, room = (CELLS, size * LONGEST / 2) if kind == "table" else ((MARGIN,), size * LONGEST)
        for _ in range(1 if kind == "heading" else int(rng.integers(2, 5))):
            if y + 2 * size > HEIGHT - MARGIN:
                return lines
            for x in starts:
                text = ""
                target = room * rng.uniform(0.5, 1.0)
                while face.getlength(longer := f"{text} {words[at]}".strip()) <= (target if text else room):
                    text = longer
                    at = (at + 1) % len(words)
                draw.text((x, y), text, fill=ink, font=face)
                left, _, right, _ = draw.textbbox((x, y), text, font=face)
                _, top, _, bottom = draw.textbbox((x, y), "Hpg", font=face)
                lines.append(Line(text, (left, top, right, bottom)))
            y += int(size * 1.8)
        y += int(rng.integers(20, 60))


def _wear(
    grey: NDArray[np.uint8], lines: list[Line], rng: np.random.Generator, paper: int
) -> tuple[NDArray[np.uint8], list[Line]]:
    turn = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), rng.uniform(-1.0, 1.0), 1.0)
    page = cv2.warpAffine(grey, turn, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderValue=paper).astype(np.float32)
    light = np.linspace(rng.uniform(-30, 10), rng.uniform(-30, 10), WIDTH)[None, :] + np.zeros((HEIGHT, 1))
    sigma = rng.uniform(0.6, 1.1)
    page = cv2.GaussianBlur(page, (0, 0), sigma) + light + rng.normal(0.0, rng.uniform(4.0, 12.0), page.shape)
    saved = BytesIO()
    Image.fromarray(np.clip(page, 0, 255).astype(np.uint8)).save(saved, "JPEG", quality=int(rng.integers(20, 45)))
    return np.asarray(Image.open(saved)), [Line(line.text, _turned(line.box, turn)) for line in lines]


def _turned(box: tuple[float, float, float, float], turn: NDArray[np.float64]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    corners = np.array([[x0, y0, 1], [x1, y0, 1], [x1, y1, 1], [x0, y1, 1]]) @ turn.T
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return round(float(left), 1), round(float(top), 1), round(float(right), 1), round(float(bottom), 1)


@lru_cache
def _words() -> list[str]:
    return (HERE / "text.txt").read_text(encoding="utf-8").split()


@lru_cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(HERE / "fonts" / f"{name}.ttf"), size)


def main() -> None:
    """Writes pages as PNG files and their lines as JSON files."""
    parser = argparse.ArgumentParser(description="Render pages with known text.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first page; later pages have the next seeds")
    parser.add_argument("--flavour", choices=FLAVOURS, default="easy")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        page = render(seed, arguments.flavour)
        stem = arguments.folder / f"{arguments.flavour}-{seed:03d}"
        Image.fromarray(page.image).save(stem.with_suffix(".png"))
        stem.with_suffix(".json").write_text(json.dumps([asdict(line) for line in page.lines], indent=1))
        print(f"{stem}.png: {len(page.lines)} lines")


if __name__ == "__main__":
    main()
