"""`python -m docs.pictures`: draws the pictures of the concept pages from the plans that are kept."""

import argparse

from docs.pictures.drawing import FOLDER, PICTURES
from docs.pictures.plans import keep_all


def main() -> None:
    """Draws all pictures, from new plans if asked."""
    parser = argparse.ArgumentParser(prog="python -m docs.pictures", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("draw", "plan"), default="draw", help="`plan` plans again first")
    if parser.parse_args().what == "plan":
        keep_all()
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw())
        print(FOLDER / f"{name}.svg")


main()
