import { useMemo } from "preact/hooks";
import { Chart, LEFT, RIGHT } from "../chart";
import { accuracy, clock, ms, number, NONE, rate, seconds } from "../format";
import type { Column, History, PastChange } from "../model";
import { link, route, setParameter } from "../route";
import { KEPT_S, Series } from "../series";
import { sample, state } from "../store";
import { Choice, Empty, ErrorNote, Head, Panel, Select, Stat, useLoaded } from "../ui";

type Span = "300" | "900" | "3600";

const none = (length: number): Column => new Array<null>(length).fill(null);

export function Load() {
  const { graphs, deployment } = state.value!;
  const values = route.value.values;
  const { data, error } = useLoaded<History>(`/api/history?seconds=${KEPT_S}`, deployment.generation);
  const series = useMemo(() => (data ? new Series(data) : null), [data]);
  const names = useMemo(() => [...new Set([...Object.keys(graphs), ...(series?.graphs.keys() ?? [])])], [graphs, series]);
  const asked = values.get("graph") ?? "";
  const name = names.includes(asked) ? asked : (names[0] ?? "");
  const latest = sample.value;
  if (series && latest) series.add(latest);
  const span = (values.get("span") as Span | null) ?? (series && series.length_s <= 300 ? "300" : "900");
  return (
    <>
      <Head title="Load">
        {names.length > 1 && (
          <Select label="Graph" value={name} options={names.map((n) => [n, n])} onChange={(value) => setParameter("graph", value)} />
        )}
        <Choice
          label="Time shown"
          value={span}
          options={[
            ["300", "5 min"],
            ["900", "15 min"],
            ["3600", "1 hour"],
          ]}
          onChange={(value) => setParameter("span", value)}
        />
      </Head>
      {error != null && <ErrorNote error={error} />}
      {series && name ? (
        <Charts series={series} latest={latest?.t} changes={data?.changes ?? []} name={name} span={Number(span)} />
      ) : (
        error == null && <Empty>{series ? "No graph is served yet." : "Loading the last hour…"}</Empty>
      )}
    </>
  );
}

interface ChartsProps {
  series: Series;
  /** Time of the latest sample. The series stays the same object, so only this time shows that it has grown. */
  latest: number | undefined;
  changes: PastChange[];
  name: string;
  span: number;
}

function Charts({ series, changes, name, span }: ChartsProps) {
  const { t } = series;
  const graph = state.value!.graphs[name];
  const columns = series.graphs.get(name);
  const to = t.at(-1) ?? Date.now() / 1000;
  const from = to - span;
  const column = (field: "arrivals_rps" | "served_rps" | "refused_rps" | "failed_rps" | "p50_ms" | "p99_ms" | "accuracy"): Column =>
    columns?.[field] ?? none(t.length);
  const marks = changes.map((change) => change.t);
  const shared = { t, from, to, marks };
  const last = (values: Column) => values.at(-1);
  const slo = graph?.slo_latency_ms;
  const p99 = last(column("p99_ms"));
  const refused = last(column("refused_rps"));
  const joules = last(series.joules);
  const least = graph?.slo_accuracy ?? 0;
  return (
    <>
      <dl class="stats">
        <Stat label="arrivals" value={rate(last(column("arrivals_rps")))} note={`planned ${rate(graph?.demand_rps)}`} />
        <Stat label="served" value={rate(last(column("served_rps")))} />
        <Stat label="refused" value={rate(refused)} {...(refused ? { tone: "bad" as const } : {})} />
        <Stat label="p99" value={ms(p99)} note={`SLO ${ms(slo)}`} {...(p99 != null && slo != null && p99 > slo ? { tone: "bad" as const } : {})} />
        <Stat label="accuracy" value={accuracy(last(column("accuracy")))} note={`SLO ${accuracy(graph?.slo_accuracy)}`} />
        <Stat label="slices" value={number(last(series.slices))} />
        {joules != null && <Stat label="energy" value={`${number(joules)} J`} note="a request" />}
      </dl>
      <Changes changes={changes} from={from} to={to} />
      <div class="charts">
        <Chart
          {...shared}
          title="Requests"
          unit="per second"
          lines={[
            { label: "served", values: column("served_rps"), colour: "series-2", area: true },
            { label: "arrivals", values: column("arrivals_rps"), colour: "series-1" },
            { label: "refused", values: column("refused_rps"), colour: "series-3", dash: [2, 3] },
            { label: "failed", values: column("failed_rps"), colour: "series-4", dash: [5, 2, 1, 2] },
          ]}
          range={(_, high) => [0, Math.max(1, high * 1.1)]}
        />
        <Chart
          {...shared}
          title="Latency"
          unit="ms"
          lines={[
            { label: "p99", values: column("p99_ms"), colour: "series-1" },
            { label: "p50", values: column("p50_ms"), colour: "series-2", dash: [8, 3] },
          ]}
          {...(slo != null ? { limit: { label: "SLO", value: slo } } : {})}
          range={(_, high) => [0, Math.max(high, slo ?? 1) * 1.12]}
        />
        <Chart
          {...shared}
          title="Accuracy served"
          unit="relative to the best variants"
          lines={[{ label: "accuracy", values: column("accuracy"), colour: "series-1" }]}
          {...(graph ? { limit: { label: "SLO", value: graph.slo_accuracy } } : {})}
          range={(low, high) => [Math.max(0, Math.min(low || 1, least) - 0.03), Math.max(1, high)]}
          format={accuracy}
        />
        <Chart
          {...shared}
          title="Slices in use"
          unit="compute slices"
          lines={[{ label: "slices", values: series.slices, colour: "series-1" }]}
          range={(_, high) => [0, Math.max(1, Math.ceil(high * 1.15))]}
        />
        {series.joules.some((value) => value != null) && (
          <Chart
            {...shared}
            title="Energy"
            unit="joules a request"
            lines={[{ label: "energy", values: series.joules, colour: "series-1" }]}
            range={(_, high) => [0, Math.max(0.1, high * 1.15)]}
          />
        )}
      </div>
    </>
  );
}

/** Marks of plan changes above the charts, and the details of the chosen change. */
function Changes({ changes, from, to }: { changes: PastChange[]; from: number; to: number }) {
  const chosen = Number(route.value.values.get("generation") ?? NaN);
  const choose = (generation: number) => setParameter("generation", generation === chosen ? "" : String(generation));
  const visible = changes.filter((change) => change.t >= from && change.t <= to);
  const change = changes.findLast((found) => found.generation === chosen);
  const place = change ? visible.indexOf(change) : -1;
  // On a narrow page marks may overlap, so the changes beside the chosen one have buttons of their own.
  const beside = place < 0 ? [] : ([["Earlier", visible[place - 1]], ["Later", visible[place + 1]]] as const);
  if (visible.length === 0 && !change) return null;
  return (
    <Panel title="Plan changes" note={`${visible.length} in the time shown; choose one`}>
      <div class="marks" style={{ marginLeft: `${LEFT}px`, marginRight: `${RIGHT}px` }}>
        {visible.map((found) => (
          <button
            key={found.t}
            type="button"
            class="mark"
            aria-pressed={found === change}
            style={{ left: `${((found.t - from) / (to - from)) * 100}%` }}
            aria-label={`Generation ${found.generation} at ${clock(found.t)}`}
            onClick={() => choose(found.generation)}
          >
            {found.generation}
          </button>
        ))}
      </div>
      {change && (
        <div class="mark-detail" role="status">
          <h3>
            Generation {change.from != null ? `${change.from} → ` : ""}
            {change.generation}
          </h3>
          <dl class="facts-list">
            <div>
              <dt>when</dt>
              <dd>{clock(change.t)}</dd>
            </div>
            <div>
              <dt>why</dt>
              <dd>{change.why || NONE}</dd>
            </div>
            <div>
              <dt>took</dt>
              <dd>{seconds(change.seconds)}</dd>
            </div>
            <div>
              <dt>slices</dt>
              <dd>
                {number(change.slices_before)} → {number(change.slices_after)}
              </dd>
            </div>
          </dl>
          {lines(change.summary).map((line, index) => (
            <p key={index}>{line}</p>
          ))}
          <p class="beside">
            <a href={link("events", { text: `generation ${change.generation}` })}>Events of generation {change.generation}</a>
            {beside.map(
              ([word, found]) =>
                found && (
                  <button key={word} type="button" class="button" onClick={() => choose(found.generation)}>
                    {word} change
                  </button>
                ),
            )}
          </p>
        </div>
      )}
    </Panel>
  );
}

const lines = (summary: PastChange["summary"]): string[] => (Array.isArray(summary) ? summary : summary ? [summary] : []);
