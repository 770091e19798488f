import { useRef, useState } from "preact/hooks";
import { post } from "./api";
import { session, state } from "./store";
import { ErrorNote } from "./ui";

interface Operation {
  path: string;
  title: string;
  text: string;
  body?: unknown;
}

/** Buttons that change the deployment. They exist only where the console was started with --allow-changes. */
export function Operations() {
  const deployment = state.value?.deployment;
  if (!session.value?.allow_changes || !deployment) return null;
  const pause: Operation = deployment.paused
    ? { path: "resume", title: "Resume", text: "The controller follows the load again." }
    : { path: "pause", title: "Pause", text: "The controller stops following the load. The running plan keeps serving." };
  const rollback: Operation = {
    path: "rollback",
    title: "Roll back",
    text: "The deployment returns to the generation before the last change of its files.",
    body: { generation: null },
  };
  return (
    <div class="operations">
      <OperationButton operation={pause} />
      <OperationButton operation={rollback} />
    </div>
  );
}

export function OperationButton({ operation }: { operation: Operation }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const run = async () => {
    setBusy(true);
    setError(null);
    try {
      await post(`/api/change/${operation.path}`, operation.body ?? {}, session.value?.csrf);
      dialog.current?.close();
    } catch (failed) {
      setError(failed);
    }
    setBusy(false);
  };
  return (
    <>
      <button type="button" class="button" onClick={() => (setError(null), dialog.current?.showModal())}>
        {operation.title}
      </button>
      <dialog ref={dialog} aria-label={operation.title}>
        <h2>{operation.title}?</h2>
        <p>{operation.text}</p>
        {error != null && <ErrorNote error={error} />}
        <div class="actions">
          <button type="button" class="button" onClick={() => dialog.current?.close()}>
            Cancel
          </button>
          <button type="button" class="button primary" disabled={busy} onClick={() => void run()}>
            {operation.title}
          </button>
        </div>
      </dialog>
    </>
  );
}
