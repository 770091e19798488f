import { link } from "./route";
import { state } from "./store";

// A name may be followed by a full stop.
const WORDS = /(\bgeneration \d+|[\w./@+-]*\w)/g;

/** A text in which workers and generations are links. */
export function Linked({ text }: { text: string }) {
  const workers = state.value?.workers ?? {};
  const parts = text.split(WORDS).map((part, index) => {
    const generation = /^generation (\d+)$/.exec(part)?.[1];
    if (generation !== undefined) {
      return (
        <a key={index} href={link("load", { generation, span: 3600 })}>
          {part}
        </a>
      );
    }
    if (!Object.hasOwn(workers, part)) return part;
    return (
      <a key={index} href={link("gpus", { worker: part, show: "single" })}>
        {part}
      </a>
    );
  });
  return <>{parts}</>;
}
