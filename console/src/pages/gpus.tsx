import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Board, boardsOf, grouped, matches, modelsOf, type Piece } from "../boards";
import { BoardView } from "../board";
import { ChangeStrip } from "../change";
import { ms, number, plural, rate } from "../format";
import { Machines } from "../machines";
import type { State } from "../model";
import { taskClass, taskLabel } from "../palette";
import { type Anchor, PieceCard } from "../piece_card";
import { link, route, setParameter } from "../route";
import { sample, state } from "../store";
import { Chip, Choice, Empty, Head, Search, useMedia } from "../ui";
import { useWindow } from "../virtual";

/** Number of GPUs above which alike ones are grouped at first. */
const GROUP_ABOVE = 24;

type Grouping = "alike" | "single";

interface Item {
  key: string;
  board: Board;
  count: number;
}

export function Gpus() {
  const found = state.value!;
  const values = route.value.values;
  const text = values.get("find") ?? "";
  const task = values.get("task") ?? "";
  const worker = values.get("worker");
  const like = values.get("like") ?? "";
  const fallback: Grouping = Object.keys(found.gpus).length > GROUP_ABOVE && !text ? "alike" : "single";
  const grouping = (values.get("show") as Grouping | null) ?? fallback;
  const all = useMemo(() => boardsOf(found), [found]);
  const items = useMemo(() => itemsOf(all, text, grouping, like), [all, text, grouping, like]);
  const dim = useCallback(
    (piece: Piece) => task !== "" && !modelsOf(piece).some((m) => `${m.graph}/${m.task}` === task),
    [task],
  );
  return (
    <>
      <Head title="GPUs">
        <Search label="Find" value={text} onInput={(value) => setParameter("find", value)} />
        <Choice
          label="Grouping of GPUs"
          value={grouping}
          options={[
            ["alike", "Group alike"],
            ["single", "Every GPU"],
          ]}
          onChange={(value) => (setParameter("like", ""), setParameter("show", value))}
        />
      </Head>
      <Service state={found} />
      <Summary state={found} boards={all} shown={items.reduce((sum, item) => sum + item.count, 0)} />
      <ChangeStrip />
      <Machines />
      <Legend state={found} chosen={task} />
      {like && (
        <p class="banner calm">
          GPUs that are alike {like}.{" "}
          <button type="button" class="button" onClick={() => (setParameter("like", ""), setParameter("show", "alike"))}>
            Back to the groups
          </button>
        </p>
      )}
      {items.length === 0 && <Empty>{all.length === 0 ? "The deployment has no GPUs." : "No GPU matches."}</Empty>}
      <Grid items={items} dim={dim} wanted={worker} />
    </>
  );
}

function itemsOf(all: Board[], text: string, grouping: Grouping, like: string): Item[] {
  const boards = all.filter((board) => matches(board, text));
  if (like) {
    const group = grouped(all).find((found) => found.boards.some((board) => board.key === like));
    return (group?.boards ?? []).map((board) => ({ key: board.key, board, count: 1 }));
  }
  if (grouping === "single") return boards.map((board) => ({ key: board.key, board, count: 1 }));
  return grouped(boards).map((group) => ({ key: group.key, board: group.first, count: group.boards.length }));
}

/** Seconds for which a sample counts as the present load. No samples come while the gateway does not run. */
const RECENT_S = 10;

/** Latency, refusals and failures that the clients of each graph see. */
function Service({ state: found }: { state: State }) {
  const latest = sample.value;
  const now = latest && found.now - latest.t <= RECENT_S ? latest.graphs : {};
  return (
    <ul class="service" aria-label="Graphs">
      {Object.entries(found.graphs).map(([name, graph]) => {
        const { p99_ms, refused_rps, failed_rps } = now[name] ?? {};
        const late = p99_ms != null && p99_ms > graph.slo_latency_ms;
        return (
          <li key={name}>
            <a href={link("load", { graph: name })}>{name}</a>
            <span>
              {rate(graph.arrivals_rps)} <span class="note">of {rate(graph.capacity_rps)}</span>
            </span>
            <span class={late ? "bad-text" : ""}>
              p99 {ms(p99_ms)} <span class="note">of {ms(graph.slo_latency_ms)}</span>
            </span>
            {!!refused_rps && <Chip tone="bad">{rate(refused_rps)} refused</Chip>}
            {!!failed_rps && <Chip tone="bad">{rate(failed_rps)} failed</Chip>}
          </li>
        );
      })}
    </ul>
  );
}

function Summary({ state: found, boards, shown }: { state: State; boards: Board[]; shown: number }) {
  const used = boards.filter((board) => board.pieces.some((piece) => piece.workers.length > 0)).length;
  const slices = boards.flatMap((board) => board.pieces).filter((piece) => piece.workers.length > 0).length;
  const lost = boards.filter((board) => board.gpu.lost).length;
  const ready = Object.values(found.workers).filter((worker) => worker.state === "ready").length;
  return (
    <p class="summary">
      <strong>{number(used)}</strong> of {plural(boards.length, "GPU")} in use, <strong>{number(slices)}</strong> MIG instances,{" "}
      {number(ready)} of {plural(Object.keys(found.workers).length, "worker")} ready
      {lost > 0 && <span class="bad-text">, {plural(lost, "GPU")} lost</span>}
      {shown !== boards.length && <>; {plural(shown, "GPU")} shown</>}
    </p>
  );
}

function Legend({ state: found, chosen }: { state: State; chosen: string }) {
  const tasks = Object.entries(found.graphs).flatMap(([graph, { tasks }]) => Object.keys(tasks).map((task) => [graph, task] as const));
  return (
    <ul class="legend" aria-label="Tasks">
      {tasks.map(([graph, task]) => {
        const key = `${graph}/${task}`;
        return (
          <li key={key}>
            <button type="button" aria-pressed={chosen === key} onClick={() => setParameter("task", chosen === key ? "" : key)}>
              <span class={`swatch ${taskClass(graph, task)}`} aria-hidden="true" />
              {taskLabel.value(graph, task)}
            </button>
          </li>
        );
      })}
    </ul>
  );
}

const TILE = { width: 320, height: 108, gap: 14 };
const SMALL_TILE = { width: 300, height: 108, gap: 12 };

interface GridProps {
  items: Item[];
  dim: (piece: Piece) => boolean;
  /** Worker that a link leads to. */
  wanted: string | null;
}

function Grid({ items, dim, wanted }: GridProps) {
  const tile = useMedia("(max-width: 700px)") ? SMALL_TILE : TILE;
  const { element, window: view } = useWindow(items.length, tile);
  const [stop, setStop] = useState<[number, number]>([0, 0]);
  const [anchor, setAnchor] = useState<Anchor | null>(null);
  const [shown, setShown] = useState<{ board: string; piece: number; pinned: boolean } | null>(null);
  const moved = useRef(false);

  const at = (target: EventTarget | null) => {
    const button = (target as Element | null)?.closest?.<HTMLElement>("[data-board]");
    return button ? { button, board: button.dataset["board"]!, piece: Number(button.dataset["piece"]) } : null;
  };
  const show = (target: EventTarget | null, pinned: boolean) => {
    const found = at(target);
    if (!found) return;
    const box = found.button.getBoundingClientRect();
    setAnchor({ left: box.left, right: box.right, top: box.top, bottom: box.bottom });
    setShown({ board: found.board, piece: found.piece, pinned });
  };
  const hide = () => setShown((now) => (now?.pinned ? now : null));

  const move = (key: string): boolean => {
    const [index, piece] = stop;
    const pieces = items[index]?.board.pieces.length ?? 0;
    const to = (board: number, slice: number): boolean => {
      const clamped = Math.max(0, Math.min(items.length - 1, board));
      const most = (items[clamped]?.board.pieces.length ?? 1) - 1;
      moved.current = true;
      setStop([clamped, Math.max(0, Math.min(most, slice))]);
      return true;
    };
    if (key === "ArrowRight") return piece + 1 < pieces ? to(index, piece + 1) : to(index + 1, index + 1 < items.length ? 0 : piece);
    if (key === "ArrowLeft") return piece > 0 ? to(index, piece - 1) : to(index - 1, index > 0 ? 99 : 0);
    if (key === "ArrowDown") return to(index + view.columns, piece);
    if (key === "ArrowUp") return to(index - view.columns, piece);
    if (key === "Home") return to(0, 0);
    if (key === "End") return to(items.length - 1, 99);
    return false;
  };

  // The slice that an arrow key selects may be drawn only after the page has scrolled to it.
  useEffect(() => {
    const grid = element.current;
    if (!moved.current || !grid) return;
    const row = Math.floor(stop[0] / view.columns);
    const top = grid.getBoundingClientRect().top + row * view.rowHeight;
    if (top < 80) scrollBy(0, top - 80);
    else if (top + view.rowHeight > innerHeight - 90) scrollBy(0, top + view.rowHeight - innerHeight + 90);
    const button = [...grid.querySelectorAll<HTMLElement>(`[data-piece="${stop[1]}"]`)].find(
      (found) => found.dataset["board"] === items[stop[0]]?.board.key,
    );
    if (button) {
      moved.current = false;
      button.focus({ preventScroll: true });
    }
  });

  useEffect(() => {
    if (!wanted) return;
    const has = (piece: Piece) => piece.workers.some(([name]) => name === wanted);
    const index = items.findIndex((item) => item.board.pieces.some(has));
    if (index < 0) return;
    moved.current = true;
    setStop([index, items[index]!.board.pieces.findIndex(has)]);
  }, [wanted]);

  const board = shown && items.find((item) => item.board.key === shown.board)?.board;
  const piece = shown && board?.pieces[shown.piece];
  return (
    <>
      <div
        ref={element}
        class="boards"
        role="group"
        aria-label="MIG instances; the arrow keys move between them"
        style={{ height: `${view.height}px` }}
        onPointerOver={(event) => event.pointerType === "mouse" && show(event.target, false)}
        onPointerLeave={hide}
        onFocusIn={(event) => {
          const found = at(event.target);
          if (!found) return;
          setStop([items.findIndex((item) => item.board.key === found.board), found.piece]);
          show(event.target, false);
        }}
        onFocusOut={hide}
        onClick={(event) => show(event.target, true)}
        onKeyDown={(event) => {
          if (event.key === "Escape") setShown(null);
          else if (at(event.target) && move(event.key)) event.preventDefault();
        }}
      >
        {items.slice(view.first, view.last).map((item, offset) => {
          const index = view.first + offset;
          const column = index % view.columns;
          const row = Math.floor(index / view.columns);
          return (
            <div
              key={item.key}
              class="board-place"
              style={{
                width: `calc((100% - ${(view.columns - 1) * tile.gap}px) / ${view.columns})`,
                left: `calc((100% + ${tile.gap}px) / ${view.columns} * ${column})`,
                height: `${tile.height}px`,
                transform: `translateY(${row * view.rowHeight}px)`,
              }}
            >
              <BoardView
                board={item.board}
                count={item.count}
                dim={dim}
                stop={stop[0] === index ? stop[1] : -1}
                onOpen={() => setParameter("like", item.board.key)}
              />
            </div>
          );
        })}
      </div>
      {shown && board && piece && anchor && (
        <PieceCard board={board} piece={piece} anchor={anchor} pinned={shown.pinned} onClose={() => setShown(null)} />
      )}
    </>
  );
}
