import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { type Board, busy, type Piece } from "./boards";
import { condition } from "./board";
import { memory, ms, percent, rate, times } from "./format";
import type { WorkerModel } from "./model";
import { taskClass, taskLabel } from "./palette";
import { link } from "./route";
import { state } from "./store";
import { Chip, Meter } from "./ui";

export interface Anchor {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

const EDGE = 12;
/** Ratio of the measured time of a batch to the profiled one from which it is mentioned. */
const SLOW = 1.2;

/** Card about the workers of a slice. It follows the pointer or the focus; a click keeps it open. */
export function PieceCard(props: { board: Board; piece: Piece; anchor: Anchor; pinned: boolean; onClose: () => void }) {
  const { board, piece, anchor, pinned, onClose } = props;
  const element = useRef<HTMLDivElement>(null);
  const close = useRef<HTMLButtonElement>(null);
  const opener = useRef<Element | null>(null);
  const [place, setPlace] = useState<{ left: number; top: number } | null>(null);
  useLayoutEffect(() => {
    const box = element.current!.getBoundingClientRect();
    const middle = (anchor.left + anchor.right) / 2 - box.width / 2;
    const below = anchor.bottom + 8;
    const fits = below + box.height + EDGE <= innerHeight;
    setPlace({
      left: Math.max(EDGE, Math.min(innerWidth - box.width - EDGE, middle)),
      top: Math.max(EDGE, fits ? below : anchor.top - box.height - 8),
    });
  }, [anchor, pinned]);
  useEffect(() => {
    if (!pinned) return;
    opener.current = document.activeElement;
    close.current?.focus({ preventScroll: true });
    const key = (event: KeyboardEvent) => event.key === "Escape" && leave();
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  }, [pinned, board.key, piece.key]);
  const leave = () => {
    onClose();
    (opener.current as HTMLElement | null)?.focus?.({ preventScroll: true });
  };
  const names = piece.workers.map(([name]) => name);
  const use = piece.workers[0]?.[1].use;
  const word = condition(piece);
  const { node } = board.gpu;
  const remote = state.value?.nodes?.[node]?.agent != null;
  return (
    <div
      ref={element}
      class={`card${pinned ? " pinned" : ""}`}
      role={pinned ? "dialog" : "tooltip"}
      aria-label={names.join(", ") || `slice ${piece.slice.slice}`}
      style={place ? { left: `${place.left}px`, top: `${place.top}px` } : { visibility: "hidden" }}
    >
      <div class="card-head">
        <strong>{names.join(", ") || (piece.slice.foreign ? "Taken by others" : "No worker")}</strong>
        <Chip tone={word === "" ? "good" : piece.move ? "info" : "warn"}>{word || "ready"}</Chip>
        {pinned && (
          <button ref={close} type="button" class="close" aria-label="Close" onClick={leave}>
            ×
          </button>
        )}
      </div>
      <p class="card-place">
        {piece.slice.slice} at {piece.start}, GPU {board.key}, {board.gpu.model}
        {piece.workers.map(([, { pid, restarts }]) => `${pid != null ? `, pid ${pid}` : ""}${restarts ? `, ${restarts} restarts` : ""}`)}
      </p>
      {piece.workers.map(([name, worker]) =>
        worker.models.map((model) => <ModelFigures key={`${name}/${model.graph}/${model.task}/${model.variant}`} model={model} />),
      )}
      {use && (
        <p class="card-use">
          Instance: {memory(use.memory_mib)} of {memory(use.memory_total_mib)} in use
          {use.busy != null && `, multiprocessors ${percent(use.busy)} busy`}
        </p>
      )}
      {pinned && names.length > 0 && (
        <p class="card-links">
          {names.flatMap((name) => {
            const owner = names.length > 1 ? ` of ${name}` : "";
            return [
              <a key={`events ${name}`} href={link("events", { text: name })}>
                Events{owner}
              </a>,
              !remote && (
                <a key={`log ${name}`} href={link("logs", { server: name })}>
                  Log{owner}
                </a>
              ),
            ];
          })}
          <a href={link("traces")}>Traces</a>
          {remote && (
            <span class="note">
              Log: <code>jigsaw-triton logs {names.join(" ")}</code> on {node}
            </span>
          )}
        </p>
      )}
    </div>
  );
}

function ModelFigures({ model }: { model: WorkerModel }) {
  const { planned, measured } = model;
  const variant = state.value?.graphs[model.graph]?.tasks[model.task]?.variants[model.variant]?.measured;
  const share = busy(model);
  return (
    <div class="card-model">
      <div class="card-model-name">
        <span class={`swatch ${taskClass(model.graph, model.task)}`} aria-hidden="true" />
        <strong>{taskLabel.value(model.graph, model.task)}</strong> {model.variant}
        <span class="note">
          {model.instances} {model.instances === 1 ? "instance" : "instances"} × batch {model.batch}
          {model.standby && ", standby"}
        </span>
      </div>
      <dl class="card-now">
        <div>
          <dt>busy</dt>
          <dd>{percent(share)}</dd>
        </div>
        <div>
          <dt>batches</dt>
          <dd>{rate(measured?.batches_rps)}</dd>
        </div>
        <div>
          <dt>mean</dt>
          <dd>{ms(measured?.mean_ms)}</dd>
        </div>
        <div>
          <dt>memory</dt>
          <dd>{memory(planned?.memory_mib)}</dd>
        </div>
      </dl>
      {share !== null && <Meter share={share} label={`${percent(share)} busy`} />}
      {measured?.slowdown != null && measured.slowdown > SLOW && (
        <p class="bad-text">Batches take {times(measured.slowdown)} their profiled time.</p>
      )}
      <table class="figures">
        <thead>
          <tr>
            <th scope="col">
              <span class="sr">figure</span>
            </th>
            <th scope="col">planned here</th>
            <th scope="col">variant, measured</th>
          </tr>
        </thead>
        <tbody>
          <tr>
            <th scope="row">throughput</th>
            <td>{rate(planned?.throughput_rps)}</td>
            <td>{rate(variant?.rate_rps)}</td>
          </tr>
          <tr>
            <th scope="row">p50</th>
            <td>{ms(planned?.p50_ms)}</td>
            <td>{ms(variant?.p50_ms)}</td>
          </tr>
          <tr>
            <th scope="row">p99</th>
            <td>{ms(planned?.p99_ms)}</td>
            <td>{ms(variant?.p99_ms)}</td>
          </tr>
        </tbody>
      </table>
    </div>
  );
}
