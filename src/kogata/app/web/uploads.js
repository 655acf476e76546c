// Adding files: dropped anywhere on the page or chosen, sent one after the other, followed until they can be found.

import * as api from "./api.js";
import { $, confirm, el, fill, langOf, notice, pathOf } from "./dom.js";
import { openReader } from "./results.js";
import { explain, number, reason, size, t } from "./strings.js";

const ASKED = 5; // sent files whose state is asked for at once

// Each: {file, name, step: "queued" | "sending" | "reading" | "words" | "ready" | "skipped" | "failed", share, path, id, why}
const items = [];
let status = null;
let sending = false;
let turn = 0; // whose state is asked for next
let onChange = () => {};
let onDrop = () => {};

/** Files on their way or being read: somebody is watching. */
export const uploadsRunning = () => items.some((item) => ["queued", "sending", "reading", "words"].includes(item.step));

/** `changed` is called when the server has something new, `drop` when files were dropped. */
export function startUploads(changed, drop) {
  onChange = changed;
  onDrop = drop;
  $("#choose").addEventListener("click", () => $("#files").click());
  $("#files").addEventListener("change", (event) => {
    add([...event.target.files]);
    event.target.value = "";
  });
  const overlay = $("#overlay");
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    overlay.hidden = false;
  });
  addEventListener("beforeunload", (event) => sending && event.preventDefault()); // asks before files are lost
  addEventListener("dragleave", (event) => event.relatedTarget === null && (overlay.hidden = true));
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    overlay.hidden = true;
    onDrop();
    dropped(event.dataTransfer).then(add, () => notice(t.failed));
  });
}

/** The files of a drop, those inside dropped folders too. What was dropped has to be taken before anything is awaited. */
async function dropped(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const taken = items.map((item) => ({ entry: item.webkitGetAsEntry?.(), file: item.getAsFile() }));
  const found = await Promise.all(taken.map(({ entry, file }) => (entry?.isDirectory ? inside(entry) : [file])));
  return found.flat();
}

/** The files in a folder at any depth, without hidden ones. */
async function inside(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const files = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // some hundred at once
    if (!some.length) return files;
    const seen = some.filter((one) => !one.name.startsWith("."));
    files.push(...(await Promise.all(seen.map(inside))).flat());
  }
}

function add(files) {
  items.push(...files.map((file) => ({ file, name: file.name, step: "queued", share: 0 })));
  drawItems();
  send();
}

async function send() {
  if (sending) return;
  sending = true;
  for (let item; (item = items.find((item) => item.step === "queued")); ) {
    item.step = "sending";
    try {
      const [stored] = await api.upload(item.file, (share) => {
        item.share = share;
        drawItems();
      });
      Object.assign(item, { step: "reading", name: stored.name, path: stored.path }); // it may have got another name
    } catch (error) {
      Object.assign(item, { step: "failed", why: explain(error) });
    }
    drawItems();
    onChange();
  }
  sending = false;
}

/** Show a new status, or the same in another language; ask how far the sent files are. */
export function drawUploads(newStatus = status) {
  status = newStatus;
  if (status) drawKept();
  drawItems();
  const followed = items.filter((item) => item.step === "reading" || item.step === "words");
  for (let n = Math.min(ASKED, followed.length); n > 0; n--) follow(followed[turn++ % followed.length]);
}

async function follow(item) {
  const { documents } = await api.listDocuments({ q: item.name, folder: status.uploads.folder, limit: 50 }).catch(() => ({ documents: [] }));
  const found = documents.find((document) => document.path === item.path);
  if (!found || !items.includes(item)) return;
  const step = { meaning: "ready", words: "ready", waiting: "words", skipped: "skipped" }[found.state];
  if (step === "ready" && item.step !== "ready") $("#said").textContent = t.fileReady(item.name);
  Object.assign(item, { step, id: found.id, why: found.code && reason(found.code) });
  drawItems();
}

function drawItems() {
  const list = $("#uploads");
  list.hidden = !items.length;
  // Rows are kept and changed in place: progress does not take the focus away.
  while (list.children.length < items.length) list.append(el("li", {}));
  while (list.children.length > items.length) list.lastChild.remove();
  items.forEach((item, index) => {
    const row = list.children[index];
    const now = JSON.stringify([item.name, item.step, item.share, item.id, item.why, t.sent]);
    if (row.dataset.shows === now) return;
    row.dataset.shows = now;
    fill(row, ...rowOf(item));
  });
  $("#uploads-clear")?.remove();
  if (items.length && !uploadsRunning()) list.after(el("button", { type: "button", class: "quiet", id: "uploads-clear", onclick: clear }, t.clear));
}

function rowOf(item) {
  const says = {
    queued: t.sendWaiting, sending: t.sending(number(item.share * 100)), reading: t.sent, words: t.readWords,
    ready: t.states.meaning, skipped: `${t.states.skipped}${item.why ? ` · ${item.why}` : ""}`, failed: item.why,
  }[item.step];
  const name = el("bdi", { lang: langOf(item.name) }, item.name);
  const busy = ["sending", "reading"].includes(item.step);
  return [
    item.id && item.step !== "skipped" ? el("button", { type: "button", class: "open", "data-at": `${item.id}:`, onclick: () => openReader(item.id) }, name) : el("span", {}, name),
    el("span", { class: `state ${{ ready: "meaning", failed: "failed", skipped: "skipped" }[item.step] ?? "waiting"}` }, says),
    busy && el("progress", { "aria-label": `${item.name}: ${says}`, max: item.step === "sending" && 1, value: item.step === "sending" ? item.share : null }),
    item.step === "failed" && el("button", { type: "button", class: "quiet", onclick: () => retry(item) }, t.retry),
  ];
}

function retry(item) {
  Object.assign(item, { step: "queued", share: 0 });
  drawItems();
  send();
}

function clear() {
  items.length = 0;
  drawItems();
  $("#choose").focus();
}

function drawKept() {
  const { folder, files, bytes } = status.uploads;
  const place = $("#kept");
  const focused = place.contains(document.activeElement);
  fill(place,
    el("p", { class: "quiet" }, t.kept(files, size(bytes))),
    el("div", {}, pathOf(folder, { class: "path" }),
      el("button", { type: "button", class: "quiet", id: "empty", disabled: files === 0, onclick: empty }, t.empty)),
  );
  if (focused) (files ? $("#empty") : $("#choose")).focus({ preventScroll: true });
}

async function empty() {
  const { folder, files } = status.uploads;
  if (!(await confirm(t.emptyAsk, t.emptyDetail(files, folder), t.empty))) return;
  try {
    const { removed } = await api.emptyUploads();
    notice(t.emptied(removed));
    onChange();
  } catch (error) {
    notice(explain(error));
  }
}
