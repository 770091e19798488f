import type { Column, GraphSample, History, Sample } from "./model";

/** Seconds that the charts can show. */
export const KEPT_S = 3600;

type Field = keyof GraphSample;
const FIELDS: Field[] = ["arrivals_rps", "served_rps", "refused_rps", "failed_rps", "p50_ms", "p99_ms", "accuracy"];

/** The samples of the last hour as columns, to which the stream adds. */
export class Series {
  readonly t: number[];
  readonly slices: Column;
  readonly joules: Column;
  readonly graphs = new Map<string, Record<Field, Column>>();

  constructor({ samples }: History) {
    this.t = [...samples.t];
    this.slices = filled(samples.slices, this.t.length);
    this.joules = filled(samples.joules_per_request, this.t.length);
    for (const [name, columns] of Object.entries(samples.graphs)) {
      this.graphs.set(name, columnsOf((field) => filled(columns[field], this.t.length)));
    }
  }

  /** Adds a sample unless it is known already. */
  add(sample: Sample): void {
    if (sample.t <= (this.t.at(-1) ?? -Infinity)) return;
    for (const name of Object.keys(sample.graphs)) {
      if (!this.graphs.has(name)) this.graphs.set(name, columnsOf(() => filled(null, this.t.length)));
    }
    this.t.push(sample.t);
    this.slices.push(sample.slices);
    this.joules.push(sample.joules_per_request ?? null);
    for (const [name, columns] of this.graphs) {
      for (const field of FIELDS) columns[field].push(sample.graphs[name]?.[field] ?? null);
    }
    this.forget(sample.t - KEPT_S);
  }

  private forget(before: number): void {
    const old = this.t.findIndex((t) => t >= before);
    if (old <= 0) return;
    const columns = [...this.graphs.values()].flatMap((found) => FIELDS.map((field) => found[field]));
    for (const column of [this.t, this.slices, this.joules, ...columns]) column.splice(0, old);
  }
}

function filled(column: Column | null | undefined, length: number): Column {
  return Array.from({ length }, (_, index) => column?.[index] ?? null);
}

function columnsOf(make: (field: Field) => Column): Record<Field, Column> {
  return Object.fromEntries(FIELDS.map((field) => [field, make(field)])) as Record<Field, Column>;
}
