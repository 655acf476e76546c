// Talking to the server: the key, errors, and waiting while it starts or is away.

import { takeKey } from "./address.js";
import { clean } from "./dom.js";

const KEPT = "kogata.key";
const SLOWEST = 4000; // ms between two tries

/** An answer that is not what was asked for. `status` is HTTP's, 0 where there was no answer; `code` the server's. */
export class ApiError extends Error {
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let askKey = async () => "";
let tellAway = () => {};
let asking = null;

/** Take the key out of the address. `onKey(refused)` asks a person for one; `onAway` is told "starting", "unreachable" or null. */
export function start(onKey, onAway) {
  askKey = onKey;
  tellAway = onAway;
  keyFromAddress();
  addEventListener("popstate", keyFromAddress);
}

function keyFromAddress() {
  const key = takeKey();
  if (key) sessionStorage.setItem(KEPT, key);
}

const key = () => sessionStorage.getItem(KEPT);
const authorization = () => (key() ? { Authorization: `Bearer ${key()}` } : {});

/** Ask for another key than the one that was refused, once for all requests that need it. */
async function renewKey(refused) {
  if (key() !== refused) return;
  asking ??= askKey(refused !== null).then((given) => sessionStorage.setItem(KEPT, given)).finally(() => (asking = null));
  await asking;
}

/**
 * A response that is well. Questions (`patient`) wait for a server that starts or is away; what changes something fails.
 * Throws ApiError, or AbortError when `signal` says so.
 */
async function request(method, path, { body, signal, patient = method === "GET" } = {}) {
  for (let pause = 500; ; pause = Math.min(pause * 2, SLOWEST)) {
    const used = key();
    let response = null;
    try {
      const headers = { ...authorization(), ...(body ? { "Content-Type": "application/json" } : {}) };
      response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
    }
    const error = response?.ok ? null : await problem(response);
    const away = error?.status === 0 ? "unreachable" : error?.code === "engine_unavailable" ? "starting" : null;
    tellAway(away);
    if (!error) return response;
    if (away && patient) await sleep(pause, signal);
    else if (error.status === 401) await renewKey(used);
    else throw error;
  }
}

async function problem(response) {
  const said = await response?.json().catch(() => null);
  return new ApiError(response?.status ?? 0, said?.error?.message ?? response?.statusText ?? "", said?.error?.code ?? "");
}

function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}

const json = async (...request_) => (await request(...request_)).json();
const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value !== "")).toString();

export const ask = (body, signal) => json("POST", "v1/ask", { body, signal, patient: true });
export const search = (body, signal) => json("POST", "v1/search", { body, signal, patient: true });
/**
 * What the server says bit by bit (`text/event-stream`), each event as JSON says it. Throws as the others do, also where
 * the stream breaks off; to leave the loop, or to abort the signal, ends the server's work.
 */
export async function* events(path, body, signal) {
  const response = await request("POST", path, { body, signal, patient: true });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new ApiError(0, "", "");
      const parts = (rest + value).split(/\r?\n\r?\n/);
      rest = parts.pop();
      for (const part of parts) {
        const data = part.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("\n");
        if (data === "[DONE]") return;
        if (!data) continue; // a comment that keeps the connection
        const event = JSON.parse(data);
        if (event.error) throw new ApiError(500, event.error.message ?? "", event.error.code ?? "");
        yield event;
      }
    }
  } catch (error) {
    throw error instanceof TypeError ? new ApiError(0, "", "") : error;
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The model that writes, {id}, or null. */
export async function getWriter() {
  const { data } = await json("GET", "v1/models");
  return data.find((model) => model.dimensions === undefined) ?? null;
}

export const getStatus = () => json("GET", "v1/status");
export const listDocuments = (values, signal) => json("GET", `v1/documents?${query(values)}`, { signal });
export const readText = (id, start, end, signal) => json("GET", `v1/documents/${id}/text?start=${start}&end=${end}`, { signal });
export const removeDocument = (id) => json("DELETE", `v1/documents/${id}`);
export const emptyUploads = () => json("DELETE", "v1/uploads");
export const fileAddress = (id) => `v1/documents/${id}/file`;

// What a browser shows by itself without running anything in it: HTML and SVG would run as a part of this page.
const SHOWN_KINDS = new Set(["pdf", "txt", "md"]);
const SHOWN_TYPES = new Set(["application/pdf", "text/plain"]);

/**
 * Open a document's file in a new tab, or save it where a browser does not show its kind safely. It is fetched, because
 * only a request can carry the key. Must be called while a click is handled. Returns whether a tab was refused.
 */
export async function openFile({ id, name, kind, page }) {
  const shown = SHOWN_KINDS.has(kind);
  const tab = shown ? open("", "_blank") : null;
  try {
    const response = await request("GET", fileAddress(id), { patient: false });
    const blob = await response.blob();
    const url = URL.createObjectURL(blob);
    setTimeout(() => URL.revokeObjectURL(url), 600_000);
    if (tab && SHOWN_TYPES.has(blob.type.split(";")[0])) {
      tab.opener = null;
      tab.location = kind === "pdf" && page ? `${url}#page=${page}` : url;
      return false;
    }
    tab?.close();
    const link = document.createElement("a");
    link.href = url;
    link.download = clean(name);
    link.click();
    return shown && tab === null;
  } catch (error) {
    tab?.close();
    throw error;
  }
}

/** Send a file; `progress` is called with the share that has gone. Resolves to what the server stored. */
export function upload(file, progress) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("file", file, file.name);
    const sending = new XMLHttpRequest();
    const used = key();
    sending.open("POST", "v1/documents");
    if (used) sending.setRequestHeader("Authorization", `Bearer ${used}`);
    sending.upload.addEventListener("progress", (event) => progress(event.loaded / Math.max(1, event.total)));
    sending.addEventListener("error", () => reject(new ApiError(0, "", "")));
    sending.addEventListener("load", async () => {
      const said = new Response(sending.response, { status: sending.status });
      if (said.ok) resolve((await said.json()).documents);
      else if (said.status === 401) renewKey(used).then(() => upload(file, progress)).then(resolve, reject);
      else reject(await problem(said));
    });
    sending.send(form);
  });
}
