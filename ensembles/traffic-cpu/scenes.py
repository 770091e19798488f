"""Composed scenes whose number plates and faces are known, for measurements and examples.

`python scenes.py FOLDER --count 4` writes images of scenes and, for each, a JSON file with what is in it. It takes the
backgrounds and the faces from scikit-image, which `pip install scikit-image` brings.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
WIDTH, HEIGHT = 640, 480
BACKGROUNDS = ("brick", "gravel", "grass", "coffee", "chelsea", "rocket")
"""Images of scikit-image. None contains text or faces of people."""

MAX_PLATES, MAX_PICTURES = 4, 3
TEXT_HEIGHTS, SIDES = (14, 30), (32, 90)
"""Least and largest height of a plate's letters, and side of a face or another picture, in pixels."""

TILT = 40.0
"""Largest angle by which a face is turned, in degrees."""

LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
"""Letters of plates. I, O and Q are left out, as on many real plates, because they resemble digits."""

TRIES, GAP = 50, 8
"""Attempts to find a free place for a part, and pixels between parts."""

Box = tuple[float, float, float, float]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Plate:
    """A number plate in a scene.

    Attributes:
        text: Letters and digits, without the space.
        box: Bounds x0, y0, x1, y1 of the text, in pixels.
    """

    text: str
    box: Box


@dataclass(frozen=True, slots=True)
class Scene:
    """A composed scene.

    Attributes:
        image: Pixels, UINT8 [480, 640, 3], RGB.
        plates: Number plates.
        faces: Bounds x0, y0, x1, y1 of each face, in pixels.
        others: Bounds of each pasted picture that is no face.
    """

    image: Pixels
    plates: tuple[Plate, ...]
    faces: tuple[Box, ...]
    others: tuple[Box, ...]


def render(seed: int, faces: Sequence[Pixels], others: Sequence[Pixels]) -> Scene:
    """Composes a scene of plates, faces and other pictures on a photograph, with blur, noise and JPEG compression.

    Args:
        seed: Seed of the scene; equal seeds and pictures give equal scenes.
        faces: Faces [N, N] (grey) or [N, N, 3] to choose from, each of which fills its image.
        others: Pictures of something else to choose from.
    """
    rng = np.random.default_rng(seed)
    image = _background(BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))], rng)
    taken: list[Box] = []
    boxes: tuple[list[Box], list[Box]] = ([], [])
    plates = []
    for pictures, found in zip((faces, others), boxes, strict=True):
        for _ in range(int(rng.integers(MAX_PICTURES + 1))):
            side = int(rng.integers(*SIDES))
            picture = _turned(pictures[int(rng.integers(len(pictures)))], side, rng)
            if place := _free(side, side, taken, rng):
                x, y = place
                image[y : y + side, x : x + side] = picture if picture.ndim == 3 else picture[:, :, None]
                found.append(taken[-1])
    for _ in range(int(rng.integers(1, MAX_PLATES + 1))):
        text = _number(rng)
        plate, mask, box = _plate(text, rng)
        high, wide = mask.shape
        if place := _free(wide, high, taken, rng):
            x, y = place
            image[y : y + high, x : x + wide][mask > 0] = plate[mask > 0]
            plates.append(Plate(text.replace(" ", ""), (box[0] + x, box[1] + y, box[2] + x, box[3] + y)))
    return Scene(_photographed(image, rng), tuple(plates), *map(tuple, boxes))


def pictures_of_lfw() -> tuple[Pixels, Pixels]:
    """Returns 100 faces and 100 other pieces of photographs, UINT8 [100, 25, 25] each: scikit-image's `lfw_subset`."""
    images = (np.asarray(_skimage().lfw_subset()) * 255).astype(np.uint8)
    return images[:100], images[100:]


def public_pictures() -> tuple[list[Pixels], list[Pixels]]:
    """Returns a face and another picture, UINT8 [N, N, 3], from scikit-image's photographs in the public domain."""
    return [_skimage().astronaut()[60:180, 165:285]], [_skimage().coffee()[100:220, 240:360]]


def _background(name: str, rng: np.random.Generator) -> Pixels:
    photo = np.asarray(getattr(_skimage(), name)())
    photo = np.repeat(photo[:, :, None], 3, axis=2) if photo.ndim == 2 else photo
    scale = max(WIDTH / photo.shape[1], HEIGHT / photo.shape[0])
    large = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    x, y = (int(rng.integers(spare + 1)) for spare in (large.shape[1] - WIDTH, large.shape[0] - HEIGHT))
    return np.ascontiguousarray(large[y : y + HEIGHT, x : x + WIDTH])


def _turned(picture: Pixels, side: int, rng: np.random.Generator) -> Pixels:
    """Scales a picture to a square and turns its content, as a tilted head."""
    large = cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-TILT, TILT), 1.0)
    turned: Pixels = cv2.warpAffine(large, turn, (side, side), borderMode=cv2.BORDER_REPLICATE)
    return turned


def _number(rng: np.random.Generator) -> str:
    letters, digits = rng.choice(list(LETTERS), 5), rng.integers(10, size=2)
    return "".join([*letters[:2], *map(str, digits), " ", *letters[2:]])


def _plate(text: str, rng: np.random.Generator) -> tuple[Pixels, Pixels, Box]:
    """Draws a plate and turns it a little. Returns its pixels, the mask of its pixels, and the bounds of the text."""
    size = int(rng.integers(*TEXT_HEIGHTS) * 1.4)
    font = ImageFont.truetype(str(HERE / "fonts" / "VeraBd.ttf"), size)
    margin = size // 3
    left, top, right, bottom = (int(side) for side in font.getbbox(text))
    wide, high = right - left + 2 * margin, bottom - top + 2 * margin
    paper = [(245, 245, 245), (240, 200, 40)][int(rng.integers(2))]
    drawn = Image.new("RGB", (wide, high), paper)
    pen = ImageDraw.Draw(drawn)
    pen.rectangle((1, 1, wide - 2, high - 2), outline=(20, 20, 20), width=max(1, size // 16))
    pen.text((margin - left, margin - top), text, fill=(15, 15, 15), font=font)
    turn = cv2.getRotationMatrix2D((wide / 2, high / 2), rng.uniform(-8.0, 8.0), 1.0)
    spare = np.abs(turn[0, 1]) * np.array([high, wide])
    turn[:, 2] += spare / 2
    canvas = (int(wide + spare[0]), int(high + spare[1]))
    dimmed = (np.asarray(drawn) * rng.uniform(0.5, 1.0)).astype(np.uint8)
    inner = [(margin, margin), (wide - margin, margin), (wide - margin, high - margin), (margin, high - margin)]
    points = np.hstack([np.array(inner, np.float64), np.ones((4, 1))]) @ turn.T
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    mask = cv2.warpAffine(np.full((high, wide), 255, np.uint8), turn, canvas, flags=cv2.INTER_NEAREST)
    return cv2.warpAffine(dimmed, turn, canvas), mask, (float(x0), float(y0), float(x1), float(y1))


def _free(wide: int, high: int, taken: list[Box], rng: np.random.Generator) -> tuple[int, int] | None:
    """Finds a place that overlaps nothing, and adds it to `taken`.

    Returns:
        Top left corner of the place; None if none was found.
    """
    for _ in range(TRIES):
        x, y = int(rng.integers(WIDTH - wide)), int(rng.integers(HEIGHT - high))
        if all(x > b[2] + GAP or b[0] > x + wide + GAP or y > b[3] + GAP or b[1] > y + high + GAP for b in taken):
            taken.append((float(x), float(y), float(x + wide), float(y + high)))
            return x, y
    return None


def _photographed(image: Pixels, rng: np.random.Generator) -> Pixels:
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2)).astype(np.float32)
    noisy = np.clip(blurred + rng.normal(0.0, rng.uniform(2.0, 10.0), image.shape), 0, 255).astype(np.uint8)
    _, saved = cv2.imencode(".jpg", noisy[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 80))))
    return np.ascontiguousarray(cv2.imdecode(saved, cv2.IMREAD_COLOR)[:, :, ::-1])


@cache
def _skimage() -> Any:
    try:
        from skimage import data
    except ImportError:
        raise SystemExit("scenes are composed of scikit-image's photographs: pip install scikit-image") from None
    return data


def main() -> None:
    """Writes scenes as PNG files and what is in them as JSON files."""
    parser = argparse.ArgumentParser(description="Compose scenes with known plates and faces.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first scene; later scenes have the next seeds")
    parser.add_argument("--lfw", action="store_true", help="take faces from the data set Labeled Faces in the Wild")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    faces, others = pictures_of_lfw() if arguments.lfw else public_pictures()
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        scene = render(seed, faces, others)
        stem = arguments.folder / f"scene-{seed:03d}"
        Image.fromarray(scene.image).save(stem.with_suffix(".png"))
        content = {"plates": [asdict(plate) for plate in scene.plates], "faces": scene.faces}
        stem.with_suffix(".json").write_text(json.dumps(content, indent=1))
        print(f"{stem}.png: {len(scene.plates)} plates, {len(scene.faces)} faces")


if __name__ == "__main__":
    main()
