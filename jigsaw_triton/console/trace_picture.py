"""Pictures of a trace: one bar for each wait, stay and batch of a request, on a common time axis."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Literal

from jigsaw_triton.console.trace import Stay, Trace
from jigsaw_triton.gpus.board import Row, Span, distinct_colours

Kind = Literal["wait", "stay", "call", "failed"]

MAX_CALLS = 32
"""Number of batches of one task that are drawn as separate bars."""

_FAILED = "#B00020"
_MODEL = "█"
_SHADES = {"wait": "░", "stay": "▒", "call": "▓", "failed": "▓"}
_OPACITY = {"wait": 0.2, "stay": 0.4, "call": 0.6, "failed": 0.6}
_LEGEND = {"wait": "in the queue", "stay": "at the gateway", "call": "at a worker", "run": "model running"}
_LABEL_COLUMNS = 46

_LINE = 20
_CHARACTER = 6.7
_BARS = 640
_TOP = 58


@dataclass(frozen=True, slots=True)
class Bar:
    """An interval of a request's time.

    Attributes:
        task: Name of the task, which determines the colour.
        depth: Nesting level: 0 for the queue and the gateway, 1 for a batch at a worker.
        label: Text beside the bar.
        start_ms: Start of the interval, in milliseconds since the request's arrival.
        end_ms: End of the interval, in milliseconds since the request's arrival.
        kind: Kind of the interval, which determines the shade.
        runs: Intervals within the bar during which models ran, as (start, end).
    """

    task: str
    depth: int
    label: str
    start_ms: float
    end_ms: float
    kind: Kind
    runs: tuple[tuple[float, float], ...] = ()

    @property
    def took(self) -> str:
        """Length of the interval in milliseconds, as text."""
        return f"{self.end_ms - self.start_ms:.1f}"


def bars(trace: Trace) -> tuple[Bar, ...]:
    """Returns the bars from top to bottom: for each task its wait, its stay at the gateway, and its batches."""
    return tuple(bar for stay in trace.stays for bar in (*_of_task(trace, stay), *_of_calls(trace, stay)))


def title(trace: Trace) -> str:
    """Returns a one-line summary of a trace."""
    message = next((stay.hop.message for stay in trace.stays if stay.hop.message), "")
    suffix = f": {message}" if message else ""
    return f"{trace.graph}, request {trace.request}: {trace.total_ms:.1f} ms, {trace.outcome}{suffix}"


def _of_task(trace: Trace, stay: Stay) -> Iterator[Bar]:
    hop = stay.hop
    arrived_ms, taken_ms, ended_ms = map(trace.at_ms, (stay.arrived_s, hop.taken_s, stay.ended_s))
    if arrived_ms < taken_ms:
        yield Bar(hop.task, 0, f"{hop.task}: queue", arrived_ms, taken_ms, "wait")
    answered = hop.outcome == "answered"
    label = f"{hop.task}: {'gateway' if answered else hop.outcome}"
    yield Bar(hop.task, 0, label, taken_ms, ended_ms, "stay" if answered else "failed")


def _of_calls(trace: Trace, stay: Stay) -> Iterator[Bar]:
    taken_ms = trace.at_ms(stay.hop.taken_s)
    pairs = sorted(zip(stay.hop.calls, stay.runs, strict=True), key=lambda pair: pair[0].sent_ms)
    for call, runs in pairs[:MAX_CALLS]:
        # A Python step has no variants.
        where = f"{call.variant} on {call.worker}" if call.variant else call.worker
        retry = ", retry" if call.again else ""
        failure = "" if call.outcome == "answered" else f", {call.outcome}"
        yield Bar(
            task=stay.hop.task,
            depth=1,
            label=f"{where}, {call.items} of {call.batch} items{retry}{failure}",
            start_ms=taken_ms + call.sent_ms,
            end_ms=taken_ms + call.ended_ms,
            kind="failed" if failure else "call",
            runs=tuple((trace.at_ms(run.began_s), trace.at_ms(run.began_s) + run.took_ms) for run in runs),
        )
    if rest := [call for call, _ in pairs[MAX_CALLS:]]:
        first, last = min(call.sent_ms for call in rest), max(call.ended_ms for call in rest)
        yield Bar(stay.hop.task, 1, f"{len(rest)} more batches", taken_ms + first, taken_ms + last, "call")


def draw_text(trace: Trace, *, width: int = 100) -> tuple[Row, ...]:
    """Draws a trace for a terminal.

    Args:
        trace: Trace to draw.
        width: Width of the terminal in columns. The picture is legible from 80 columns on.
    """
    drawn = bars(trace)
    colours = _colours(drawn)
    labels = min(_LABEL_COLUMNS, max(len(_indented(bar)) for bar in drawn))
    scale = max(10, width - labels - 20) / max(trace.total_ms, 1e-9)
    rows: list[Row] = [((title(trace), "bold"),), (), ((f"{'':{labels}} {'at ms':>8} {'ms':>8}", "dim"),)]
    for bar in drawn:
        text = _cut(_indented(bar), labels)
        figures = f"{bar.start_ms:8.1f} {bar.took:>8} "
        drawing = _text_bar(bar, scale, colours[bar.task])
        rows.append(((f"{text:{labels}} ", "bold" if bar.depth == 0 else ""), (figures, ""), *drawing))
    legend = "  ".join(f"{_SHADES.get(kind, _MODEL)} {words}" for kind, words in _LEGEND.items())
    return (*rows, (), ((legend, "dim"),))


def _text_bar(bar: Bar, scale: float, task_colour: str) -> Iterator[Span]:
    colour = _FAILED if bar.kind == "failed" else task_colour
    start = int(bar.start_ms * scale)
    stop = max(start + 1, round(bar.end_ms * scale))
    yield " " * start, ""
    middles = [(column + 0.5) / scale for column in range(start, stop)]
    cells = [_MODEL if any(a <= at < b for a, b in bar.runs) else _SHADES[bar.kind] for at in middles]
    for shade, same in groupby(cells):
        yield shade * len(list(same)), colour


def draw_svg(trace: Trace) -> str:
    """Draws a trace as a standalone SVG document, whose tooltips show all figures."""
    drawn = bars(trace)
    colours = _colours(drawn)
    left = max(len(_indented(bar)) for bar in drawn) * _CHARACTER + 24
    scale = _BARS / max(trace.total_ms, 1e-9)
    bottom = _TOP + _LINE * len(drawn)
    width, height = max(left + _BARS + 80, len(title(trace)) * 8 + 24), bottom + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
        f'height="{height}" role="img" aria-label="{escape(title(trace))}" '
        'font-family="ui-monospace, monospace" font-size="11">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        f'<text x="12" y="20" font-size="13" font-weight="bold">{escape(title(trace))}</text>\n',
        *_axis(trace.total_ms, left, scale, bottom),
        *(_svg_bar(bar, _TOP + _LINE * index, left, scale, colours[bar.task]) for index, bar in enumerate(drawn)),
        *_svg_legend(left, bottom + 14),
        "</svg>\n",
    ]
    return "".join(parts)


def _svg_bar(bar: Bar, y: int, left: float, scale: float, task_colour: str) -> str:
    colour = _FAILED if bar.kind == "failed" else task_colour
    weight = ' font-weight="bold"' if bar.depth == 0 else ""
    runs = "".join(f", model {start:.1f} to {end:.1f} ms" for start, end in bar.runs)
    spans = [(bar.start_ms, bar.end_ms, _OPACITY[bar.kind]), *((start, end, 1.0) for start, end in bar.runs)]
    boxes = "".join(
        f'<rect x="{left + start * scale:.1f}" y="{y}" width="{max(1.0, (end - start) * scale):.1f}" '
        f'height="{_LINE - 5}" rx="2" fill="{colour}" fill-opacity="{opacity}"/>'
        for start, end, opacity in spans
    )
    return (
        f"<g><title>{escape(f'{bar.label}: {bar.start_ms:.1f} to {bar.end_ms:.1f} ms{runs}')}</title>"
        f'<text x="{12 + 2 * _CHARACTER * bar.depth:.0f}" y="{y + 11}"{weight}>{escape(bar.label)}</text>{boxes}'
        f'<text x="{left + bar.end_ms * scale + 5:.1f}" y="{y + 11}" fill="#444">{bar.took} ms</text></g>\n'
    )


def _svg_legend(left: float, y: float) -> Iterator[str]:
    x = left
    for kind, words in _LEGEND.items():
        yield f'<rect x="{x:.0f}" y="{y}" width="12" height="12" rx="2" fill="#555" '
        yield f'fill-opacity="{_OPACITY.get(kind, 1.0)}"/><text x="{x + 17:.0f}" y="{y + 10}">{words}</text>\n'
        x += 17 + _CHARACTER * len(words) + 16


def _axis(total_ms: float, left: float, scale: float, bottom: float) -> Iterator[str]:
    """Yields vertical lines at round times, with labels."""
    step = next(s for s in _steps() if s * 8 >= total_ms)
    for number in range(int(total_ms / step) + 1):
        x = left + number * step * scale
        yield (
            f'<line x1="{x:.1f}" y1="{_TOP - 8}" x2="{x:.1f}" y2="{bottom}" stroke="#ddd"/>'
            f'<text x="{x:.1f}" y="{_TOP - 12}" text-anchor="middle" fill="#666">{number * step:g} ms</text>\n'
        )


def _steps() -> Iterator[float]:
    """Yields 1, 2 and 5 times each power of ten, from 0.0001 up."""
    base = 0.0001
    while True:
        yield from (base, 2 * base, 5 * base)
        base *= 10


def _colours(drawn: tuple[Bar, ...]) -> dict[str, str]:
    return distinct_colours(dict.fromkeys(bar.task for bar in drawn))


def _indented(bar: Bar) -> str:
    return "  " * bar.depth + bar.label


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
