import { useEffect, useRef, useState } from "preact/hooks";
import { memo } from "preact/compat";
import type { Board, Piece } from "./boards";
import { load, modelsOf, stateOf } from "./boards";
import { number } from "./format";
import { taskClass, taskLabel } from "./palette";

/** Milliseconds for which a slice that is gone is still drawn, fading. */
const LEAVING_MS = 700;

const MOVES = { drain: "draining", destroy: "destroying", create: "creating", load: "loading", unload: "unloading", route: "routing" } as const;

/** The word for the condition of a slice, empty if it serves. */
export function condition(piece: Piece): string {
  if (piece.move) return MOVES[piece.move.kind] ?? String(piece.move.kind);
  if (piece.slice.foreign) return "taken";
  const state = stateOf(piece) ?? "empty";
  return state === "ready" ? "" : state;
}

/** Text that a screen reader adds to the visible text of a slice. */
export function rest(board: Board, piece: Piece): string {
  const others = modelsOf(piece).slice(1).map((m) => `, ${taskLabel.value(m.graph, m.task)} ${m.variant}`);
  return `${others.join("")}, slice ${piece.slice.slice} at ${piece.start} of GPU ${board.key}, ${condition(piece) || "ready"}`;
}

interface PieceProps {
  piece: Piece;
  className?: string;
}

/** The inside of a slice: the task, the variant, instances and batch, and how busy it is. */
export function PieceFace({ piece }: PieceProps) {
  const models = modelsOf(piece);
  const word = condition(piece);
  const first = models[0];
  const share = load(piece);
  return (
    <>
      <span class="piece-task">{first ? taskLabel.value(first.graph, first.task) : piece.slice.foreign ? "taken" : "empty"}</span>
      {first && <span class="piece-variant">{first.variant}</span>}
      {word && first ? (
        <span class="piece-word" aria-hidden="true">
          {word}
        </span>
      ) : (
        <span class="piece-size">
          {first ? `${number(first.instances)}×b${number(first.batch)}` : piece.slice.slice}
          {models.length > 1 && ` +${models.length - 1}`}
        </span>
      )}
      {share !== null && (
        <span class="piece-load">
          <span style={{ width: `${Math.min(1, share) * 100}%` }} />
        </span>
      )}
    </>
  );
}

export function pieceClass(piece: Piece): string {
  const first = modelsOf(piece)[0];
  const word = condition(piece);
  return [
    "piece",
    first ? taskClass(first.graph, first.task) : piece.slice.foreign ? "task-foreign" : "task-empty",
    piece.length <= 1 ? "narrow" : "",
    word ? `is-${word.replace(/[^a-z]/g, "")}` : "",
  ].join(" ");
}

interface BoardProps {
  board: Board;
  count?: number;
  dim: (piece: Piece) => boolean;
  /** Slice whose button is in the order of the Tab key; -1 if none of this board is. */
  stop: number;
  onOpen?: () => void;
  /** True to only show the slices, without buttons. */
  picture?: boolean;
}

function same(before: BoardProps, now: BoardProps): boolean {
  const a = before.board;
  const b = now.board;
  return (
    a.gpu === b.gpu &&
    a.key === b.key &&
    a.condition === b.condition &&
    before.stop === now.stop &&
    before.count === now.count &&
    before.dim === now.dim &&
    a.pieces.length === b.pieces.length &&
    a.pieces.every((piece, i) => {
      const other = b.pieces[i]!;
      const workers = piece.workers.length === other.workers.length && piece.workers.every(([, worker], at) => worker === other.workers[at]![1]);
      return piece.slice === other.slice && workers && piece.move?.kind === other.move?.kind;
    })
  );
}

/** One GPU, or a number of GPUs that are alike: a strip of its memory slices with the MIG instances as pieces. */
export const BoardView = memo(function BoardView({ board, count, dim, stop, onOpen, picture }: BoardProps) {
  const { gpu, pieces, columns, condition: trouble } = board;
  const { leaving, arrived } = useComings(pieces);
  return (
    <article class={`board${gpu.lost ? " lost" : ""}${count && count > 1 ? " stack" : ""}`} aria-label={`GPU ${board.key}`}>
      <div class="board-head">
        <span class="board-name">{board.key}</span>
        <span class="board-model">{gpu.model}</span>
        {trouble && <span class={`chip ${trouble === "lost" ? "bad" : "warn"}`}>{trouble}</span>}
        {count !== undefined &&
          count > 1 &&
          (onOpen ? (
            <button type="button" class="chip count" onClick={onOpen} aria-label={`×${count} alike: show all GPUs like ${board.key}`}>
              ×{count} alike
            </button>
          ) : (
            <span class="chip">×{count} alike</span>
          ))}
      </div>
      <div class={`strip columns-${columns}`} style={{ gridTemplateColumns: `repeat(${columns}, minmax(0, 1fr))` }}>
        {leaving.map((piece) => (
          <span
            key={`leaving ${piece.key}`}
            class={`${pieceClass(piece)} leaving`}
            style={{ gridColumn: `${piece.start + 1} / span ${piece.length}` }}
            aria-hidden="true"
          >
            <PieceFace piece={piece} />
          </span>
        ))}
        {pieces.map((piece, index) => {
          const shape = {
            class: `${pieceClass(piece)}${dim(piece) ? " dim" : ""}${arrived.has(piece.key) ? " arriving" : ""}`,
            style: { gridColumn: `${piece.start + 1} / span ${piece.length}` },
          };
          return picture ? (
            <span key={piece.key} {...shape}>
              <PieceFace piece={piece} />
            </span>
          ) : (
            <button
              key={piece.key}
              type="button"
              {...shape}
              tabIndex={stop === index ? 0 : -1}
              data-board={board.key}
              data-piece={index}
            >
              <PieceFace piece={piece} />
              <span class="sr">{rest(board, piece)}</span>
            </button>
          );
        })}
      </div>
    </article>
  );
}, same);

/** Slices that are gone since the last drawing, as long as they fade, and slices that are new. */
function useComings(pieces: Piece[]): { leaving: Piece[]; arrived: Set<string> } {
  const before = useRef(pieces);
  const [leaving, setLeaving] = useState<Piece[]>([]);
  const arrived = useRef(new Set<string>());
  const keys = new Set(pieces.map((piece) => piece.key));
  const known = new Set(before.current.map((piece) => piece.key));
  for (const key of keys) if (!known.has(key)) arrived.current.add(key);
  const shape = [...keys].join("|");
  const gone = before.current.filter((piece) => !keys.has(piece.key));
  before.current = pieces;
  useEffect(() => {
    if (gone.length === 0) return;
    setLeaving(gone);
    const timer = setTimeout(() => setLeaving([]), LEAVING_MS);
    return () => clearTimeout(timer);
  }, [shape]);
  return { leaving: leaving.filter((piece) => !keys.has(piece.key)), arrived: arrived.current };
}
