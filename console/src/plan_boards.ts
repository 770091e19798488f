import type { Board, Piece } from "./boards";
import type { Plan, State } from "./model";

/** Memory slices of each kind of slice on boards with eight of them; on other boards they are as many as the name says. */
const OF_EIGHT: Record<string, number> = { "1g": 1, "1gx2": 2, "2g": 2, "3g": 4, "4g": 4, "7g": 8 };

/** The GPUs of a plan as boards, as if its workers ran already. */
export function planBoards(plan: Plan, state: State): Board[] {
  const known = Object.values(state.gpus);
  return plan.gpus.map(({ node, index, model, layout }): Board => {
    const key = `${node}/${index}`;
    const like = state.gpus[key] ?? known.find((gpu) => gpu.model === model);
    const memory = like?.memory ?? 8;
    const pieces = layout.map(({ slice, start, models }): Piece => {
      const kind = slice.replace("+me", "");
      const size = (memory === 8 ? OF_EIGHT[kind] : undefined) ?? (Number.parseInt(kind, 10) || 1);
      const length = Math.min(size, memory - start);
      return {
        key: `${start}:${slice}`,
        slice: { slice, start, size: length },
        start,
        length,
        workers: [["", { state: "ready", models }]],
        move: null,
      };
    });
    return { key, gpu: { node, index, model, size: like?.size ?? 7, memory, slices: [] }, columns: memory, pieces, condition: "" };
  });
}
