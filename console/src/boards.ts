import type { Gpu, Maybe, Move, Slice, State, Worker, WorkerModel } from "./model";

const names = new Intl.Collator(undefined, { numeric: true });

export interface Piece {
  key: string;
  slice: Slice;
  start: number;
  length: number;
  /** Workers in the slice by name: one, or several that share it under MPS. */
  workers: [string, Worker][];
  move: Move | null;
}

export interface Board {
  key: string;
  gpu: Gpu;
  columns: number;
  pieces: Piece[];
  /** Reason why new plans leave the GPU out: it is lost, or its node is lost, away or cordoned. Empty for none. */
  condition: string;
}

/** Conditions of the nodes that are not ready, by name. */
export function nodeConditions(state: State): Map<string, string> {
  const found = new Map<string, string>();
  for (const [name, node] of Object.entries(state.nodes ?? {})) {
    const leaving = node.state === "cordoned" && node.workers?.some((worker) => state.workers[worker]?.state === "draining");
    if (node.state !== "ready") found.set(name, leaving ? "draining" : node.state);
  }
  return found;
}

function boardOf(key: string, gpu: Gpu, places: Map<string, [string, Worker][]>, moves: Map<string, Move>, condition: string): Board {
  const pieces = gpu.slices
    .map((slice): Piece => {
      const workers = (slice.worker && places.get(place(key, slice.start, slice.slice))) || [];
      return {
        key: `${slice.start}:${slice.slice}:${slice.worker ?? ""}`,
        slice,
        start: slice.start,
        length: slice.size,
        workers,
        move: workers.map(([name]) => moves.get(name)).find((move) => move) ?? null,
      };
    })
    .sort((a, b) => a.start - b.start);
  return { key, gpu, columns: gpu.memory, pieces, condition };
}

export function boardsOf(state: State): Board[] {
  const moves = movesOf(state);
  const places = placesOf(state);
  const nodes = nodeConditions(state);
  return Object.entries(state.gpus)
    .map(([key, gpu]) => boardOf(key, gpu, places, moves, gpu.lost ? "lost" : (nodes.get(gpu.node) ?? "")))
    .sort((a, b) => names.compare(a.gpu.node, b.gpu.node) || a.gpu.index - b.gpu.index);
}

const place = (gpu: Maybe<string>, start: Maybe<number>, slice: Maybe<string>): string => `${gpu} ${start} ${slice}`;

function placesOf(state: State): Map<string, [string, Worker][]> {
  const found = new Map<string, [string, Worker][]>();
  for (const [name, worker] of Object.entries(state.workers)) {
    const key = place(worker.gpu, worker.start, worker.slice);
    const there = found.get(key);
    if (there) there.push([name, worker]);
    else found.set(key, [[name, worker]]);
  }
  return found;
}

/** Models of all workers in a slice. */
export const modelsOf = (piece: Piece): WorkerModel[] => piece.workers.flatMap(([, worker]) => worker.models);

/** State of the workers in a slice: that of the first one that is not ready. Null if there is none. */
export function stateOf(piece: Piece): string | null {
  const states = piece.workers.map(([, worker]) => worker.state);
  return states.find((state) => state !== "ready") ?? states[0] ?? null;
}

function movesOf(state: State): Map<string, Move> {
  return new Map((state.change?.moves ?? []).flatMap((move) => (move.worker ? [[move.worker, move] as const] : [])));
}

/** Boards with the same slices for the same models in the same condition are alike. */
export function signature(board: Board): string {
  const pieces = board.pieces.map((piece) => {
    const models = modelsOf(piece).map((m) => `${m.graph}/${m.task}/${m.variant}/${m.instances}/${m.batch}`).join("+");
    const condition = piece.move?.kind ?? stateOf(piece) ?? (piece.slice.foreign ? "foreign" : "empty");
    return `${piece.start}:${piece.slice.slice}:${models}:${condition}`;
  });
  return `${board.gpu.model}|${board.condition}|${pieces.join("|")}`;
}

export interface Group {
  key: string;
  first: Board;
  boards: Board[];
}

export function grouped(boards: Board[]): Group[] {
  const groups = new Map<string, Group>();
  for (const board of boards) {
    const key = signature(board);
    const group = groups.get(key);
    if (group) group.boards.push(board);
    else groups.set(key, { key, first: board, boards: [board] });
  }
  return [...groups.values()];
}

/** Share of its time that a model computes: batches a second times the time of each, over its instances. */
export function busy(model: WorkerModel): number | null {
  const { batches_rps, mean_ms } = model.measured ?? {};
  return batches_rps == null || mean_ms == null ? null : (batches_rps * mean_ms) / 1000 / Math.max(1, model.instances);
}

/** Busy share of the busiest model of a slice. */
export function load(piece: Piece): number | null {
  const shares = modelsOf(piece).map(busy).filter((share) => share !== null);
  return shares.length > 0 ? Math.max(...shares) : null;
}

export function matches(board: Board, text: string): boolean {
  if (!text) return true;
  const wanted = text.toLowerCase();
  const texts = [board.key, board.gpu.model, board.condition];
  for (const piece of board.pieces) {
    texts.push(piece.slice.slice, ...piece.workers.flatMap(([name, worker]) => [name, worker.state]));
    for (const m of modelsOf(piece)) texts.push(m.graph, m.task, m.variant);
  }
  return texts.some((found) => found.toLowerCase().includes(wanted));
}
