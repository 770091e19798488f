"""All pictures by name."""

from collections.abc import Callable

import jigsaw_triton as jt
from docs.pictures import boards, changes, charts, graphs
from docs.pictures.plans import EXAMPLES, ROOT, kept, kept_cells

FOLDER = ROOT / "docs" / "images" / "concepts"

TRAFFIC = ROOT / "ensembles" / "traffic"


def _budgets() -> str:
    return graphs.budgets(jt.load_graph(TRAFFIC), kept("traffic-600").graphs["traffic"])


def _request() -> str:
    return graphs.request(jt.load_graph(TRAFFIC), kept("traffic-600").graphs["traffic"])


PICTURES: dict[str, Callable[[], str]] = {
    "jigsaw": lambda: boards.jigsaw(kept("traffic-600")),
    "variants": lambda: charts.variants("traffic", "detect"),
    "budgets": _budgets,
    "jointly": lambda: boards.comparison(kept(f"ar-{letters}") for letters in ("AST", "AS", "AT", "ST")),
    "request": _request,
    "change": lambda: changes.change(EXAMPLES["traffic-600"], kept("traffic-350"), kept("traffic-600")),
    "fit": lambda: charts.fit("traffic-cpu", "detect", "side_480"),
    "cells": lambda: boards.cells(kept_cells()),
}
"""Name -> function that draws the picture."""
