import { nodeConditions } from "./boards";
import { clock, NONE, number, plural } from "./format";
import type { Entrance, Node, State } from "./model";
import { OperationButton } from "./operations";
import { session, state } from "./store";
import { Chip, Message, Table, type Tone } from "./ui";

/** Nodes that need attention and are named in the line that is always visible. */
const MOST_NAMED = 4;

/** The servers that clients call, and the nodes of the deployment: a line that opens. */
export function Machines() {
  const found = state.value!;
  const entrances = entrancesOf(found);
  const conditions = nodeConditions(found);
  const nodes = Object.entries(found.nodes ?? {}).sort(([a], [b]) => Number(conditions.has(b)) - Number(conditions.has(a)));
  const several = nodes.length > 1 || nodes.some(([name, node]) => node.agent != null || conditions.has(name));
  const failure = found.standby_gateway?.failure;
  return (
    <details class="panel machines">
      <summary>
        {entrances.map(({ title, tone, words }) => (
          <span key={title}>
            {title} <Chip tone={tone}>{words}</Chip>
          </span>
        ))}
        {several && <NodesInShort count={nodes.length} conditions={conditions} />}
      </summary>
      <Table label="Servers that clients call" headings={["server", "state", "HTTP", "gRPC", "since", "#restarts"]}>
        {entrances.map(({ title, tone, words, server, since }) => (
          <tr key={title}>
            <th scope="row">{title}</th>
            <td>
              <Chip tone={tone}>{words}</Chip>
            </td>
            <td>{server.http ?? NONE}</td>
            <td>{server.grpc ?? NONE}</td>
            <td>{clock(since)}</td>
            <td class="num">{number(server.restarts)}</td>
          </tr>
        ))}
      </Table>
      {failure && <p class="banner bad">The standby gateway does not follow: <Message text={failure} /></p>}
      {several && <NodesTable nodes={nodes} conditions={conditions} />}
    </details>
  );
}

interface Shown {
  title: string;
  server: Entrance;
  tone: Tone;
  words: string;
  since?: number;
}

function entrancesOf({ gateway, standby_gateway: standby, edge }: State): Shown[] {
  const plain = (title: string, server: Entrance): Shown => ({
    title,
    server,
    tone: server.state === "ready" ? "good" : "bad",
    words: server.state,
  });
  const found: Shown[] = gateway ? [plain("Gateway", gateway)] : [];
  if (standby) {
    const ready = standby.state === "ready";
    found.push({
      ...plain(`Standby gateway on ${standby.node}`, standby),
      tone: ready && standby.in_line ? "good" : ready ? "warn" : "bad",
      words: `${standby.state}, ${standby.in_line ? "in sync" : "not in sync"}`,
      since: standby.since,
    });
  }
  return edge ? [...found, plain("Edge", edge)] : found;
}

const toneOf = (condition: string | undefined): Tone => (condition === undefined ? "good" : condition === "lost" ? "bad" : "warn");

function NodesInShort({ count, conditions }: { count: number; conditions: Map<string, string> }) {
  const named = [...conditions].slice(0, MOST_NAMED);
  const more = conditions.size - named.length;
  return (
    <span>
      Nodes <Chip tone={conditions.size === count ? "calm" : "good"}>{number(count - conditions.size)} ready</Chip>
      {named.map(([name, condition]) => (
        <Chip key={name} tone={toneOf(condition)}>
          {name} {condition}
        </Chip>
      ))}
      {more > 0 && <Chip tone="warn">{plural(more, "more", "more")}</Chip>}
    </span>
  );
}

function NodesTable({ nodes, conditions }: { nodes: [string, Node][]; conditions: Map<string, string> }) {
  const changes = session.value?.allow_changes ?? false;
  return (
    <Table label="Nodes" headings={["node", "state", "labels", "GPUs", "#workers", "agent", ...(changes ? ["change"] : [])]}>
      {nodes.map(([name, node]) => {
        const condition = conditions.get(name);
        const lost = node.lost?.length ?? 0;
        return (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td>
              <Chip tone={toneOf(condition)}>{condition ?? "ready"}</Chip>
              {node.cordoned && condition !== "cordoned" && condition !== "draining" && <Chip tone="warn">cordoned</Chip>}
            </td>
            <td>
              {Object.entries(node.topology ?? {})
                .map(([label, value]) => `${label} ${value}`)
                .join(", ")}
            </td>
            <td>
              {Object.entries(node.gpus ?? {})
                .map(([model, count]) => `${count}×${model}`)
                .join(", ")}
              {lost > 0 && <span class="bad-text">, {lost} lost</span>}
            </td>
            <td class="num">{number(node.workers?.length)}</td>
            <td>{node.agent ?? "in the controller"}</td>
            {changes && (
              <td>
                <OperationButton operation={node.cordoned ? uncordon(name) : cordon(name)} />
              </td>
            )}
          </tr>
        );
      })}
    </Table>
  );
}

const cordon = (node: string) => ({ path: "cordon", title: "Cordon", text: `New plans leave ${node} out. Nothing stops there.`, body: { node } });
const uncordon = (node: string) => ({ path: "uncordon", title: "Uncordon", text: `Plans may use ${node} again.`, body: { node } });
