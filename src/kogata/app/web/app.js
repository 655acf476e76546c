// The start: language, theme, views, keys, and the pulse that asks the server how it is.

import { follow, go, link, read } from "./address.js";
import * as api from "./api.js";
import { drawChat, showChat, startChat, stopChat, toChatBox } from "./chat.js";
import { $, el, fill, langOf } from "./dom.js";
import { drawDocuments, showDocuments, startDocuments } from "./documents.js";
import { closeReader, drawReader, showReader, startReader } from "./reader.js";
import { drawResults, showResults } from "./results.js";
import { explain, fillIn, language, number, setLanguage, t } from "./strings.js";
import { drawUploads, startUploads, uploadsRunning } from "./uploads.js";

const BUSY = 1_000; // ms between two looks at the server while it indexes
const IDLE = 10_000;

const VIEWS = ["ask", "chat", "documents"];

let status = null;

const roots = () => (status ? [...status.folders.map((folder) => folder.path), status.uploads.folder] : []);

// --- views

function show() {
  const place = read();
  const view = VIEWS.includes(place.view) ? place.view : VIEWS[0];
  for (const name of VIEWS) $(`#view-${name}`).hidden = name !== view;
  for (const a of document.querySelectorAll("nav a")) {
    a.href = link({ ...place, view: a.dataset.view, doc: "", from: "", to: "" });
    if (a.dataset.view === view) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  document.body.classList.toggle("fresh", view === "ask" && !place.q.trim());
  showForm(place);
  if (view === "ask") showResults(place);
  showChat(view === "chat", roots());
  showDocuments(view === "documents");
  showReader(place, roots());
  const title = { ask: place.q, chat: t.viewChat, documents: t.viewDocuments }[view];
  document.title = title ? `${title} · Kogata` : "Kogata";
}

// --- the box

function showForm(place) {
  const query = $("#query");
  if (query.value.trim() !== place.q) query.value = place.q;
  query.lang = langOf(place.q);
  const search = place.mode === "search";
  for (const [name, value] of [["mode", place.mode], ["by", place.by]]) {
    for (const radio of document.querySelectorAll(`input[name=${name}]`)) radio.checked = radio.value === value;
  }
  query.placeholder = search ? t.boxSearch : t.boxAsk;
  query.setAttribute("aria-label", query.placeholder);
  $("#go").textContent = search ? t.goSearch : t.goAsk;
  $("#by").hidden = !search;
  if ($("#path").value.trim() !== place.path) $("#path").value = place.path;
  const active = place.type.length + Boolean(place.path) + (search && place.by !== "hybrid");
  $("#filters-open").textContent = t.filters(active);
  showTypes(place);
}

function showTypes(place) {
  const kinds = Object.entries(status?.kinds ?? {});
  const missing = place.type.filter((kind) => !kinds.some(([known]) => known === kind)).map((kind) => [kind, 0]);
  const all = [...kinds, ...missing];
  const box = $("#types div");
  $("#types").hidden = all.length < 2 && !place.type.length;
  const shows = JSON.stringify([all, language]);
  if (box.dataset.shows !== shows) {
    box.dataset.shows = shows;
    fill(box, all.map(([kind, n]) =>
      el("label", {}, el("input", { type: "checkbox", value: kind }), el("span", {}, kind, " ", el("small", {}, number(n))))));
  }
  for (const input of box.querySelectorAll("input")) input.checked = place.type.includes(input.value);
}

function startForm() {
  $("#ask").addEventListener("submit", (event) => {
    event.preventDefault();
    go({ q: $("#query").value.trim(), path: $("#path").value.trim(), doc: "", from: "", to: "" });
  });
  const changed = () => ({
    mode: $("input[name=mode]:checked").value,
    by: $("input[name=by]:checked").value,
    type: [...document.querySelectorAll("#types input:checked")].map((input) => input.value),
    path: $("#path").value.trim(),
  });
  $("#ask").addEventListener("change", (event) => {
    if (event.target.id !== "query") go({ ...changed(), q: $("#query").value.trim(), doc: "", from: "", to: "" }, { replace: !read().q });
  });
  $("#filters-open").addEventListener("click", () => {
    const open = $("#filters").hidden;
    $("#filters").hidden = !open;
    $("#filters-open").setAttribute("aria-expanded", String(open));
  });
}

// --- language and theme

const THEMES = ["auto", "light", "dark"];
const THEME = "kogata.theme";

function showTheme() {
  const kept = localStorage.getItem(THEME);
  const theme = THEMES.includes(kept) ? kept : "auto";
  document.documentElement.dataset.theme = theme;
  $("#theme").setAttribute("aria-label", t.theme[theme]);
  $("#theme").title = t.theme[theme];
}

function showLanguage() {
  fillIn();
  const other = language === "en" ? "ja" : "en";
  const button = $("#language");
  button.textContent = other === "ja" ? "日本語" : "English";
  button.lang = other;
  button.title = t.otherLanguage;
  showTheme();
}

function startSwitches() {
  $("#theme").addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
    localStorage.setItem(THEME, next);
    showTheme();
  });
  $("#language").addEventListener("click", () => {
    setLanguage(language === "en" ? "ja" : "en");
    showLanguage();
    drawAll();
    show();
  });
}

// --- the server

function drawAll() {
  drawResults(status ?? undefined);
  drawDocuments(status ?? undefined);
  drawUploads(status ?? undefined);
  drawChat(roots());
  drawReader(roots());
}

let timer = null;
let polling = false;

/** Ask the server how it is, now and then again: often while it works, and not while nobody looks. */
async function pulse() {
  clearTimeout(timer);
  if (polling || document.hidden) return;
  polling = true;
  try {
    const known = JSON.stringify(status);
    status = await api.getStatus();
    if (JSON.stringify(status) !== known) {
      drawAll();
      showTypes(read());
    } else {
      drawUploads(status);
    }
  } catch (error) {
    fill($("#overview"), el("p", { class: "bad", role: "alert" }, explain(error)));
  } finally {
    polling = false;
    timer = setTimeout(pulse, status?.indexing.running || uploadsRunning() ? BUSY : IDLE);
  }
}

function askForKey(refused) {
  const dialog = $("#key");
  $("#key-wrong").textContent = refused ? t.keyWrong : "";
  $("#key-input").value = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    $("#key-form").addEventListener("submit", () => resolve($("#key-input").value.trim()), { once: true });
  });
}

function showAway(how) {
  const text = how ? t[how] : "";
  if ($("#banner").textContent !== text) $("#banner").textContent = text;
}

// --- keys

const opens = () => [...document.querySelectorAll("#results .open, #chat .open, #documents .open")].filter((button) => button.checkVisibility());

/** Move the focus through the results; past the first one is the box. With the reader open its text follows. */
function step(by) {
  const all = opens();
  const reading = read().doc;
  const at = all.findIndex((button) => button === document.activeElement || (reading && button.dataset.at === `${reading}:${read().from}`));
  const next = all[Math.min(all.length - 1, at + by)];
  if (at + by < 0) return $("#query").checkVisibility() && $("#query").focus();
  if (reading) next?.click();
  else next?.focus();
}

function onKey(event) {
  if (event.defaultPrevented || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog.small[open]")) return;
  const target = event.target;
  const typing = target.matches("input:not([type=radio], [type=checkbox], [type=file]), select, textarea");
  const inReader = $("#reader").contains(target);
  const down = target.id === "query" || target === document.body || target.matches(".open");
  const act = {
    Escape: (read().doc && closeReader) || (read().view === "chat" && stopChat),
    "/": !typing && toBox,
    "?": !typing && (() => $("#help").showModal()),
    j: !typing && (() => step(1)),
    k: !typing && (() => step(-1)),
    ArrowDown: down && !inReader && opens().length > 0 && (() => step(1)),
    ArrowUp: target.matches(".open") && (() => step(-1)),
  }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

function toBox() {
  if (read().view === "chat") return toChatBox();
  go({ view: "ask" });
  $("#query").focus();
  $("#query").select();
}

// --- start

showLanguage();
startForm();
startSwitches();
startReader();
startChat();
startDocuments(pulse);
startUploads(pulse, () => go({ view: "documents" }));
$("#help-open").addEventListener("click", () => $("#help").showModal());
$("#key").addEventListener("cancel", (event) => event.preventDefault());
for (const a of document.querySelectorAll("nav a, #home")) {
  a.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (a.id === "home") go({ view: "ask", q: "", type: [], path: "", by: "hybrid", doc: "", from: "", to: "" });
    else go({ view: a.dataset.view, doc: "", from: "", to: "" });
    if (read().view === "ask") $("#query").focus();
    else if (read().view === "chat") toChatBox();
  });
}
document.addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", pulse);

api.start(askForKey, showAway);
$("#page").hidden = false;
follow(show);
pulse();
if (!read().doc && read().view === "ask" && matchMedia("(hover: hover)").matches) $("#query").focus();
