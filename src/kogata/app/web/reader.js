// The reader: a document's text around a passage, more of it as one scrolls. Beside the results where there is room,
// over everything else where there is not.

import { go, read } from "./address.js";
import * as api from "./api.js";
import { $, cutter, el, fill, langOf, pathOf, whereIs } from "./dom.js";
import { openOriginal } from "./results.js";
import { explain, t } from "./strings.js";

const BEFORE = 4_000; // characters loaded before a passage
const PIECE = 16_000; // characters loaded at once
const LONG = 300; // characters of a passage that is marked more softly
const LARGEST = 200_000; // characters the server gives at once

const dialog = $("#reader");
const scroll = $("#reader-scroll");
const earlier = $("#reader-earlier");
const later = $("#reader-later");
const wide = matchMedia("(min-width: 60rem)");

let open = null; // {id, from, to, start, end, total, ...} of what is shown
let opener = null; // what had the focus before
let loading = null; // AbortController

/** Show the document that the address names, or close. */
export function showReader(place, roots) {
  if (!place.doc) return hide();
  const at = { id: Number(place.doc), from: offset(place.from), to: offset(place.to) };
  if (open && open.id === at.id && open.from === at.from && open.to === at.to) return;
  if (!open) opener = document.activeElement;
  open = { ...at, ...history.state, roots };
  reveal();
  load(open);
}

const offset = (written) => (/^\d+$/.test(written) ? Number(written) : null);

function reveal() {
  if (!dialog.open) {
    if (wide.matches) dialog.show();
    else dialog.showModal();
  }
  document.body.classList.add("reading");
}

function hide() {
  if (!open) return;
  const at = `${open.id}:${open.from ?? ""}`;
  open = null;
  loading?.abort();
  dialog.close();
  document.body.classList.remove("reading");
  const back = opener?.isConnected && opener !== document.body ? opener : document.querySelector(`[data-at="${at}"]`);
  (back ?? $("#query")).focus();
}

/** Leave the reader: a step back where opening it was a step forward. */
export function closeReader() {
  if (!read().doc) return;
  if (history.state?.pushed) history.back();
  else go({ doc: "", from: "", to: "" }, { replace: true });
}

async function load(mine) {
  loading?.abort();
  loading = new AbortController();
  const start = Math.max(0, (mine.from ?? 0) - BEFORE);
  const end = Math.min(start + LARGEST, Math.max(start + PIECE, (mine.to ?? 0) + BEFORE));
  fill($("#reader-name"), "…");
  fill($("#reader-place"));
  fill($("#reader-text"));
  earlier.hidden = later.hidden = $("#reader-file").hidden = true;
  scroll.focus({ preventScroll: true });
  try {
    const piece = await api.readText(mine.id, start, end, loading.signal);
    Object.assign(mine, { start: piece.start, end: piece.end, total: piece.n_chars, path: piece.path, kind: piece.kind });
    drawHead(mine);
    fill($("#reader-text"), piece.text ? pieceOf(mine, piece) : el("p", { class: "quiet" }, t.noText));
    $("#reader-text").className = piece.kind === "code" || piece.kind === "csv" || piece.kind === "json" ? "code" : "";
    scrollToPassage();
    drawEnds(mine);
  } catch (error) {
    if (error.name === "AbortError") return;
    fill($("#reader-name"), t.failed);
    fill($("#reader-text"), el("p", { class: "bad", role: "alert" }, error.status === 404 ? t.gone : explain(error)));
  }
}

function drawHead(mine) {
  const { name, folder } = whereIs(mine.path, mine.roots);
  const where = [mine.page != null && t.page(mine.page), (mine.heading ?? []).slice(-2).join(" › ")].filter(Boolean);
  fill($("#reader-name"), el("bdi", { lang: langOf(name) }, name));
  fill($("#reader-place"), pathOf(folder, { title: mine.path }), where.map((part) => el("span", { lang: langOf(part) }, part)));
  const file = $("#reader-file");
  file.href = api.fileAddress(mine.id);
  file.onclick = (event) => openOriginal(event, { ...mine, name });
  file.hidden = false;
}

/** A piece of text with what of the passage is in it marked. */
function pieceOf(mine, { start, text }) {
  const cut = cutter(text);
  const from = Math.max(0, (mine.from ?? 0) - start);
  const to = Math.max(from, (mine.to ?? 0) - start);
  const passage = mine.from !== null && cut(from, to);
  return el("span", { lang: langOf(text) },
    cut(0, passage ? from : undefined),
    passage && el("mark", { tabindex: "-1", class: to - from > LONG && "long" }, passage),
    passage && cut(to),
  );
}

function scrollToPassage() {
  const passage = $("#reader-text mark");
  scroll.scrollTop = passage ? passage.offsetTop - scroll.clientHeight / 4 : 0;
  passage?.focus({ preventScroll: true });
}

/** Buttons where there is more text; coming near one presses it. */
function drawEnds(mine) {
  for (const [button, there] of [[earlier, mine.start > 0], [later, mine.end < mine.total]]) {
    button.hidden = !there;
    nearing.unobserve(button);
    if (there) nearing.observe(button);
  }
}

const nearing = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => extend(entry.target)),
  { root: scroll, rootMargin: "600px 0px" },
);

async function extend(button) {
  const mine = open;
  if (!mine?.total || mine.busy) return;
  mine.busy = true;
  const up = button === earlier;
  const start = up ? Math.max(0, mine.start - PIECE) : mine.end;
  const end = up ? mine.start : Math.min(mine.total, mine.end + PIECE);
  try {
    const piece = await api.readText(mine.id, start, end, loading.signal);
    if (mine !== open) return;
    const height = scroll.scrollHeight;
    if (up) $("#reader-text").prepend(pieceOf(mine, piece));
    else $("#reader-text").append(pieceOf(mine, piece));
    Object.assign(mine, up ? { start: piece.start } : { end: piece.end });
    const stays = document.activeElement === button;
    mine.busy = false;
    drawEnds(mine);
    if (stays && button.hidden) scroll.focus({ preventScroll: true });
    if (up) scroll.scrollTop += scroll.scrollHeight - height;
  } catch (error) {
    mine.busy = false;
    if (error.name !== "AbortError") button.hidden = true;
  }
}

/** Wire what the reader's own elements do. */
export function startReader() {
  $("#reader-close").addEventListener("click", closeReader);
  for (const button of [earlier, later]) button.addEventListener("click", () => extend(button));
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    closeReader();
  });
  dialog.addEventListener("close", () => open && !dialog.open && closeReader());
  wide.addEventListener("change", () => {
    if (!open) return;
    const at = scroll.scrollTop;
    dialog.close();
    reveal();
    scroll.scrollTop = at;
  });
}

/** Show the head anew: after the language or the folders have changed. */
export function drawReader(roots) {
  if (!open) return;
  open.roots = roots;
  if (open.path) drawHead(open);
}
