import { render } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import "uplot/dist/uPlot.min.css";
import "./app.css";
import "./pages.css";
import "./narrow.css";
import { signedOut } from "./api";
import { Operations } from "./operations";
import { clock } from "./format";
import { type Page, link, route } from "./route";
import { lostSince, session, staleSince, start, state } from "./store";
import { Chip, Icon, Message, type Tone } from "./ui";
import { Events } from "./pages/events";
import { Gpus } from "./pages/gpus";
import { GraphPage } from "./pages/graph";
import { Load } from "./pages/load";
import { Logs } from "./pages/logs";
import { PlanPage } from "./pages/plan";
import { Traces } from "./pages/traces";

const PAGES: Record<Page, { title: string; view: () => preact.JSX.Element }> = {
  gpus: { title: "GPUs", view: Gpus },
  graph: { title: "Graph", view: GraphPage },
  load: { title: "Load", view: Load },
  plan: { title: "Plan", view: PlanPage },
  events: { title: "Events", view: Events },
  logs: { title: "Logs", view: Logs },
  traces: { title: "Traces", view: Traces },
};

function App() {
  const { page } = route.value;
  const { title, view: View } = PAGES[page];
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  useEffect(() => {
    document.title = `${title} · ${deploymentName()}`;
  }, [title, session.value]);
  // A layout effect runs before the effects of the page, which may scroll to a part of it.
  useLayoutEffect(() => {
    // A new page begins at its top, for screen readers too. The first page leaves the focus alone.
    if (!first.current) {
      scrollTo(0, 0);
      main.current?.focus({ preventScroll: true });
    }
    first.current = false;
  }, [page]);
  if (signedOut.value) return <SignedOut />;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), main.current?.focus())}>
        Skip to content
      </a>
      <Header />
      <nav aria-label="Pages">
        {(Object.keys(PAGES) as Page[]).map((name) => (
          <a key={name} href={link(name)} aria-current={name === page ? "page" : undefined}>
            <Icon name={name} />
            <span>{PAGES[name].title}</span>
          </a>
        ))}
      </nav>
      <main id="main" ref={main} tabIndex={-1} aria-label={title}>
        <Banners />
        {state.value ? <View /> : <Waiting />}
      </main>
    </>
  );
}

function Header() {
  const deployment = state.value?.deployment;
  const [tone, text] = condition();
  return (
    <header>
      <a class="brand" href={link("gpus")}>
        <img src="/assets/icon.svg" alt="" width="26" height="26" />
        <span title={session.value?.deployment}>{deploymentName()}</span>
      </a>
      <div class="facts" role="status">
        <Chip tone={tone}>{text}</Chip>
        {deployment?.paused && <Chip tone="warn">paused</Chip>}
        {deployment && (
          <a class="generation" href={link("load")} title="Changes of the last hour">
            <span>generation</span> {deployment.generation}
          </a>
        )}
      </div>
      <Operations />
    </header>
  );
}

/** The last part of the folder of the deployment. */
function deploymentName(): string {
  return session.value?.deployment.split("/").findLast((part) => part !== "") ?? "jigsaw-triton";
}

function condition(): [Tone, string] {
  const deployment = state.value?.deployment;
  if (!deployment) return ["calm", "connecting"];
  if (lostSince.value !== null || staleSince.value !== null) return ["warn", "stale"];
  if (!deployment.serving) return ["bad", "not serving"];
  if (deployment.degraded) return ["warn", "degraded"];
  return ["good", deployment.state === "ready" ? "serving" : `serving, ${deployment.state}`];
}

function Banners() {
  const deployment = state.value?.deployment;
  const emulated = deployment?.emulated ?? [];
  const reasons = deployment?.reasons ?? [];
  const canary = deployment?.canary;
  return (
    <div class="banners">
      <div role="status">
        {lostSince.value !== null && (
          <p class="banner warn">
            <strong>Connection lost. Stale since {clock(lostSince.value)}.</strong> The console does not answer; the page
            reconnects by itself.
          </p>
        )}
        {lostSince.value === null && staleSince.value !== null && (
          <p class="banner warn">
            <strong>Stale since {clock(staleSince.value)}.</strong> No controller answers. The servers keep serving.
          </p>
        )}
        {reasons.length > 0 && (
          <p class={`banner ${deployment?.serving ? "warn" : "bad"}`}>
            <strong>{deployment?.serving ? "Degraded" : "Not serving"}:</strong> <Message text={reasons.join("; ")} />
          </p>
        )}
        {deployment?.error && (
          <p class="banner bad">
            <strong>Last error:</strong> <Message text={deployment.error} />
          </p>
        )}
        {canary && !canary.verdict && (
          <p class="banner info">
            <strong>Canary:</strong> generation {canary.generation} gets {Math.round(canary.share * 100)}% of the requests
            beside generation {canary.running}.
          </p>
        )}
      </div>
      {emulated.length > 0 && (
        <p class="banner calm">
          <strong>Emulated.</strong> {emulated.map(sentence).join(" ")}
        </p>
      )}
    </div>
  );
}

const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1).replaceAll("`", "")}.`;

function Waiting() {
  return <p class="empty">Waiting for the state of the deployment…</p>;
}

function SignedOut() {
  return (
    <div class="signed-out">
      <img src="/assets/icon.svg" alt="" width="48" height="48" />
      <h1>The session has ended</h1>
      <p>
        Open the address that <code>jigsaw-triton console</code> prints. Each address opens one session. If the console has a
        password, load this page again.
      </p>
    </div>
  );
}

start();
render(<App />, document.getElementById("app")!);
