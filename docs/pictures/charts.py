"""Draws profiles: which variants a task may choose from, and how a fit completes what was measured."""

import jigsaw_triton as jt
from docs.pictures.canvas import INNER, INSET, LINE, document, words
from docs.pictures.plans import ROOT
from jigsaw_triton.profiles.report.figures import ReportFigures, TaskFigures, VariantFigures, report_figures
from jigsaw_triton.profiles.report.panels import accuracy_front, latency_panels, shades, slices_of
from jigsaw_triton.report.frame import Panel

_MOST_SCALE = 1.3


def _figures(app: str) -> ReportFigures:
    folder = ROOT / "ensembles" / app
    return report_figures(
        jt.load_profiles(folder), file="profiles.csv", graph=jt.load_graph(folder), bases={}, rooms={}
    )


def _task(app: str, name: str) -> TaskFigures:
    (found,) = (task for task in _figures(app).tasks if task.task == name)
    return found


def _drawn(panel: Panel, title: str, heading: str, note: str) -> str:
    """Returns a chart as a picture of its own."""
    _, _, wide, high = map(float, panel.chart.get("viewBox", "").split())
    y, scale = INSET + 2 * LINE + 8, min(_MOST_SCALE, INNER / wide)
    box = {"x": INSET + (INNER - scale * wide) / 2, "y": y, "width": scale * wide, "height": scale * high}
    panel.chart.attrib.update({name: f"{value:g}" for name, value in box.items()}, overflow="visible")
    lines = words(heading, INSET, INSET + 12, "t bold"), words(note, INSET, INSET + 12 + LINE, "s")
    return document(title, y + scale * high + INSET, *lines, panel.chart)


def variants(app: str, task: str) -> str:
    """Draws the accuracy of each variant of a task against its throughput."""
    figures = _figures(app)
    panel = accuracy_front(_task(app, task), figures.slo)
    assert panel is not None
    title = f"Throughput per compute slice against accuracy of the variants of {task}"
    return _drawn(panel, title, f"Variants of {task}", "best throughput within the SLO, by accuracy")


def fit(app: str, task: str, variant: str) -> str:
    """Draws measured and fitted latencies of a variant on its smallest slice."""
    found = _variant(_task(app, task), variant)
    panel = next(latency_panels(found, shades(row.key.instances for row in found.rows)))
    kind = slices_of(found.rows)[0]
    heading = f"{task} {variant} on a {kind} of {found.rows[0].key.gpu}"
    note = "filled: measured; hollow: fitted; bars: p50 to p95; lines: 1 to 4 instances"
    return _drawn(panel, f"Latency against batch of {variant} on a {kind}: measured and fitted", heading, note)


def _variant(task: TaskFigures, name: str) -> VariantFigures:
    (found,) = (variant for variant in task.variants if variant.name == name)
    return found
