// Types of the console's API. A member of a merge patch that is null removes the member, so `null` and a missing member
// are the same.

export type Maybe<T> = T | null | undefined;

export interface Session {
  version: string;
  deployment: string;
  allow_changes: boolean;
  csrf?: Maybe<string>;
}

export interface Deployment {
  state: string;
  serving: boolean;
  degraded: boolean;
  reasons?: Maybe<string[]>;
  paused: boolean;
  doing?: Maybe<string>;
  error?: Maybe<string>;
  generation: number;
  driver: string;
  emulated?: Maybe<string[]>;
  version?: Maybe<string>;
  canary?: Maybe<{ share: number; generation: number; running: number; verdict?: Maybe<string> }>;
}

/** Rates and percentiles of the answers of a variant, over all its workers. */
export interface VariantMeasured {
  rate_rps?: Maybe<number>;
  p50_ms?: Maybe<number>;
  p99_ms?: Maybe<number>;
}

export interface GraphTask {
  budget_ms?: Maybe<number>;
  rate_rps?: Maybe<number>;
  step?: Maybe<boolean>;
  measured?: Maybe<{ rate_rps?: Maybe<number>; p50_ms?: Maybe<number>; p99_ms?: Maybe<number>; queue_ms?: Maybe<number> }>;
  variants: Record<
    string,
    {
      accuracy?: Maybe<number>;
      share_planned?: Maybe<number>;
      share_measured?: Maybe<number>;
      measured?: Maybe<VariantMeasured>;
    }
  >;
}

export interface GraphEdge {
  from: string;
  to: string;
  tensors: string[];
  for_each?: Maybe<boolean>;
  when?: Maybe<string>;
  fan_out_planned?: Maybe<number>;
  fan_out_measured?: Maybe<number>;
  rate_rps?: Maybe<number>;
}

export interface Graph {
  demand_rps: number;
  capacity_rps: number;
  arrivals_rps?: Maybe<number>;
  slo_latency_ms: number;
  percentile: number;
  slo_accuracy: number;
  accuracy?: Maybe<number>;
  latency_ms?: Maybe<number>;
  target?: Maybe<string>;
  inputs: string[];
  outputs: string[];
  critical_path: string[];
  tasks: Record<string, GraphTask>;
  edges: GraphEdge[];
}

export interface Slice {
  slice: string;
  start: number;
  size: number;
  worker?: Maybe<string>;
  foreign?: Maybe<boolean>;
}

export interface Gpu {
  node: string;
  index: number;
  model: string;
  /** Compute slices of the board. */
  size: number;
  /** Memory slices of the board, which `start` and `size` of its slices count. */
  memory: number;
  lost?: Maybe<boolean>;
  slices: Slice[];
}

export interface WorkerModel {
  graph: string;
  task: string;
  variant: string;
  instances: number;
  batch: number;
  standby?: Maybe<boolean>;
  planned?: Maybe<{
    throughput_rps?: Maybe<number>;
    p50_ms?: Maybe<number>;
    p99_ms?: Maybe<number>;
    memory_mib?: Maybe<number>;
  }>;
  measured?: Maybe<{ batches_rps?: Maybe<number>; mean_ms?: Maybe<number>; slowdown?: Maybe<number> }>;
}

export interface Worker {
  state: string;
  gpu?: Maybe<string>;
  slice?: Maybe<string>;
  start?: Maybe<number>;
  pid?: Maybe<number>;
  restarts?: Maybe<number>;
  /** Utilisation of the MIG instance; `busy` is a share of its multiprocessors' time. */
  use?: Maybe<{ memory_mib?: Maybe<number>; memory_total_mib?: Maybe<number>; busy?: Maybe<number> }>;
  models: WorkerModel[];
}

export type MoveKind = "drain" | "destroy" | "create" | "load" | "unload" | "route";

export interface Move {
  gpu?: Maybe<string>;
  kind: MoveKind;
  worker?: Maybe<string>;
}

export interface Change {
  from: number;
  to: number;
  why: string;
  stages: string[];
  at: number;
  moves: Move[];
}

export interface Node {
  name?: Maybe<string>;
  state: string;
  cordoned?: Maybe<boolean>;
  /** Address of its agent; none for the controller's own machine. */
  agent?: Maybe<string>;
  /** Labels of the machine, such as its rack. */
  topology?: Maybe<Record<string, string>>;
  gpus?: Maybe<Record<string, number>>;
  /** Indexes of its GPUs that are lost. */
  lost?: Maybe<number[]>;
  workers?: Maybe<string[]>;
}

/** A server that clients call: the gateway, its standby, or the edge in front. */
export interface Entrance {
  state: string;
  http?: Maybe<string>;
  grpc?: Maybe<string>;
  restarts?: Maybe<number>;
}

export interface Standby extends Entrance {
  node: string;
  /** True if the standby serves what the gateway serves. */
  in_line: boolean;
  /** Time since which the standby has this state. */
  since: number;
  failure?: Maybe<string>;
}

export interface State {
  now: number;
  deployment: Deployment;
  gateway?: Maybe<Entrance>;
  standby_gateway?: Maybe<Standby>;
  edge?: Maybe<Entrance>;
  nodes?: Maybe<Record<string, Node>>;
  graphs: Record<string, Graph>;
  gpus: Record<string, Gpu>;
  workers: Record<string, Worker>;
  change?: Maybe<Change>;
}

export interface GraphSample {
  arrivals_rps?: Maybe<number>;
  served_rps?: Maybe<number>;
  refused_rps?: Maybe<number>;
  failed_rps?: Maybe<number>;
  p50_ms?: Maybe<number>;
  p99_ms?: Maybe<number>;
  accuracy?: Maybe<number>;
}

export interface Sample {
  t: number;
  slices: number;
  graphs: Record<string, GraphSample>;
  joules_per_request?: Maybe<number>;
}

export type Column = Maybe<number>[];

export interface History {
  samples: {
    t: number[];
    slices: Column;
    graphs: Record<string, Partial<Record<keyof GraphSample, Column>>>;
    joules_per_request?: Maybe<Column>;
  };
  changes: PastChange[];
}

export interface PastChange {
  t: number;
  generation: number;
  from?: Maybe<number>;
  why?: Maybe<string>;
  seconds?: Maybe<number>;
  slices_before?: Maybe<number>;
  slices_after?: Maybe<number>;
  summary?: Maybe<string | string[]>;
}

export interface LogEvent {
  id: number;
  /** Time in ISO 8601. */
  at: string;
  kind: string;
  text: string;
  code?: Maybe<number>;
}

export interface TraceHead {
  id: string;
  graph: string;
  t: number;
  ms: number;
  /** Id that the client gave. */
  request?: Maybe<string>;
  outcome?: Maybe<string>;
}

export interface Span {
  task: string;
  items?: Maybe<number>;
  kind: "gateway" | "queue" | "call" | "model";
  outcome?: Maybe<string>;
  start_ms: number;
  end_ms: number;
  worker?: Maybe<string>;
  variant?: Maybe<string>;
}

export interface Trace {
  id: string;
  graph: string;
  message?: Maybe<string>;
  /** Spans from top to bottom of the waterfall. */
  spans: Span[];
}

export interface Segment {
  variant: string;
  slice: string;
  instances: number;
  batch: number;
  count: number;
  share: number;
}

export interface Plan {
  graphs: Record<
    string,
    {
      demand_rps: number;
      capacity_rps: number;
      accuracy: number;
      latency_ms: number;
      tasks: Record<string, { budget_ms: number; rate_rps: number; segments: Segment[] }>;
    }
  >;
  gpus: {
    node: string;
    index: number;
    model: string;
    layout: { slice: string; start: number; models: Omit<WorkerModel, "planned" | "measured">[] }[];
  }[];
  slices_used: number;
  slices_total: number;
  gpus_used: number;
  solver?: Maybe<{ name: string; status: string; seconds: number; gap?: Maybe<number> }>;
}

export interface Explanation {
  binding: string[];
  requirements: Requirement[];
  alternatives: Alternative[];
  paths?: Maybe<PathBudget[]>;
}

/** Effect of another requirement or choice: slices and GPUs more than the plan has, if there is a plan then. */
export interface Effect {
  outcome: "plan" | "none" | "unknown";
  slices?: Maybe<number>;
  gpus?: Maybe<number>;
}

export interface Requirement {
  name: string;
  value?: Maybe<number | string>;
  binds?: Maybe<boolean>;
  steps?: Maybe<(Effect & { change: string })[]>;
  cost_slices?: Maybe<number>;
}

export interface Alternative extends Effect {
  graph: string;
  task: string;
  what: "variant" | "slice";
  chosen: string;
  instead?: Maybe<string>;
}

export interface PathBudget {
  graph: string;
  tasks: string[];
  latency_ms: number;
  slo_ms: number;
  slack_ms: number;
  accuracy: number;
  slo_accuracy: number;
}

export interface PlanView {
  plan: Maybe<Plan>;
  explain: Maybe<Explanation>;
  explaining: boolean;
  explain_error?: Maybe<string>;
}

export interface WhatIf {
  demand: Record<string, number>;
  slo: Record<string, { latency_ms: number; accuracy: number }>;
  gpus: number | null;
}

export interface WhatIfResult {
  feasible: boolean;
  reasons: string[];
  hint?: Maybe<string>;
  slices?: Maybe<number>;
  gpus?: Maybe<number>;
  plan?: Maybe<Plan>;
  difference: string[];
  seconds: number;
}
