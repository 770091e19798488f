import { useEffect, useMemo, useState } from "preact/hooks";
import { get, query } from "../api";
import { clock, plural } from "../format";
import { Linked } from "../linked";
import type { LogEvent } from "../model";
import { route, setParameter } from "../route";
import { events } from "../store";
import { Chip, Empty, ErrorNote, Head, Search, Select, type Tone, useLoaded, useRested } from "../ui";

const PAGE = 200;
const REST_MS = 250;

interface Answer {
  events: LogEvent[];
  kinds: string[];
}

export function Events() {
  const values = route.value.values;
  const kind = values.get("kind") ?? "";
  const text = values.get("text") ?? "";
  const rested = useRested(text, REST_MS);
  const { data, error } = useLoaded<Answer>(query("/api/events", { kind, text: rested, limit: PAGE }));
  const [older, setOlder] = useState<{ for: string; events: LogEvent[]; ended: boolean }>({ for: "", events: [], ended: false });
  const [failed, setFailed] = useState<unknown>(null);
  const filter = `${kind}\n${rested}`;
  useEffect(() => setOlder({ for: filter, events: [], ended: false }), [filter]);
  const more = older.for === filter ? older : { events: [], ended: false };
  const live = events.value;
  const shown = useMemo(() => {
    const found = [...more.events, ...(data?.events ?? [])];
    const last = found.at(-1)?.id ?? -1;
    const lower = rested.toLowerCase();
    const wanted = (event: LogEvent) => (kind === "" || event.kind === kind) && event.text.toLowerCase().includes(lower);
    return data ? [...found, ...live.filter((event) => event.id > last && wanted(event))].reverse() : [];
  }, [data, live, more.events, kind, rested]);
  const kinds = [...new Set([...(data?.kinds ?? []), ...live.map((event) => event.kind), ...(kind ? [kind] : [])])].sort();
  const loadOlder = async () => {
    const first = shown.at(-1);
    if (!first) return;
    setFailed(null);
    try {
      const answer = await get<Answer>(query("/api/events", { kind, text: rested, before: first.id, limit: PAGE }));
      setOlder({ for: filter, events: [...answer.events, ...more.events], ended: answer.events.length < PAGE });
    } catch (problem) {
      setFailed(problem);
    }
  };
  return (
    <>
      <Head title="Events">
        <Select
          label="Kind"
          value={kind}
          options={[["", "all kinds"], ...kinds.map((name) => [name, name] as const)]}
          onChange={(value) => setParameter("kind", value)}
        />
        <Search label="Text" value={text} onInput={(value) => setParameter("text", value)} />
      </Head>
      {error != null && <ErrorNote error={error} />}
      {data && shown.length === 0 && <Empty>No event matches.</Empty>}
      {!data && error == null && <Empty>Loading events…</Empty>}
      {shown.length > 0 && (
        <>
          <p class="summary">{plural(shown.length, "event")} shown, newest first; new ones appear by themselves.</p>
          <ol class="events">
            {shown.map((event) => (
              <li key={event.id}>
                <time dateTime={event.at}>{clock(Date.parse(event.at) / 1000)}</time>
                <Chip tone={tone(event)}>{event.kind}</Chip>
                <span class="event-text">
                  <Linked text={event.text} />
                </span>
              </li>
            ))}
          </ol>
        </>
      )}
      {failed != null && <ErrorNote error={failed} />}
      {shown.length >= PAGE && !more.ended && (
        <button type="button" class="button" onClick={() => void loadOlder()}>
          Older events
        </button>
      )}
    </>
  );
}

function tone({ kind, code }: LogEvent): Tone {
  if (code) return "bad";
  if (/fail|error|lost|died|crash|refus/.test(kind)) return "bad";
  if (/warn|slow|restart|cordon|degrad|drift|orphan/.test(kind)) return "warn";
  if (/ready|served|done|recover/.test(kind)) return "good";
  return "calm";
}
