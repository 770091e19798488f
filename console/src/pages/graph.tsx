import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { accuracy, ms, number, percent, plural, rate, times } from "../format";
import { fansOut, INPUTS, type Layout, layout, nodeSize, OUTPUTS, usedVariants } from "../graph_layout";
import type { Graph, GraphEdge, GraphTask } from "../model";
import { taskClass } from "../palette";
import { route, setParameter } from "../route";
import { state } from "../store";
import { Empty, Head, Meter, Panel, Select, Stat, Table } from "../ui";

/** Width for the graph, in pixels, below which it runs downwards. */
const NARROW = 650;
/** Smallest scale at which the texts of a graph are legible. */
const SMALLEST = 0.75;

export function GraphPage() {
  const graphs = state.value!.graphs;
  const names = Object.keys(graphs);
  const asked = route.value.values.get("graph") ?? "";
  const name = graphs[asked] ? asked : names[0];
  const graph = name === undefined ? undefined : graphs[name];
  return (
    <>
      <Head title="Graph">
        {names.length > 1 && (
          <Select label="Graph" value={name ?? ""} options={names.map((n) => [n, n])} onChange={(value) => setParameter("graph", value)} />
        )}
      </Head>
      {graph && name !== undefined ? (
        <>
          <Figures graph={graph} />
          <Drawing name={name} graph={graph} />
          <Tasks name={name} graph={graph} />
          <Edges graph={graph} />
        </>
      ) : (
        <Empty>No graph is served yet.</Empty>
      )}
    </>
  );
}

function Figures({ graph }: { graph: Graph }) {
  const over = graph.arrivals_rps != null && graph.arrivals_rps > graph.capacity_rps;
  return (
    <dl class="stats">
      <Stat label="arrivals" value={rate(graph.arrivals_rps)} note={`planned ${rate(graph.demand_rps)}`} {...(over ? { tone: "bad" as const } : {})} />
      <Stat label="capacity" value={rate(graph.capacity_rps)} />
      <Stat label={`planned p${graph.percentile}`} value={ms(graph.latency_ms)} note={`SLO ${ms(graph.slo_latency_ms)}`} />
      <Stat label="accuracy" value={accuracy(graph.accuracy)} note={`SLO ${accuracy(graph.slo_accuracy)}`} />
      {graph.target && <Stat label="target" value={graph.target} />}
    </dl>
  );
}

function Drawing({ name, graph }: { name: string; graph: Graph }) {
  const element = useRef<HTMLDivElement>(null);
  const [room, setRoom] = useState(innerWidth);
  const narrow = room < NARROW;
  useLayoutEffect(() => {
    const observer = new ResizeObserver(([entry]) => setRoom(entry!.contentRect.width));
    observer.observe(element.current!);
    return () => observer.disconnect();
  }, []);
  // The layout depends on the shape of the graph alone, not on its rates.
  const shape = JSON.stringify([
    narrow,
    Object.entries(graph.tasks).map(([task, { variants }]) => [task, usedVariants({ variants }).length]),
    graph.edges.map((edge) => [edge.from, edge.to, edge.when, fansOut(edge)]),
  ]);
  const placed = useMemo<Layout>(() => layout(graph, narrow), [shape]);
  const zoom = Math.max(SMALLEST, Math.min(1, room / placed.width));
  const critical = new Set(criticalEdges(graph));
  return (
    <div class={`drawing${narrow ? " narrow" : ""}`} ref={element} role="region" aria-label="Task graph" tabIndex={0}>
      <div class="drawing-inner" style={{ width: `${placed.width}px`, height: `${placed.height}px`, zoom }}>
        <svg width={placed.width} height={placed.height} aria-hidden="true">
          <defs>
            {["plain", "critical"].map((kind) => (
              <marker key={kind} id={`arrow-${kind}`} viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
                <path d="M0 0.500L8 4L0 7.500z" class={`arrow ${kind}`} />
              </marker>
            ))}
          </defs>
          {placed.edges.map((edge) => {
            const kind = critical.has(`${edge.from}\n${edge.to}`) ? "critical" : "plain";
            return <path key={`${edge.from} ${edge.to}`} d={edge.path} class={`edge ${kind}`} marker-end={`url(#arrow-${kind})`} />;
          })}
        </svg>
        {placed.edges.map((edge) => (
          <div key={`${edge.from} ${edge.to}`} class="edge-label" style={{ left: `${edge.x}px`, top: `${edge.y}px` }}>
            <EdgeLabel edges={graph.edges.filter((e) => e.from === edge.from && e.to === edge.to)} />
          </div>
        ))}
        {placed.nodes.map(({ id, x, y }) => {
          const { width, height } = nodeSize(graph, id, narrow);
          const task = graph.tasks[id];
          const tensors = id === INPUTS ? graph.inputs : graph.outputs;
          const style = { left: `${x - width / 2}px`, top: `${y - height / 2}px`, width: `${width}px`, height: `${height}px` };
          return task ? (
            <TaskNode key={id} graph={name} id={id} task={task} critical={graph.critical_path.includes(id)} style={style} />
          ) : (
            <div key={id} class="node end" style={style}>
              <strong>{id === INPUTS ? "inputs" : "outputs"}</strong>
              <span title={tensors.join(", ")}>{tensors.join(", ")}</span>
            </div>
          );
        })}
      </div>
      <p class="drawing-key">
        <span class="key-line critical" aria-hidden="true" /> critical path: {graph.critical_path.join(" → ")}
      </p>
    </div>
  );
}

function criticalEdges(graph: Graph): string[] {
  const path = [INPUTS, ...graph.critical_path, OUTPUTS];
  return path.slice(1).map((to, index) => `${path[index]}\n${to}`);
}

/** The rate of the edge, and the rows that each call makes: measured, with the planned number beside. */
function EdgeLabel({ edges }: { edges: GraphEdge[] }) {
  const rates = edges.map((edge) => edge.rate_rps).filter((value) => value != null);
  const fan = edges.find(fansOut);
  const when = edges.find((edge) => edge.when)?.when;
  return (
    <>
      {rates.length > 0 && <strong>{rate(Math.max(...rates))}</strong>}
      {fan && <span class="fan">{fanOut(fan)}</span>}
      {when && <span class="when">if {when}</span>}
    </>
  );
}

function fanOut(edge: GraphEdge): string {
  if (edge.fan_out_measured == null) return `plan ${times(edge.fan_out_planned)}`;
  return edge.fan_out_planned == null ? times(edge.fan_out_measured) : `${times(edge.fan_out_measured)} (plan ${times(edge.fan_out_planned)})`;
}

interface TaskNodeProps {
  graph: string;
  id: string;
  task: GraphTask;
  critical: boolean;
  style: Record<string, string>;
}

function TaskNode({ graph, id, task, critical, style }: TaskNodeProps) {
  const p99 = task.measured?.p99_ms;
  const over = p99 != null && task.budget_ms != null && p99 > task.budget_ms;
  const label = `p99 ${ms(p99)} of the budget of ${ms(task.budget_ms)}`;
  return (
    <div class={`node task${critical ? " critical" : ""}`} style={style}>
      <div class="node-head">
        <span class={`swatch ${taskClass(graph, id)}`} aria-hidden="true" />
        <strong>{id}</strong>
        <span class="node-rate">{rate(task.measured?.rate_rps ?? task.rate_rps)}</span>
      </div>
      {task.budget_ms != null && <Meter share={p99 == null ? 0 : p99 / task.budget_ms} label={label} />}
      <p class="node-budget">
        <span class={over ? "over" : ""}>
          {task.step ? "Python step, " : ""}p99 {number(p99)} of {ms(task.budget_ms)}
        </span>
        {over && <span class="bad-text">over budget</span>}
      </p>
      <ul class="shares">
        {usedVariants(task).map(([variant, { share_measured, share_planned }]) => (
          <li key={variant}>
            <span class="share-name">{variant}</span>
            <span>{percent(share_measured ?? share_planned)}</span>
          </li>
        ))}
      </ul>
    </div>
  );
}

function Tasks({ name, graph }: { name: string; graph: Graph }) {
  return (
    <Panel title="Tasks" note="measured beside planned">
      <Table
        label="Tasks"
        headings={["task", "#rate", "#planned", "#p50", "#p99", "#budget", "#queue", "variant: measured share (planned), accuracy"]}
      >
        {Object.entries(graph.tasks).map(([task, found]) => (
          <TaskRow key={task} graph={name} task={task} found={found} />
        ))}
      </Table>
    </Panel>
  );
}

function TaskRow({ graph, task, found }: { graph: string; task: string; found: GraphTask }) {
  const { measured, budget_ms, rate_rps, variants } = found;
  const used = usedVariants(found);
  const unused = Object.keys(variants).length - used.length;
  return (
    <tr>
      <th scope="row">
        <span class={`swatch ${taskClass(graph, task)}`} aria-hidden="true" /> {task}
      </th>
      <td class="num">{rate(measured?.rate_rps)}</td>
      <td class="num">{rate(rate_rps)}</td>
      <td class="num">{ms(measured?.p50_ms)}</td>
      <td class="num">{ms(measured?.p99_ms)}</td>
      <td class="num">{ms(budget_ms)}</td>
      <td class="num">{ms(measured?.queue_ms)}</td>
      <td>
        {used.map(([variant, v]) => (
          <div key={variant}>
            {variant}: {percent(v.share_measured)} ({percent(v.share_planned)}), {number(v.accuracy)}
          </div>
        ))}
        {unused > 0 && <span class="note">{plural(unused, "variant")} not in use</span>}
      </td>
    </tr>
  );
}

function Edges({ graph }: { graph: Graph }) {
  return (
    <Panel title="Edges">
      <Table label="Edges" headings={["from", "to", "tensors", "#rate", "#fan-out", "#planned", "condition"]}>
        {graph.edges.map((edge, index) => (
          <tr key={index}>
            <td>{edge.from}</td>
            <td>{edge.to}</td>
            <td>{edge.tensors.join(", ")}</td>
            <td class="num">{rate(edge.rate_rps)}</td>
            <td class="num">{times(edge.fan_out_measured)}</td>
            <td class="num">{times(edge.fan_out_planned)}</td>
            <td>{edge.when ?? ""}</td>
          </tr>
        ))}
      </Table>
    </Panel>
  );
}
