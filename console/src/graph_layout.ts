import dagre from "@dagrejs/dagre";
import type { Graph, GraphEdge, GraphTask, Maybe } from "./model";

export interface Layout {
  width: number;
  height: number;
  nodes: { id: string; x: number; y: number }[];
  edges: { from: string; to: string; path: string; x: number; y: number }[];
}

/** Names of the ends of a graph in its edges. No task can have them: one is reserved, the other contains a space. */
export const INPUTS = "inputs";
export const OUTPUTS = "graph outputs";

const END = { width: 140, height: 56 };
const TASK_WIDTH = 216;
/** Width with which two tasks fit side by side on a phone. */
const NARROW_TASK_WIDTH = 150;
const TASK_HEAD = 86;
const VARIANT_HEIGHT = 20;
/** Sizes of labels with a rate alone, and with the fan-out or condition below it. */
const SHORT = { width: 62, height: 22 };
const LONG = { width: 132, height: 54 };
const NARROW_LONG = { width: 118, height: 54 };
const MARGIN = 12;

/** True if the calls for each call of the task before differ from one by more than noise. */
const spreads = (calls: Maybe<number>): boolean => calls != null && Math.abs(calls - 1) > 0.03;

/** True for an edge whose fan-out is worth a label. */
export const fansOut = (edge: GraphEdge): boolean => Boolean(edge.for_each) || spreads(edge.fan_out_planned) || spreads(edge.fan_out_measured);

const isLong = (edge: GraphEdge): boolean => Boolean(edge.when) || fansOut(edge);

/** Variants that get requests, or are planned to. */
export const usedVariants = ({ variants }: Pick<GraphTask, "variants">) =>
  Object.entries(variants).filter(([, { share_planned, share_measured }]) => (share_planned ?? 0) > 0 || (share_measured ?? 0) > 0);

/** Size of a node. Each call returns a new object, because dagre writes the place of the node into it. */
export function nodeSize(graph: Graph, id: string, narrow: boolean): { width: number; height: number } {
  const task = graph.tasks[id];
  if (!task) return { ...END };
  const height = TASK_HEAD + VARIANT_HEIGHT * usedVariants(task).length;
  return { width: narrow ? NARROW_TASK_WIDTH : TASK_WIDTH, height };
}

/** Places tasks and edges. Edges between the same two tasks are one line. */
export function layout(graph: Graph, narrow: boolean): Layout {
  const drawn = new dagre.graphlib.Graph();
  drawn.setGraph({ rankdir: narrow ? "TB" : "LR", nodesep: narrow ? 14 : 36, ranksep: 26, edgesep: narrow ? 8 : 20, marginx: narrow ? 2 : MARGIN, marginy: MARGIN });
  drawn.setDefaultEdgeLabel(() => ({}));
  for (const id of [INPUTS, ...Object.keys(graph.tasks), OUTPUTS]) drawn.setNode(id, nodeSize(graph, id, narrow));
  for (const edge of graph.edges) {
    const { from, to } = edge;
    if (drawn.hasNode(from) && drawn.hasNode(to)) drawn.setEdge(from, to, { ...(isLong(edge) ? (narrow ? NARROW_LONG : LONG) : SHORT), labelpos: "c" });
  }
  dagre.layout(drawn);
  const { width = 0, height = 0 } = drawn.graph();
  return {
    width: Math.ceil(width),
    height: Math.ceil(height),
    nodes: drawn.nodes().map((id) => ({ id, x: drawn.node(id).x, y: drawn.node(id).y })),
    edges: drawn.edges().map(({ v, w }) => {
      const edge = drawn.edge(v, w);
      return { from: v, to: w, path: curve(edge.points), x: edge.x ?? 0, y: edge.y ?? 0 };
    }),
  };
}

/** A line through points that is smooth at each of them. */
function curve(points: { x: number; y: number }[]): string {
  const [first, ...rest] = points;
  if (!first) return "";
  const last = rest.pop();
  let path = `M${first.x} ${first.y}`;
  rest.forEach((point, index) => {
    const next = rest[index + 1] ?? last!;
    const end = index === rest.length - 1 ? next : { x: (point.x + next.x) / 2, y: (point.y + next.y) / 2 };
    path += `Q${point.x} ${point.y} ${end.x} ${end.y}`;
  });
  return rest.length === 0 && last ? `${path}L${last.x} ${last.y}` : path;
}
