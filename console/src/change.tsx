import { plural } from "./format";
import { state } from "./store";

/** The change in progress: why, the stage it is at, and the stages before and after. */
export function ChangeStrip() {
  const change = state.value?.change;
  if (!change) return null;
  const count = change.stages.length;
  const done = Math.min(change.at, count);
  return (
    <section class="change" aria-label="Change in progress">
      <div class="change-head">
        <strong>
          Generation {change.from === change.to ? change.to : `${change.from} → ${change.to}`}
        </strong>
        <span>{change.why}</span>
        <span class="note">
          stage {Math.min(done + 1, count)} of {count}
        </span>
      </div>
      <div class="progress" role="progressbar" aria-label="Stages done" aria-valuemin={0} aria-valuemax={count} aria-valuenow={done}>
        {change.stages.map((_, index) => (
          <span key={index} class={index < done ? "done" : index === done ? "now" : ""} />
        ))}
      </div>
      <p class="change-now" role="status">
        {change.stages[done] ?? "finishing"}
      </p>
      <details>
        <summary>{plural(count, "stage")}</summary>
        <ol class="stages">
          {change.stages.map((stage, index) => (
            <li key={index} class={index < done ? "done" : index === done ? "now" : ""} aria-current={index === done ? "step" : undefined}>
              {stage}
            </li>
          ))}
        </ol>
      </details>
    </section>
  );
}
