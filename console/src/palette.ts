import { computed } from "@preact/signals";
import { state } from "./store";

/** Colours of Okabe and Ito (2008), as in `jigsaw-triton plan`; people with all common kinds of vision tell them apart. */
const COLOURS = 7;
const PATTERNS = 4;
/** Separator between the names of the tasks of a chain, which a worker executes in one call. */
const CHAIN = "~";

/** Label of a task: with its graph where there are several. */
export const taskLabel = computed(() => {
  const several = Object.keys(state.value?.graphs ?? {}).length > 1;
  return (graph: string, task: string): string => (several ? `${graph}.${task}` : task);
});

const names = computed(() => {
  const graphs = state.value?.graphs ?? {};
  return Object.keys(graphs)
    .flatMap((graph) => Object.keys(graphs[graph]!.tasks).map((task) => `${graph}\n${task}`))
    .sort()
    .join("\t");
});

// The names are joined into one text, which changes less often than the state, so that colours are computed rarely.
const places = computed(() => new Map(names.value.split("\t").map((name, index) => [name, index])));

/** Class of a task's colour and pattern. Tasks beyond the seventh repeat a colour with another pattern. */
export function taskClass(graph: string, task: string): string {
  // A chain of tasks, whose name has theirs, has the colour of its first one.
  const [first = task] = task.split(CHAIN);
  const place = places.value.get(`${graph}\n${first}`);
  return place === undefined ? "task-none" : `task-${place % COLOURS} weave-${(place + Math.floor(place / COLOURS)) % PATTERNS}`;
}
