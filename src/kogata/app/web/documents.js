// The second view: folders, and every document with its state.

import * as api from "./api.js";
import { $, confirm, el, fill, langOf, notice, pathOf, whereIs } from "./dom.js";
import { showIndexing } from "./progress.js";
import { fileLink, openReader, titleOf } from "./results.js";
import { day, explain, language, number, reason, size, t } from "./strings.js";

const PAGE = 100; // documents on one page
const SOON = 2500; // ms between two readings of the list while indexing runs

let status = null;
let list = null; // {total, documents} as the server gave it
let offset = 0;
let reading = null; // AbortController
let readAt = 0;
let stale = false; // the list is older than the status
let soon = null; // timer of the next reading
let visible = false;
let onChange = () => {};

/** `changed` is called after something was removed. */
export function startDocuments(changed) {
  onChange = changed;
  let typing;
  $("#find").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(fromStart, 200);
  });
  for (const select of [$("#folder"), $("#state")]) select.addEventListener("change", fromStart);
}

/** Tell whether the view is on the screen. */
export function showDocuments(on) {
  if (on && !visible) readList();
  visible = on;
}

/** Show a new status, or the same in another language. */
export function drawDocuments(newStatus = status) {
  const again = newStatus === status;
  const foldersMoved = JSON.stringify(paths(status)) !== JSON.stringify(paths(newStatus));
  if (status && JSON.stringify(counts(status)) !== JSON.stringify(counts(newStatus))) stale = true;
  status = newStatus;
  if (!status) return;
  showIndexing($("#indexing"), status, { path: true });
  drawFolders();
  drawChoices();
  if (list && (again || foldersMoved)) drawList();
  clearTimeout(soon);
  if (visible && stale) soon = setTimeout(readList, status.indexing.running ? readAt + SOON - Date.now() : 0);
}

const paths = (of) => of?.folders.map((folder) => folder.path) ?? [];
const counts = ({ documents, vectors, n_skipped, waiting, uploads, indexing }) => [documents, vectors, n_skipped, waiting, uploads, indexing.running];

function fromStart() {
  offset = 0;
  readList();
}

/** Read the list again. */
export async function readList() {
  reading?.abort();
  reading = new AbortController();
  readAt = Date.now();
  stale = false;
  try {
    list = await api.listDocuments(
      { q: $("#find").value.trim(), state: $("#state").value, folder: $("#folder").value, offset, limit: PAGE },
      reading.signal,
    );
    drawList();
  } catch (error) {
    if (error.name !== "AbortError") fill($("#documents"), el("li", { class: "bad", role: "alert" }, explain(error)));
  }
}

// --- folders

function drawFolders() {
  const folders = status.folders.map((folder) => {
    const own = folder.path === status.uploads.folder;
    return el("li", {},
      pathOf(folder.path, { class: "path" }),
      el("span", { class: "quiet" },
        [
          own && t.folderUploads,
          folder.missing && t.folderMissing,
          t.folderDocuments(folder.documents),
          size(folder.bytes),
          folder.skipped > 0 && t.folderSkipped(folder.skipped),
        ].filter(Boolean).join(" · ")),
    );
  });
  const skipped = status.n_skipped > 0 && el("li", { class: "skipped" },
    el("span", {}, t.skippedSum(status.n_skipped)),
    el("span", { class: "quiet" },
      Object.entries(status.skipped_by_code).map(([code, n]) => `${reason(code)}: ${number(n)}`).join(" · ")),
    el("button", { type: "button", class: "quiet", onclick: showSkipped }, t.showSkipped),
  );
  redraw($("#folders"), folders.length ? folders : el("li", { class: "quiet" }, t.noFolders), skipped);
}

function showSkipped() {
  $("#state").value = "skipped";
  $("#folder").value = "";
  $("#find").value = "";
  fromStart();
  $("#list-heading").focus();
  $("#list-heading").scrollIntoView();
}

function drawChoices() {
  choices($("#folder"), [["", t.anyFolder], ...status.folders.map((folder) => [folder.path, folder.path])]);
  choices($("#state"), [["", t.anyState], ...Object.entries(t.states)]);
}

function choices(select, options) {
  if (JSON.stringify(options) === JSON.stringify([...select.options].map((option) => [option.value, option.text]))) return;
  const { value } = select;
  fill(select, options.map(([value, text]) => el("option", { value }, text)));
  select.value = options.some(([known]) => known === value) ? value : "";
}

/** Fill a place anew; a button of it that has the focus keeps it. */
function redraw(place, ...children) {
  const focused = place.contains(document.activeElement) ? [...place.querySelectorAll("button, a")].indexOf(document.activeElement) : -1;
  fill(place, ...children);
  if (focused >= 0) [...place.querySelectorAll("button, a")][focused]?.focus({ preventScroll: true });
}

// --- the list

function drawList() {
  const { total, documents } = list;
  redraw($("#documents"), documents.length ? documents.map(row) : el("li", { class: "quiet" }, t.noneMatch));
  const turn = (by, label) =>
    el("button", { type: "button", class: "quiet", disabled: offset + by < 0 || offset + by >= total, onclick: () => turnTo(offset + by) }, label);
  redraw($("#paging"),
    total > 0 && el("p", { class: "quiet" }, t.range(offset + 1, offset + documents.length, total)),
    total > PAGE && [turn(-PAGE, t.previous), turn(PAGE, t.next)],
  );
}

async function turnTo(to) {
  offset = to;
  await readList();
  $("#list-heading").focus();
  $("#list-heading").scrollIntoView();
}

function row(document_) {
  const { id, path, state } = document_;
  const { name, folder } = whereIs(path, paths(status));
  const label = el("bdi", { lang: langOf(name) }, name);
  const title = titleOf(document_, name);
  const facts = [
    document_.n_pages && t.pages(document_.n_pages),
    document_.size > 0 && size(document_.size),
    document_.modified > 0 && day(document_.modified),
  ].filter(Boolean).join(" · ");
  return el("li", { class: "document" },
    el("div", { class: "name" },
      state === "skipped"
        ? el("span", {}, label)
        : el("button", { type: "button", class: "open", "data-at": `${id}:`, onclick: () => openReader(id) }, label),
      el("p", { class: "where" },
        document_.kind && el("span", { class: "kind" }, document_.kind),
        pathOf(folder, { title: path }),
        title && el("bdi", { lang: langOf(title) }, title),
        facts && el("span", {}, facts),
      ),
      state === "skipped" && el("p", { class: "why" },
        el("strong", {}, reason(document_.code)),
        language === "en" && document_.reason && el("span", { class: "quiet" }, document_.reason)),
    ),
    el("span", { class: `state ${state}`, title: t.statesHint[state] }, t.states[state] ?? state),
    fileLink({ id, name, kind: document_.kind }),
    el("button", { type: "button", class: "plain close", "aria-label": t.remove(name), title: t.remove(name), onclick: () => remove(document_, name) }),
  );
}

async function remove(document_, name) {
  if (!(await confirm(t.removeAsk(name), document_.uploaded ? t.removeUploaded : t.removeDetail, t.removeYes))) return;
  try {
    await api.removeDocument(document_.id);
    notice(t.removed(name));
    onChange();
    await readList();
    $("#list-heading").focus({ preventScroll: true });
  } catch (error) {
    notice(explain(error));
  }
}
