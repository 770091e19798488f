import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { post } from "../api";
import { accuracy, ms, number, plural, rate, seconds } from "../format";
import type { Plan, WhatIf, WhatIfResult } from "../model";
import { session, state } from "../store";
import { Chip, ErrorNote, Message, Panel, Stat, useRested } from "../ui";
import { PlanPicture } from "./plan";

const REST_MS = 180;
/** The demand goes from a quarter to four times of what is planned, evenly in powers of two. */
const DEMAND_STEPS = 40;

interface Wishes {
  demand: Record<string, number>;
  latency: Record<string, number>;
  accuracy: Record<string, number>;
  gpus: number;
}

/** Sliders that plan again with other requirements. Nothing that runs is touched. */
export function WhatIfPanel({ plan }: { plan: Plan }) {
  const graphs = state.value!.graphs;
  const names = Object.keys(plan.graphs).filter((name) => graphs[name]);
  const { gpus, nodes } = state.value!;
  const count = Object.values(gpus).filter(({ lost, node }) => !lost && !nodes?.[node]?.cordoned).length;
  const present: Wishes = {
    demand: Object.fromEntries(names.map((name) => [name, plan.graphs[name]!.demand_rps])),
    latency: Object.fromEntries(names.map((name) => [name, graphs[name]!.slo_latency_ms])),
    accuracy: Object.fromEntries(names.map((name) => [name, graphs[name]!.slo_accuracy])),
    gpus: count,
  };
  // The plan is loaded repeatedly while it is explained. Only other values move the sliders.
  const before = useMemo(() => present, [JSON.stringify(present)]);
  const began = useRef(before);
  const [wishes, setWishes] = useState(before);
  useEffect(() => {
    const old = began.current;
    began.current = before;
    // Sliders that the user has moved stay where they are.
    setWishes((now) => (equal(now, old) ? before : now));
  }, [before]);
  const rested = useRested(wishes, REST_MS);
  const { result, error, busy } = useResult(rested, before);
  const set = (part: "demand" | "latency" | "accuracy", name: string, value: number) =>
    setWishes((now) => ({ ...now, [part]: { ...now[part], [name]: value } }));
  const changed = !equal(wishes, before);
  return (
    <Panel title="What if" note="plans again; nothing that runs is touched">
      <div class="whatif">
        <div class="sliders">
          {names.map((name) => (
            <fieldset key={name}>
              <legend>{name}</legend>
              <Slider
                label="demand"
                value={Math.round(Math.log2(wishes.demand[name]! / before.demand[name]!) * (DEMAND_STEPS / 4))}
                from={-DEMAND_STEPS / 2}
                to={DEMAND_STEPS / 2}
                step={1}
                text={rate(wishes.demand[name])}
                onInput={(step) => set("demand", name, round(before.demand[name]! * 2 ** (step / (DEMAND_STEPS / 4))))}
              />
              <Slider
                label="SLO latency"
                value={wishes.latency[name]!}
                from={round(before.latency[name]! / 4)}
                to={round(before.latency[name]! * 4)}
                step="any"
                text={ms(wishes.latency[name])}
                onInput={(value) => set("latency", name, round(value))}
              />
              <Slider
                label="SLO accuracy"
                value={wishes.accuracy[name]!}
                from={0.5}
                to={1}
                step={0.005}
                text={accuracy(wishes.accuracy[name])}
                onInput={(value) => set("accuracy", name, value)}
              />
            </fieldset>
          ))}
          <Slider
            label="GPUs"
            value={wishes.gpus}
            from={1}
            to={Math.max(8, 2 * count)}
            step={1}
            text={number(wishes.gpus)}
            onInput={(value) => setWishes((now) => ({ ...now, gpus: value }))}
          />
          <button type="button" class="button" disabled={!changed} onClick={() => setWishes(before)}>
            Reset
          </button>
        </div>
        <div class={`whatif-result${busy ? " busy" : ""}`} aria-live="polite" aria-busy={busy}>
          {error != null ? (
            <ErrorNote error={error} />
          ) : result ? (
            <Result plan={plan} result={result} />
          ) : (
            <p class="empty">{busy ? "Planning…" : "Move a slider to see the plan that would follow."}</p>
          )}
        </div>
      </div>
    </Panel>
  );
}

function useResult(wishes: Wishes, before: Wishes) {
  const [found, setFound] = useState<{ result: WhatIfResult | null; error: unknown; busy: boolean }>({ result: null, error: null, busy: false });
  useEffect(() => {
    if (equal(wishes, before)) {
      setFound({ result: null, error: null, busy: false });
      return;
    }
    const asked = new AbortController();
    setFound((now) => ({ ...now, busy: true }));
    const body: WhatIf = {
      demand: wishes.demand,
      slo: Object.fromEntries(
        Object.keys(wishes.latency).map((name) => [name, { latency_ms: wishes.latency[name]!, accuracy: wishes.accuracy[name]! }]),
      ),
      gpus: wishes.gpus === before.gpus ? null : wishes.gpus,
    };
    post<WhatIfResult>("/api/whatif", body, session.value?.csrf, asked.signal).then(
      (result) => setFound({ result, error: null, busy: false }),
      (error: unknown) => {
        if (!asked.signal.aborted) setFound({ result: null, error, busy: false });
      },
    );
    return () => asked.abort();
  }, [wishes, before]);
  return found;
}

function Result({ plan, result }: { plan: Plan; result: WhatIfResult }) {
  if (!result.feasible) {
    return (
      <>
        <p>
          <Chip tone="bad">no plan</Chip> <span class="note">{seconds(result.seconds)}</span>
        </p>
        <ul class="binding">
          {result.reasons.map((reason, index) => (
            <li key={index}><Message text={reason} /></li>
          ))}
        </ul>
        {result.hint && <p class="note"><Message text={result.hint} /></p>}
      </>
    );
  }
  return (
    <>
      <dl class="stats">
        <Stat label="slices" value={number(result.slices)} note={difference(plan.slices_used, result.slices, "slice")} />
        <Stat label="GPUs" value={number(result.gpus)} note={difference(plan.gpus_used, result.gpus, "GPU")} />
        <Stat label="planned in" value={seconds(result.seconds)} />
      </dl>
      {result.difference.length > 0 ? (
        <ul class="difference">
          {result.difference.map((line, index) => (
            <li key={index}>{line}</li>
          ))}
        </ul>
      ) : (
        <p class="note">The running plan meets these requirements.</p>
      )}
      {result.plan && <PlanPicture plan={result.plan} />}
    </>
  );
}

function difference(before: number, after: number | null | undefined, unit: string): string {
  const more = (after ?? before) - before;
  return more === 0 ? "as now" : `${more > 0 ? "+" : "−"}${plural(Math.abs(more), unit)}`;
}

const equal = (a: Wishes, b: Wishes): boolean => JSON.stringify(a) === JSON.stringify(b);
const round = (value: number): number => Number(value.toPrecision(3));

function Slider(props: {
  label: string;
  value: number;
  from: number;
  to: number;
  step: number | "any";
  text: string;
  onInput: (value: number) => void;
}) {
  return (
    <div class="slider">
      <span aria-hidden="true">{props.label}</span>
      <b aria-hidden="true">{props.text}</b>
      <input
        type="range"
        min={props.from}
        max={props.to}
        step={props.step}
        value={props.value}
        aria-label={props.label}
        aria-valuetext={props.text}
        onInput={(event) => props.onInput(Number(event.currentTarget.value))}
      />
    </div>
  );
}
