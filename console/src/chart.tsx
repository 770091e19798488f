import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { number } from "./format";
import type { Column } from "./model";
import { useMedia } from "./ui";

export interface Line {
  label: string;
  values: Column;
  /** Name of a colour in app.css, without its dashes. */
  colour: string;
  dash?: number[];
  /** True to fill the area below the line instead of dashing it. */
  area?: boolean;
}

export interface ChartProps {
  title: string;
  unit: string;
  t: number[];
  lines: Line[];
  /** Visible times. */
  from: number;
  to: number;
  /** A line across the chart, such as the SLO. */
  limit?: { label: string; value: number };
  /** Smallest and largest value of the axis for the values that are visible. */
  range: (low: number, high: number) => [number, number];
  marks: number[];
  format?: (value: number | null | undefined) => string;
}

/** Widths beside the plot, which the marks above it need to know. */
export const LEFT = 52;
export const RIGHT = 14;
const HEIGHT = 190;

const hours = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const full = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** Returns a format in which times that are `step_s` apart differ. */
const timeOf = (step_s: number) => (step_s < 60 ? full : hours);

/** A time series, with a legend that shows the values at the pointer or else the latest ones. */
export function Chart(props: ChartProps) {
  const { title, unit, t, lines, format = number } = props;
  const element = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const now = useRef(props);
  now.current = props;
  const [at, setAt] = useState<number | null>(null);
  const dark = useMedia("(prefers-color-scheme: dark)");

  useEffect(() => {
    const holder = element.current!;
    const style = getComputedStyle(holder);
    const colour = (name: string) => style.getPropertyValue(`--${name}`).trim();
    const axis = { stroke: colour("ink-2"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const made = new uPlot(
      {
        width: holder.clientWidth,
        height: HEIGHT,
        padding: [8, RIGHT, 0, 0],
        legend: { show: false },
        cursor: { sync: { key: "load" }, points: { size: 6 }, drag: { x: false, y: false } },
        scales: {
          x: { range: () => [now.current.from, now.current.to] },
          y: { range: (_, low, high) => now.current.range(low ?? 0, high ?? 0) },
        },
        axes: [
          { ...axis, size: 30, values: (_, splits, _axis, _space, step) => splits.map((s) => timeOf(step).format(s * 1000)) },
          { ...axis, size: LEFT, values: (_, splits) => splits.map((s) => (now.current.format ?? number)(s)) },
        ],
        series: [
          {},
          ...lines.map((line) => ({
            stroke: colour(line.colour),
            width: line.area ? 1 : 2,
            ...(line.area ? { fill: `${colour(line.colour)}40` } : {}),
            points: { show: false },
            ...(line.dash ? { dash: line.dash } : {}),
          })),
        ],
        hooks: {
          draw: [(u) => drawMarks(u, now.current, colour("ink-2"), colour("bad-line"))],
          setCursor: [(u) => setAt(u.cursor.idx ?? null)],
        },
      },
      [t, ...lines.map((line) => line.values)] as uPlot.AlignedData,
      holder,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: holder.clientWidth, height: HEIGHT }));
    observer.observe(holder);
    return () => {
      observer.disconnect();
      made.destroy();
    };
  }, [dark, lines.length]);

  useEffect(() => {
    plot.current?.setData([t, ...lines.map((line) => line.values)] as uPlot.AlignedData, true);
  });

  const shown = at !== null && at < t.length ? at : t.length - 1;
  const said = lines.map((line) => `${line.label} ${format(line.values[shown])}`).join(", ");
  return (
    <section class="panel chart">
      <div class="panel-head">
        <h2>
          {title} <span class="unit">{unit}</span>
        </h2>
        <span class="note">{at !== null && t[shown] !== undefined ? full.format(t[shown] * 1000) : "now"}</span>
      </div>
      <ul class="chart-legend">
        {lines.map((line) => (
          <li key={line.label}>
            <svg width="22" height="8" aria-hidden="true">
              <line
                x1="0"
                y1="4"
                x2="22"
                y2="4"
                style={{ stroke: `var(--${line.colour})` }}
                stroke-width={line.area ? 8 : 2.5}
                stroke-opacity={line.area ? 0.5 : 1}
                stroke-dasharray={line.dash?.join(" ")}
              />
            </svg>
            {line.label} <b>{format(line.values[shown])}</b>
          </li>
        ))}
        {props.limit && (
          <li>
            <svg width="22" height="8" aria-hidden="true">
              <line x1="0" y1="4" x2="22" y2="4" class="limit-key" />
            </svg>
            {props.limit.label} <b>{format(props.limit.value)}</b>
          </li>
        )}
      </ul>
      <div class="plot" ref={element} role="img" aria-label={`${title}, ${unit}: ${said}`} />
    </section>
  );
}

function drawMarks(u: uPlot, { marks, from, to, limit }: ChartProps, ink: string, bad: string): void {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
  ctx.strokeStyle = ink;
  for (const mark of marks) {
    if (mark < from || mark > to) continue;
    const x = Math.round(u.valToPos(mark, "x", true));
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  if (limit) {
    const y = Math.round(u.valToPos(limit.value, "y", true));
    ctx.strokeStyle = bad;
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.setLineDash([8 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
  }
  ctx.restore();
}
