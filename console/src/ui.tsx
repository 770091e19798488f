import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, get } from "./api";
import { connections } from "./store";

const ICONS = {
  gpus: "M3 6h8v3.2a2.3 2.3 0 1 1 0 4.6V18H3zM13 6h8v12h-8v-2.4a4.3 4.3 0 0 0 0-7.2z",
  graph: "M5 8.5A2.5 2.5 0 1 0 5 3.500a2.5 2.5 0 0 0 0 5zM5 20.500a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5zM19 14.500a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5zM7 7l10 4M7 17l10-4",
  load: "M3 20V4M3 20h18M6 15l4-5 4 3 6-8",
  plan: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4.500v5M9 14.500v5",
  events: "M4 6h16M4 12h16M4 18h10",
  logs: "M5 7l5 5-5 5M12 18h7",
  traces: "M4 6h7M8 12h9M14 18h6",
} as const;

export type IconName = keyof typeof ICONS;

export function Icon({ name }: { name: IconName }) {
  const filled = name === "gpus";
  return (
    <svg class={`icon${filled ? " filled" : ""}`} viewBox="0 0 24 24" aria-hidden="true">
      <path d={ICONS[name]} />
    </svg>
  );
}

export type Tone = "good" | "warn" | "bad" | "calm" | "info";

export function Chip({ tone = "calm", children, title }: { tone?: Tone; children: ComponentChildren; title?: string }) {
  return (
    <span class={`chip ${tone}`} title={title}>
      {children}
    </span>
  );
}

export function Head({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="head">
      <h1>{title}</h1>
      <div class="tools">{children}</div>
    </div>
  );
}

export function Panel({ title, note, children }: { title?: string; note?: ComponentChildren; children: ComponentChildren }) {
  return (
    <section class="panel">
      {title && (
        <div class="panel-head">
          <h2>{title}</h2>
          {note && <span class="note">{note}</span>}
        </div>
      )}
      {children}
    </section>
  );
}

export function Stat({ label, value, note, tone }: { label: string; value: ComponentChildren; note?: ComponentChildren; tone?: Tone }) {
  return (
    <div class={`stat ${tone ?? ""}`}>
      <dt>{label}</dt>
      <dd>
        {value}
        {note != null && <span class="note">{note}</span>}
      </dd>
    </div>
  );
}

/** A bar that is filled up to a share of a limit, with an end mark where the share exceeds it. */
export function Meter({ share, label, tone }: { share: number; label: string; tone?: Tone }) {
  const full = Math.max(0, Math.min(1, Number.isFinite(share) ? share : 0));
  return (
    <span class={`meter ${tone ?? (share > 1 ? "bad" : share > 0.85 ? "warn" : "good")}`} role="img" aria-label={label} title={label}>
      <span style={{ width: `${full * 100}%` }} />
    </span>
  );
}

/** A message in which commands stand between backticks. */
export function Message({ text }: { text: string }) {
  const parts = text.split("`");
  return <>{parts.length % 2 === 0 ? text : parts.map((part, index) => (index % 2 === 1 ? <code key={index}>{part}</code> : part))}</>;
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

export function ErrorNote({ error }: { error: unknown }) {
  const hint = error instanceof ApiError ? error.hint : "";
  return (
    <div class="error-note" role="alert">
      <strong>
        <Message text={error instanceof Error ? error.message : String(error)} />
      </strong>
      {hint && (
        <span>
          <Message text={hint} />
        </span>
      )}
    </div>
  );
}

/** A table that scrolls sideways where it is too wide. A heading that begins with `#` is that of a column of numbers. */
export function Table({ label, headings, children }: { label: string; headings: readonly string[]; children: ComponentChildren }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={label}>
      <table>
        <thead>
          <tr>
            {headings.map((text) => (
              <th key={text} scope="col" class={text.startsWith("#") ? "num" : undefined}>
                {text.replace(/^#/, "")}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}

export interface Loaded<T> {
  data: T | null;
  error: unknown;
  reload: () => void;
}

/** Loads a path when it or one of `causes` changes, and after a reconnection. Answers to older questions are dropped. */
export function useLoaded<T>(path: string | null, ...causes: unknown[]): Loaded<T> {
  const [found, setFound] = useState<{ data: T | null; error: unknown }>({ data: null, error: null });
  const [turn, setTurn] = useState(0);
  const shown = useRef<string | null>(null);
  useEffect(() => {
    if (path === null) return;
    const asked = new AbortController();
    if (shown.current !== path) setFound({ data: null, error: null });
    shown.current = path;
    get<T>(path, asked.signal).then(
      (data) => setFound({ data, error: null }),
      (error: unknown) => {
        if (!asked.signal.aborted) setFound((before) => ({ ...before, error }));
      },
    );
    return () => asked.abort();
  }, [path, turn, connections.value, ...causes]);
  return { ...found, reload: () => setTurn((now) => now + 1) };
}

/** Returns a value that follows `value` once it has rested. */
export function useRested<T>(value: T, rest_ms: number): T {
  const [rested, setRested] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setRested(value), rest_ms);
    return () => clearTimeout(timer);
  }, [value, rest_ms]);
  return rested;
}

export function useMedia(text: string): boolean {
  const [matches, setMatches] = useState(() => matchMedia(text).matches);
  useEffect(() => {
    const list = matchMedia(text);
    const changed = () => setMatches(list.matches);
    changed();
    list.addEventListener("change", changed);
    return () => list.removeEventListener("change", changed);
  }, [text]);
  return matches;
}

export function Choice<T extends string>(props: {
  label: string;
  value: T;
  options: readonly (readonly [T, string])[];
  onChange: (value: T) => void;
}) {
  return (
    <div class="choice" role="group" aria-label={props.label}>
      {props.options.map(([value, text]) => (
        <button key={value} type="button" aria-pressed={value === props.value} onClick={() => props.onChange(value)}>
          {text}
        </button>
      ))}
    </div>
  );
}

export function Select(props: {
  label: string;
  value: string;
  options: readonly (readonly [string, string])[];
  onChange: (value: string) => void;
}) {
  return (
    <label class="field">
      <span>{props.label}</span>
      <select value={props.value} onChange={(event) => props.onChange(event.currentTarget.value)}>
        {props.options.map(([value, text]) => (
          <option key={value} value={value}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

export function Search(props: { label: string; value: string; onInput: (value: string) => void }) {
  return (
    <label class="field">
      <span>{props.label}</span>
      <input
        type="search"
        value={props.value}
        spellcheck={false}
        autocomplete="off"
        onInput={(event) => props.onInput(event.currentTarget.value)}
      />
    </label>
  );
}
