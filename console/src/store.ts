import { batch, signal } from "@preact/signals";
import { get, signedOut } from "./api";
import type { LogEvent, Sample, Session, State } from "./model";
import { merge } from "./patch";

/** Events that are kept for the page of events; older ones are asked for. */
const KEPT_EVENTS = 1000;
const GATHER_MS = 100;
const RETRY_MS = [500, 1000, 2000, 3000];
/** Time without an event after which a connection counts as broken. The server sends an `alive` at least every 10 s. */
const LIVENESS_TIMEOUT_MS = 25_000;
/** Time after which a hidden page closes its connection: a browser allows six to a server, for all pages together. */
const HIDDEN_MS = 10_000;

export const session = signal<Session | null>(null);
export const state = signal<State | null>(null);
export const events = signal<LogEvent[]>([]);
export const sample = signal<Sample | null>(null);
/** Time since which no controller answers the console; null while one does. */
export const staleSince = signal<number | null>(null);
/** Time since which the console itself does not answer; null while it does. */
export const lostSince = signal<number | null>(null);
/** Number of connections so far; pages that loaded data of their own load it again when it rises. */
export const connections = signal(0);

let source: EventSource | null = null;
let attempts = 0;
/** True while the page has closed its connection because it is hidden. */
let away = false;
let leaving: number | undefined;
let heard = 0;
let failures = 0;
let arrived: LogEvent[] = [];
let gathering: number | undefined;

export function start(): void {
  void connect();
  setInterval(checkLiveness, 3000);
  document.addEventListener("visibilitychange", followVisibility);
  followVisibility();
}

function followVisibility(): void {
  clearTimeout(leaving);
  if (document.hidden) {
    leaving = setTimeout(leave, HIDDEN_MS);
  } else if (away) {
    away = false;
    void connect();
  }
}

function leave(): void {
  away = true;
  source?.close();
  source = null;
}

async function connect(): Promise<void> {
  const attempt = ++attempts;
  let found: Session | null = null;
  try {
    found = await get<Session>("/api/session");
  } catch {
    // `retry` asks for the session again below.
  }
  // The page may have been hidden meanwhile, and another attempt may have begun since it is visible again.
  if (away || attempt !== attempts || signedOut.value) return;
  if (!found) {
    retry();
    return;
  }
  session.value = found;
  const opened = new EventSource("/api/stream");
  source = opened;
  heard = Date.now();
  const on = <T>(kind: string, handle: (data: T) => void): void =>
    opened.addEventListener(kind, (message) => {
      heard = Date.now();
      batch(() => handle(JSON.parse((message as MessageEvent<string>).data) as T));
    });
  on<State>("state", (found) => {
    failures = 0;
    state.value = whole(found);
    lostSince.value = null;
    // If no controller answers the server, the server sends that after the state.
    staleSince.value = null;
    connections.value += 1;
  });
  on<unknown>("patch", (patch) => {
    if (state.value) state.value = whole(merge(state.value, patch) as State);
  });
  on<Sample>("sample", (found) => {
    sample.value = found;
  });
  on<LogEvent>("event", (found) => {
    arrived.push(found);
    gathering ??= setTimeout(addEvents, GATHER_MS);
  });
  on<{ since: number | null }>("stale", ({ since }) => {
    staleSince.value = since;
  });
  on<unknown>("alive", () => undefined);
  opened.onerror = () => {
    if (source === opened) retry();
  };
}

/** Adds the events that have arrived; thousands at once are one change of the page. */
function addEvents(): void {
  gathering = undefined;
  const last = events.value.at(-1)?.id ?? -1;
  const fresh = arrived.filter((event) => event.id > last);
  arrived = [];
  if (fresh.length > 0) events.value = [...events.value, ...fresh].slice(-KEPT_EVENTS);
}

function retry(): void {
  source?.close();
  source = null;
  lostSince.value ??= Date.now() / 1000;
  const attempt = attempts;
  const again = () => {
    if (!away && attempt === attempts) void connect();
  };
  setTimeout(again, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]);
}

/** Finds connections that broke without an end, as after the sleep of a laptop. */
function checkLiveness(): void {
  if (source && Date.now() - heard >= LIVENESS_TIMEOUT_MS) retry();
}

/** Before a controller has answered, and after the last graph has gone, parts of the state are missing. */
function whole(found: State): State {
  return { ...found, graphs: found.graphs ?? {}, gpus: found.gpus ?? {}, workers: found.workers ?? {} };
}
