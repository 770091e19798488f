import { useMemo } from "preact/hooks";
import { query } from "../api";
import { clock, ms, plural } from "../format";
import type { Span, Trace, TraceHead } from "../model";
import { link, route, setParameter } from "../route";
import { state } from "../store";
import { Choice, Empty, ErrorNote, Head, Panel, Select, useLoaded } from "../ui";

const LIMIT = 200;

export function Traces() {
  const values = route.value.values;
  const graphs = Object.keys(state.value!.graphs);
  const graph = values.get("graph") ?? "";
  const id = values.get("id");
  const { data, error, reload } = useLoaded<TraceHead[]>(query("/api/traces", { graph, limit: LIMIT }));
  const order = values.get("order") === "slowest" ? "slowest" : "latest";
  const traces = useMemo(() => (order === "slowest" ? (data ?? []).toSorted((a, b) => b.ms - a.ms) : (data ?? [])), [data, order]);
  const chosen = id ?? traces[0]?.id ?? null;
  const slowest = Math.max(1, ...traces.map((trace) => trace.ms));
  return (
    <>
      <Head title="Traces">
        {graphs.length > 1 && (
          <Select
            label="Graph"
            value={graph}
            options={[["", "all graphs"], ...graphs.map((name) => [name, name] as const)]}
            onChange={(value) => setParameter("graph", value)}
          />
        )}
        <Choice
          label="Order of the traces"
          value={order}
          options={[
            ["latest", "Latest"],
            ["slowest", "Slowest"],
          ]}
          onChange={(value) => (setParameter("id", ""), setParameter("order", value))}
        />
        <button type="button" class="button" onClick={reload}>
          Refresh
        </button>
      </Head>
      {error != null && <ErrorNote error={error} />}
      {data && data.length === 0 && (
        <Empty>
          No request was traced. <code>jigsaw-triton trace</code> traces some.
        </Empty>
      )}
      {data && data.length > 0 && (
        <div class="traces">
          <ul class="trace-list" aria-label={plural(data.length, "trace")}>
            {traces.map((trace) => (
              <li key={trace.id}>
                <button type="button" aria-pressed={trace.id === chosen} onClick={() => setParameter("id", trace.id)}>
                  <span>
                    <b>{ms(trace.ms)}</b> {trace.graph}{failed(trace.outcome) && <span class="bad-text"> {trace.outcome}</span>}
                  </span>
                  <time>{clock(trace.t)}</time>
                  {trace.request && <span class="trace-request">{trace.request}</span>}
                  <span class="trace-bar" aria-hidden="true">
                    <span style={{ width: `${(trace.ms / slowest) * 100}%` }} />
                  </span>
                </button>
              </li>
            ))}
          </ul>
          {chosen !== null && <Waterfall id={chosen} />}
        </div>
      )}
    </>
  );
}

const failed = (outcome: string | null | undefined): boolean => !!outcome && outcome !== "answered";

const KINDS: Record<Span["kind"], string> = {
  gateway: "from the queue to the answer",
  queue: "waiting in the queue",
  call: "call of a worker",
  model: "model computes",
};

function Waterfall({ id }: { id: string }) {
  const { data, error } = useLoaded<Trace>(`/api/traces/${encodeURIComponent(id)}`);
  if (error != null) return <ErrorNote error={error} />;
  if (!data) return <Empty>Loading the trace…</Empty>;
  const { spans } = data;
  const end = Math.max(0.001, ...spans.map((span) => span.end_ms));
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => share * end);
  const critical = state.value!.graphs[data.graph]?.slo_latency_ms;
  return (
    <Panel title={`Request of ${data.graph}`} note={`${ms(end)}${critical ? `, SLO ${ms(critical)}` : ""}, ${plural(spans.length, "span")}`}>
      <ul class="trace-key">
        {(Object.keys(KINDS) as Span["kind"][]).map((kind) => (
          <li key={kind}>
            <span class={`span-swatch span-${kind}`} aria-hidden="true" /> {kind}: {KINDS[kind]}
          </li>
        ))}
      </ul>
      {data.message && <p class="banner bad">{data.message}</p>}
      <div class="scroll" tabIndex={0} role="region" aria-label="Waterfall">
        <table class="waterfall">
          <thead>
            <tr>
              <th scope="col">task</th>
              <th scope="col">kind</th>
              <th scope="col">worker</th>
              <th scope="col" class="num">
                took
              </th>
              <th scope="col" class="axis">
                <span class="sr">time</span>
                {ticks.map((tick, index) => (
                  <span key={index} style={{ left: `${(tick / end) * 100}%` }} class={index === 0 ? "first" : index === ticks.length - 1 ? "last" : ""}>
                    {ms(tick)}
                  </span>
                ))}
              </th>
            </tr>
          </thead>
          <tbody>
            {spans.map((span, index) => (
              <tr key={index}>
                <th scope="row">
                  {span.task}
                  {span.items != null && span.items > 1 && <span class="note"> ×{span.items}</span>}
                </th>
                <td>{span.kind}</td>
                <td>
                  {span.worker ? <a href={link("gpus", { worker: span.worker, show: "single" })}>{span.worker}</a> : ""}
                  {span.variant && <span class="note"> {span.variant}</span>}
                </td>
                <td class="num">{ms(span.end_ms - span.start_ms)}</td>
                <td class="lane">
                  <span
                    class={`span span-${span.kind}`}
                    style={{ left: `${(span.start_ms / end) * 100}%`, width: `${Math.max(0.3, ((span.end_ms - span.start_ms) / end) * 100)}%` }}
                  />
                  {failed(span.outcome) && <span class="bad-text lane-outcome">{span.outcome}</span>}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Panel>
  );
}
