import { computed, signal } from "@preact/signals";

export type Page = "gpus" | "graph" | "load" | "plan" | "events" | "logs" | "traces";
const PAGES: Page[] = ["gpus", "graph", "load", "plan", "events", "logs", "traces"];

const hash = signal(location.hash);
addEventListener("hashchange", () => {
  hash.value = location.hash;
});

/** The page and its parameters, from an address such as `#/events?kind=failed`. */
export const route = computed(() => {
  const [path = "", text = ""] = hash.value.replace(/^#\/?/, "").split("?", 2);
  const page = PAGES.find((name) => name === path) ?? "gpus";
  return { page, values: new URLSearchParams(text) };
});

export function link(page: Page, values: Record<string, string | number | null | undefined> = {}): string {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value != null && value !== "") found.set(name, String(value));
  const text = found.toString();
  return text ? `#/${page}?${text}` : `#/${page}`;
}

/** Changes one parameter of the present page, without a new entry in the browser's history. */
export function setParameter(name: string, value: string): void {
  const values = Object.fromEntries(route.value.values);
  history.replaceState(null, "", link(route.value.page, { ...values, [name]: value }));
  hash.value = location.hash;
}
