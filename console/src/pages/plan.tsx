import { useEffect, useMemo } from "preact/hooks";
import { get } from "../api";
import { type Board, grouped } from "../boards";
import { BoardView } from "../board";
import { accuracy, ms, number, plural, rate, seconds } from "../format";
import type { Effect, Explanation, PathBudget, Plan, PlanView } from "../model";
import { taskClass, taskLabel } from "../palette";
import { planBoards } from "../plan_boards";
import { state } from "../store";
import { Chip, Empty, ErrorNote, Head, Message, Panel, Stat, Table, useLoaded } from "../ui";
import { WhatIfPanel } from "./whatif";

const POLL_MS = 1500;

export function PlanPage() {
  const generation = state.value!.deployment.generation;
  const { data, error, reload } = useLoaded<PlanView>("/api/plan?explain=1", generation);
  const waiting = data?.explaining ?? false;
  useEffect(() => {
    if (!waiting) return;
    const timer = setTimeout(reload, POLL_MS);
    return () => clearTimeout(timer);
  }, [waiting, data]);
  // After the answer, the reloaded plan says that the explanation has begun, or why it has not.
  const again = () => void get("/api/plan?explain=again").then(reload, reload);
  const plan = data?.plan;
  return (
    <>
      <Head title="Plan" />
      {error != null && <ErrorNote error={error} />}
      {!plan && error == null && <Empty>{data ? "Nothing is planned yet." : "Loading the plan…"}</Empty>}
      {plan && (
        <>
          <Figures plan={plan} />
          <WhatIfPanel plan={plan} />
          <Paths plan={plan} explain={data.explain ?? null} />
          {waiting && (
            <p class="banner calm" role="status">
              Explaining the plan: other plans are made to find what binds and what each requirement costs…
            </p>
          )}
          {data.explain_error && (
            <p class="banner warn">
              The plan is not explained: <Message text={data.explain_error} />{" "}
              <button type="button" class="button" onClick={again}>
                Try again
              </button>
            </p>
          )}
          {data.explain && <Explained explain={data.explain} />}
          <Panel title="GPUs of the plan" note={plural(plan.gpus_used, "GPU")}>
            <PlanPicture plan={plan} />
          </Panel>
        </>
      )}
    </>
  );
}

function Figures({ plan }: { plan: Plan }) {
  const { solver } = plan;
  return (
    <dl class="stats">
      <Stat label="slices" value={number(plan.slices_used)} note={`of ${number(plan.slices_total)}`} />
      <Stat label="GPUs" value={number(plan.gpus_used)} />
      {Object.entries(plan.graphs).map(([name, graph]) => (
        <Stat key={name} label={`capacity of ${name}`} value={rate(graph.capacity_rps)} note={`for ${rate(graph.demand_rps)}`} />
      ))}
      {solver && (
        <Stat
          label="solver"
          value={solver.status === "optimal" ? "proven optimal" : solver.status}
          note={`${solver.name}, ${seconds(solver.seconds)}${solver.gap ? `, gap ${(solver.gap * 100).toFixed(1)}%` : ""}`}
        />
      )}
    </dl>
  );
}

/** How the tasks of each path share the latency of the SLO. */
function Paths({ plan, explain }: { plan: Plan; explain: Explanation | null }) {
  const paths = explain?.paths?.length ? explain.paths : criticalPaths(plan);
  return (
    <Panel title="Latency by path" note="budgets of the tasks, against the SLO">
      {paths.map((path) => (
        <div class="path" key={`${path.graph} ${path.tasks.join(" ")}`}>
          <div class="path-name">
            <span>{path.tasks.map((task) => taskLabel.value(path.graph, task)).join(" → ")}</span>
            <span class="note">
              {ms(path.latency_ms)} of {ms(path.slo_ms)}
              {path.slo_accuracy > 0 && `, accuracy ${accuracy(path.accuracy)} of ${accuracy(path.slo_accuracy)}`}
            </span>
          </div>
          <div class="path-bar" role="img" aria-label={path.tasks.map((task) => `${task} ${ms(budget(plan, path, task))}`).join(", ")}>
            {path.tasks.map((task) => {
              const width = (budget(plan, path, task) / Math.max(path.slo_ms, path.latency_ms)) * 100;
              return (
                <span key={task} class={taskClass(path.graph, task)} style={{ width: `${width}%` }} title={`${task}: ${ms(budget(plan, path, task))}`}>
                  {width > 9 && task}
                </span>
              );
            })}
          </div>
        </div>
      ))}
    </Panel>
  );
}

const budget = (plan: Plan, path: PathBudget, task: string): number => plan.graphs[path.graph]?.tasks[task]?.budget_ms ?? 0;

function criticalPaths(plan: Plan): PathBudget[] {
  return Object.entries(state.value!.graphs).flatMap(([graph, { critical_path: tasks, slo_latency_ms: slo_ms, slo_accuracy }]) => {
    const planned = plan.graphs[graph];
    if (!planned || tasks.length === 0) return [];
    const { latency_ms, accuracy } = planned;
    return [{ graph, tasks, latency_ms, slo_ms, slack_ms: slo_ms - latency_ms, accuracy, slo_accuracy }];
  });
}

function effect(found: Effect): string {
  if (found.outcome === "none") return "no plan";
  if (found.outcome === "unknown") return "not known in time";
  const parts = [signed(found.slices, "slice"), signed(found.gpus, "GPU")].filter(Boolean);
  return parts.join(", ") || "no difference";
}

function signed(value: number | null | undefined, unit: string): string {
  return value ? `${value > 0 ? "+" : "−"}${plural(Math.abs(value), unit)}` : "";
}

function Explained({ explain }: { explain: Explanation }) {
  const most = Math.max(1, ...explain.requirements.map((found) => Math.abs(found.cost_slices ?? 0)));
  return (
    <>
      <Panel title="What binds">
        {explain.binding.length > 0 ? (
          <ul class="binding">
            {explain.binding.map((text, index) => (
              <li key={index}>{text}</li>
            ))}
          </ul>
        ) : (
          <Empty>No requirement costs a slice.</Empty>
        )}
      </Panel>
      <Panel title="What each requirement costs" note="slices of the plan that it takes">
        <ul class="costs">
          {explain.requirements.map((found, index) => (
            <li key={index}>
              <div class="cost-name">
                <strong>{found.name}</strong> {found.value != null && <span class="note">{typeof found.value === "number" ? number(found.value) : found.value}</span>}
                {found.binds && <Chip tone="info">binds</Chip>}
              </div>
              <div class="cost-bar">
                <span style={{ width: `${(Math.abs(found.cost_slices ?? 0) / most) * 100}%` }} />
                <b>{found.cost_slices == null ? "not known" : plural(found.cost_slices, "slice")}</b>
              </div>
              {(found.steps ?? []).length > 0 && (
                <p class="note">{found.steps!.map((step) => `${step.change}: ${effect(step)}`).join("; ")}</p>
              )}
            </li>
          ))}
        </ul>
      </Panel>
      <Panel title="Alternatives" note="the effect of doing without each choice">
        <Table label="Alternatives" headings={["task", "without", "instead", "effect"]}>
          {explain.alternatives.map((found, index) => (
            <tr key={index}>
              <th scope="row">
                <span class={`swatch ${taskClass(found.graph, found.task)}`} aria-hidden="true" /> {taskLabel.value(found.graph, found.task)}
              </th>
              <td>
                {found.what} {found.chosen}
              </td>
              <td>{found.instead ?? ""}</td>
              <td>{effect(found)}</td>
            </tr>
          ))}
        </Table>
      </Panel>
    </>
  );
}

/** Groups of alike GPUs of a plan that are shown; plans rarely have more. */
const MOST_BOARDS = 24;

export function PlanPicture({ plan }: { plan: Plan }) {
  const groups = useMemo(() => grouped(planBoards(plan, state.value!)), [plan]);
  return (
    <>
      <div class="plan-boards">
        {groups.slice(0, MOST_BOARDS).map((group) => (
          <PictureBoard key={group.key} board={group.first} count={group.boards.length} />
        ))}
      </div>
      {groups.length > MOST_BOARDS && <p class="note">{plural(groups.length - MOST_BOARDS, "more kind")} of GPU</p>}
    </>
  );
}

const never = () => false;

function PictureBoard({ board, count }: { board: Board; count: number }) {
  return (
    <div class="plan-board">
      <BoardView board={board} count={count} dim={never} stop={-1} picture />
    </div>
  );
}
