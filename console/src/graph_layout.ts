import dagre from "@dagrejs/dagre";
import type { Graph } from "./model";

export interface Layout {
  width: number;
  height: number;
  nodes: { id: string; x: number; y: number }[];
  edges: { from: string; to: string; path: string; x: number; y: number }[];
}

const END = { width: 128, height: 56 };
const TASK_WIDTH = 216;
const TASK_HEAD = 86;
const VARIANT_HEIGHT = 20;
const LABEL = { width: 118, height: 40 };
const MARGIN = 12;

export function nodeSize(graph: Graph, id: string): { width: number; height: number } {
  const task = graph.tasks[id];
  return task ? { width: TASK_WIDTH, height: TASK_HEAD + VARIANT_HEIGHT * Object.keys(task.variants).length } : END;
}

/** Places tasks and edges. Edges between the same two tasks are one line. */
export function layout(graph: Graph, down: boolean): Layout {
  const drawn = new dagre.graphlib.Graph();
  drawn.setGraph({ rankdir: down ? "TB" : "LR", nodesep: 36, ranksep: down ? 34 : 44, edgesep: 24, marginx: MARGIN, marginy: MARGIN });
  drawn.setDefaultEdgeLabel(() => ({}));
  for (const id of ["inputs", ...Object.keys(graph.tasks), "outputs"]) drawn.setNode(id, nodeSize(graph, id));
  for (const { from, to } of graph.edges) {
    if (drawn.hasNode(from) && drawn.hasNode(to)) drawn.setEdge(from, to, { ...LABEL, labelpos: "c" });
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
