import type { Column, GraphSample, History, Sample } from "./model";

/** Seconds that the charts can show. */
export const KEPT_S = 3600;

/** Seconds without a sample that are a gap. One comes each second, and later on a machine that is busy. */
const GAP_S = 10;

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
    for (let row = this.t.length - 1; row > 0; row--) {
      if (this.t[row]! - this.t[row - 1]! > GAP_S) this.leaveGap(row);
    }
  }

  /** Seconds from the first sample to the last. */
  get length_s(): number {
    return (this.t.at(-1) ?? 0) - (this.t[0] ?? 0);
  }

  /** Adds a sample unless it is known already. */
  add(sample: Sample): void {
    if (sample.t <= (this.t.at(-1) ?? -Infinity)) return;
    for (const name of Object.keys(sample.graphs)) {
      if (!this.graphs.has(name)) this.graphs.set(name, columnsOf(() => filled(null, this.t.length)));
    }
    if (sample.t - (this.t.at(-1) ?? Infinity) > GAP_S) this.leaveGap(this.t.length);
    this.t.push(sample.t);
    this.slices.push(sample.slices);
    this.joules.push(sample.joules_per_request ?? null);
    for (const [name, columns] of this.graphs) {
      for (const field of FIELDS) columns[field].push(sample.graphs[name]?.[field] ?? null);
    }
    this.forget(sample.t - KEPT_S);
  }

  /** Adds a row without values before another one, since a chart joins rows that have values. */
  private leaveGap(row: number): void {
    this.t.splice(row, 0, this.t[row - 1]! + 1);
    for (const column of this.columns()) column.splice(row, 0, null);
  }

  private forget(before: number): void {
    const old = this.t.findIndex((t) => t >= before);
    if (old <= 0) return;
    for (const column of [this.t, ...this.columns()]) column.splice(0, old);
  }

  private columns(): Column[] {
    return [this.slices, this.joules, ...[...this.graphs.values()].flatMap((found) => FIELDS.map((field) => found[field]))];
  }
}

function filled(column: Column | null | undefined, length: number): Column {
  return Array.from({ length }, (_, index) => column?.[index] ?? null);
}

function columnsOf(make: (field: Field) => Column): Record<Field, Column> {
  return Object.fromEntries(FIELDS.map((field) => [field, make(field)])) as Record<Field, Column>;
}
