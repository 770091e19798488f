import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { query } from "../api";
import { plural } from "../format";
import { link, route, setParameter } from "../route";
import { state } from "../store";
import { Choice, Empty, ErrorNote, Head, Search, Select, useLoaded } from "../ui";

const FOLLOW_MS = 2000;
const LINES = ["200", "1000", "5000"] as const;

export function Logs() {
  const values = route.value.values;
  const servers = useLoaded<string[]>("/api/servers");
  const names = servers.data ?? [];
  const asked = values.get("server");
  // By default the page shows the controller's log, which concerns the whole deployment.
  const server = asked ?? (names.includes("controller") ? "controller" : (names[0] ?? ""));
  const elsewhere = Object.values(state.value?.nodes ?? {}).some((node) => node.agent != null);
  const text = values.get("text") ?? "";
  const count = LINES.find((value) => value === values.get("lines")) ?? LINES[0];
  const [follow, setFollow] = useState(true);
  const { data, error, reload } = useLoaded<{ lines: string[] }>(server ? query("/api/logs", { server, lines: count }) : null);
  useEffect(() => {
    if (!follow || !server) return;
    const timer = setInterval(reload, FOLLOW_MS);
    return () => clearInterval(timer);
  }, [follow, server]);
  const lines = useMemo(() => {
    const lower = text.toLowerCase();
    return (data?.lines ?? []).filter((line) => line.toLowerCase().includes(lower));
  }, [data, text]);
  const box = useRef<HTMLPreElement>(null);
  useEffect(() => {
    if (follow && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines, follow]);
  const known = asked && !names.includes(asked) ? [asked, ...names] : names;
  return (
    <>
      <Head title="Logs">
        <Select label="Server" value={server} options={known.map((name) => [name, name])} onChange={(value) => setParameter("server", value)} />
        <Search label="Text" value={text} onInput={(value) => setParameter("text", value)} />
        <Choice label="Lines" value={count} options={LINES.map((value) => [value, `${value} lines`] as const)} onChange={(value) => setParameter("lines", value)} />
        <label class="check">
          <input type="checkbox" checked={follow} onChange={(event) => setFollow(event.currentTarget.checked)} /> Follow
        </label>
      </Head>
      {servers.error != null && <ErrorNote error={servers.error} />}
      {error != null && <ErrorNote error={error} />}
      {state.value?.workers[server] && (
        <p class="summary">
          <a href={link("gpus", { worker: server, show: "single" })}>Worker {server} on its GPU</a>
        </p>
      )}
      {elsewhere && (
        <p class="summary">
          Workers of other machines have their logs there: <code>jigsaw-triton logs WORKER --state FOLDER</code> with the folder of the agent.
        </p>
      )}
      {data && lines.length === 0 && <Empty>{text ? "No line matches." : "The log is empty."}</Empty>}
      {lines.length > 0 && (
        <>
          <p class="summary">{plural(lines.length, "line")}</p>
          <pre class="log" ref={box} tabIndex={0} aria-label={`Log of ${server}`}>
            {lines.map((line, index) => (
              <span key={index} class={level(line)}>
                {line}
                {"\n"}
              </span>
            ))}
          </pre>
        </>
      )}
    </>
  );
}

/** The level of a line of tritonserver (`E1130 ...`) or of the controller (`ERROR`). */
function level(line: string): string {
  if (/^E\d{4} |\b(ERROR|CRITICAL)\b/.test(line)) return "log-error";
  return /^W\d{4} |\bWARNING\b/.test(line) ? "log-warning" : "";
}
