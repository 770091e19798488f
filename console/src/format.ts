import type { Maybe } from "./model";

export const NONE = "–";

/** Three significant digits; thousands as k, millions as M. */
export function number(value: Maybe<number>): string {
  if (value == null || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size >= 1e6) return `${digits(value / 1e6)}M`;
  if (size >= 1e4) return `${digits(value / 1e3)}k`;
  return digits(value);
}

function digits(value: number): string {
  const size = Math.abs(value);
  return size >= 100 || Number.isInteger(value) ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export const rate = (value: Maybe<number>): string => (value == null ? NONE : `${number(value)}/s`);
export const ms = (value: Maybe<number>): string => (value == null ? NONE : `${number(value)} ms`);
export const percent = (value: Maybe<number>): string =>
  value == null ? NONE : `${(value * 100).toFixed(value > 0.999 || value < 0.1 ? 0 : 1)}%`;
export const accuracy = (value: Maybe<number>): string => (value == null ? NONE : value.toFixed(3));
export const times = (value: Maybe<number>): string => (value == null ? NONE : `×${digits(value)}`);

export function memory(mib: Maybe<number>): string {
  if (mib == null) return NONE;
  return mib >= 1024 ? `${(mib / 1024).toFixed(1)} GiB` : `${mib.toFixed(0)} MiB`;
}

export function seconds(value: Maybe<number>): string {
  if (value == null) return NONE;
  if (value < 60) return `${number(value)} s`;
  const minutes = Math.floor(value / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(value % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** Time of day, with the date if it is not today. */
export function clock(time: Maybe<number>): string {
  if (time == null) return NONE;
  const date = new Date(time * 1000);
  const text = clockFormat.format(date);
  return date.toDateString() === new Date().toDateString() ? text : `${dayFormat.format(date)}, ${text}`;
}

export const plural = (count: number, one: string, many = `${one}s`): string => `${number(count)} ${count === 1 ? one : many}`;
