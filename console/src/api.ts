import { signal } from "@preact/signals";

/** True if the session has ended, so that only a new address from the terminal helps. */
export const signedOut = signal(false);

/** A failed call of the console's API, with texts that can be shown as they are. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly hint = "",
  ) {
    super(message);
  }
}

interface ErrorBody {
  error?: { message?: string; where?: string; hint?: string };
}

async function call<T>(path: string, init: RequestInit = {}): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, { credentials: "same-origin", cache: "no-store", ...init });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ApiError("The console does not answer.", 0, "It is asked again when the connection is back.");
  }
  const text = await response.text();
  if (response.status === 401) signedOut.value = true;
  if (!response.ok) {
    const { message, where, hint } = parsed<ErrorBody>(text)?.error ?? {};
    const said = message ?? `${path} answered ${response.status}.`;
    throw new ApiError(where ? `${where}: ${said}` : said, response.status, hint ?? "");
  }
  const body = parsed<T>(text);
  if (body === undefined) throw new ApiError(`${path} answered something that is not JSON.`, response.status);
  return body;
}

function parsed<T>(text: string): T | undefined {
  try {
    return JSON.parse(text) as T;
  } catch {
    return undefined;
  }
}

export const get = <T>(path: string, signal?: AbortSignal): Promise<T> => call<T>(path, signal ? { signal } : {});

export const post = <T>(path: string, body: unknown, csrf?: string | null, signal?: AbortSignal): Promise<T> =>
  call<T>(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...(csrf ? { "X-CSRF-Token": csrf } : {}) },
    body: JSON.stringify(body),
    ...(signal ? { signal } : {}),
  });

/** Returns a path with a query; members without a value are left out. */
export function query(path: string, values: Record<string, string | number | null | undefined>): string {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined && value !== "") found.set(name, String(value));
  }
  const text = found.toString();
  return text ? `${path}?${text}` : path;
}
