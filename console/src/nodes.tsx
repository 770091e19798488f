import { plural } from "./format";
import { OperationButton } from "./operations";
import { session, state } from "./store";
import { Chip } from "./ui";

/** The nodes of the deployment, if there are several or one of them needs attention. */
export function Nodes() {
  const nodes = Object.entries(state.value?.nodes ?? {});
  if (nodes.length < 2 && nodes.every(([, node]) => node.state === "ready")) return null;
  const away = nodes.filter(([, node]) => node.state !== "ready").length;
  return (
    <details class="panel nodes" open={away > 0}>
      <summary>
        {plural(nodes.length, "node")}
        {away > 0 && <span class="bad-text">, {away} not ready</span>}
      </summary>
      <div class="scroll" tabIndex={0} role="region" aria-label="Nodes">
        <table>
          <thead>
            <tr>
              <th scope="col">node</th>
              <th scope="col">state</th>
              <th scope="col">GPUs</th>
              <th scope="col">agent</th>
              {session.value?.allow_changes && <th scope="col">change</th>}
            </tr>
          </thead>
          <tbody>
            {nodes.map(([name, node]) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td>
                  <Chip tone={node.state === "ready" ? "good" : node.state === "lost" ? "bad" : "warn"}>{node.state}</Chip>
                </td>
                <td>
                  {Object.entries(node.gpus ?? {})
                    .map(([model, count]) => `${count}×${model}`)
                    .join(", ")}
                </td>
                <td>{node.agent ?? "in the controller"}</td>
                {session.value?.allow_changes && (
                  <td>
                    <OperationButton
                      operation={
                        node.state === "cordoned"
                          ? { path: "uncordon", title: "Uncordon", text: `Plans may use ${name} again.`, body: { node: name } }
                          : { path: "cordon", title: "Cordon", text: `New plans leave ${name} out. Nothing stops there.`, body: { node: name } }
                      }
                    />
                  </td>
                )}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}
