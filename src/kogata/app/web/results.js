// The first view: answers with their sources, and passages that were found.

import { go, read } from "./address.js";
import * as api from "./api.js";
import { $, el, fill, gap, langOf, marked, notice, pathOf, whereIs } from "./dom.js";
import { showIndexing } from "./progress.js";
import { explain, language, note, number, t } from "./strings.js";

const HITS = 10; // passages shown at first, and added each time
const NEAREST = 3; // passages offered where there is no answer

let status = null;
let asked = ""; // what was asked last, as JSON
let outcome = null; // {answer}, {found} or {error}; null before the first question and while one is looked for
let wanted = HITS;
let running = null; // AbortController of the question on its way

const roots = () => (status ? [...status.folders.map((folder) => folder.path), status.uploads.folder] : []);

/** Ask or search what the address says, unless that is what is shown already. */
export function showResults(place) {
  const question = JSON.stringify([place.q, place.mode, place.by, place.type, place.path]);
  if (question === asked) return;
  asked = question;
  wanted = HITS;
  outcome = null;
  running?.abort();
  draw();
  if (place.q.trim()) look(place);
}

async function look(place) {
  running?.abort();
  const mine = (running = new AbortController());
  const body = { query: place.q, k: wanted, kinds: place.type, paths: place.path ? [place.path] : [] };
  const slow = setTimeout(() => outcome === null && fill($("#results"), el("p", { class: "looking" }, t.looking)), 200);
  $("#results").setAttribute("aria-busy", "true");
  try {
    if (place.mode === "ask") outcome = { answer: await api.ask(body, mine.signal) };
    else outcome = { found: await api.search({ ...body, mode: place.by }, mine.signal) };
  } catch (error) {
    if (error.name === "AbortError") return;
    outcome = { error };
  } finally {
    clearTimeout(slow);
    if (mine === running) $("#results").removeAttribute("aria-busy");
  }
  draw();
  $("#said").textContent = said();
}

/** What a screen reader says when the results are there. */
function said() {
  const { answer, found, error } = outcome;
  if (error) return "";
  if (answer) return answer.found ? answer.text : t.notFound;
  return found.hits.length ? t.hits(found.hits.length) : t.nothingFound;
}

/** Show what is known anew: after the language or the folders have changed. */
export function drawResults(newStatus = status) {
  const sameFolders = JSON.stringify(newStatus?.folders.map((folder) => folder.path)) === JSON.stringify(roots().slice(0, -1));
  const changed = newStatus === status || !sameFolders;
  status = newStatus;
  drawOverview();
  if (changed && outcome) draw();
}

function drawOverview() {
  const place = $("#overview");
  if (!status || showIndexing(place, status)) return;
  if (outcome || asked && JSON.parse(asked)[0]) return;
  if (status.documents) {
    fill(place, el("p", { class: "quiet" }, t.holds(status.documents, status.folders.length)));
  } else {
    fill(place, el("h2", {}, t.emptyHeading), el("p", { class: "quiet" }, t.emptyText));
  }
}

function draw() {
  const place = $("#results");
  drawOverview();
  if (!outcome) place.replaceChildren();
  else if (outcome.error) fill(place, failure(outcome.error));
  else if (outcome.answer) fill(place, ...(outcome.answer.found ? answered(outcome.answer) : notFound(outcome.answer)));
  else fill(place, ...passages(outcome.found));
}

const failure = (error) =>
  el("div", { class: "failure", role: "alert" }, el("h2", {}, t.failed), el("p", {}, explain(error)));

// --- an answer

function answered(answer) {
  const documentOf = (citation) => citation.document_id ?? answer.hits.find((hit) => hit.path === citation.path)?.document_id;
  const byNumber = new Map(answer.citations.map((citation) => [citation.number, citation]));
  const sentences = answer.sentences.map((sentence, index) => {
    const citation = byNumber.get(sentence.citation);
    const last = answer.sentences[index + 1]?.citation !== sentence.citation;
    const text = sentence.text.trim();
    return [
      el("span", { lang: langOf(text) }, text),
      last && citation && el("button", {
        type: "button", class: "cite", "aria-label": t.citation(citation.number, whereIs(citation.path, []).name),
        onclick: () => openReader(documentOf(citation), citation),
      }, number(citation.number)),
      gap(text, answer.sentences[index + 1]?.text.trim() ?? ""),
    ];
  });
  return [
    el("section", { class: "answer", "aria-labelledby": "answer-heading" },
      el("h2", { id: "answer-heading", class: "label" }, t.answer),
      el("p", { class: "text", lang: langOf(answer.text) }, ...sentences),
    ),
    el("section", { "aria-labelledby": "sources-heading" },
      el("h2", { id: "sources-heading", class: "label" }, t.sources),
      el("ol", { class: "cards" }, answer.citations.map((citation) => card(documentOf(citation), citation, citation.number, quotation(citation)))),
    ),
    notes(answer.notes),
    el("details", { class: "also" }, el("summary", {}, t.alsoLooked(answer.hits.length)), hitList(answer.hits)),
  ];
}

function quotation(citation) {
  const before = citation.before.trim();
  const after = citation.after.trim();
  const text = citation.text.trim();
  return el("blockquote", { lang: langOf(text) },
    before && `…${gap(before, before)}${before}${gap(before, text)}`,
    el("mark", {}, text),
    after && `${gap(text, after)}${after}${gap(after, after)}…`,
  );
}

function notFound(answer) {
  return [
    el("section", { class: "answer", "aria-labelledby": "answer-heading" },
      el("h2", { id: "answer-heading" }, t.notFound),
      el("p", { class: "quiet" }, answer.hits.length ? t.notFoundNear : t.notFoundNothing),
    ),
    hitList(answer.hits.slice(0, NEAREST)),
    notes(answer.notes),
    answer.hits.length > NEAREST && el("button", { type: "button", class: "more", onclick: () => go({ mode: "search" }) }, t.searchInstead),
  ];
}

// --- passages

function passages(found) {
  const { hits } = found;
  if (!hits.length) {
    return [el("div", { class: "answer" }, el("h2", {}, t.nothingFound), el("p", { class: "quiet" }, t.nothingFoundHint)), notes(found.notes)];
  }
  return [
    el("h2", { class: "label" }, t.hits(hits.length)),
    notes(found.notes),
    hitList(hits),
    hits.length === wanted && el("button", { type: "button", class: "more", onclick: moreHits }, t.more),
  ];
}

async function moreHits() {
  const seen = wanted;
  wanted += HITS;
  await look(read());
  document.querySelectorAll("#results .open")[seen]?.focus();
}

const hitList = (hits) =>
  el("ol", { class: "cards" }, hits.map((hit) => {
    const scores = t.scores(hit.meaning != null && number(hit.meaning, 2), hit.words != null && number(hit.words, 1));
    return card(hit.document_id, hit, null, el("blockquote", { lang: langOf(hit.snippet) }, ...marked(hit.snippet, hit.highlights)), scores);
  }));

const notes = (sentences) =>
  sentences.length > 0 && el("ul", { class: "notes" }, sentences.map((sentence) => {
    const { text, lang } = note(sentence);
    return el("li", { lang }, text);
  }));

// --- one source

function card(id, source, label, quote, scores) {
  const { name, folder } = whereIs(source.path, roots());
  const heading = source.heading.slice(-2);
  const where = [titleOf(source, name), source.page != null && t.page(source.page), heading.join(" › ")].filter(Boolean);
  const open = () => openReader(id, source);
  return el("li", { class: "card" },
    el("div", { class: "head" },
      label !== null && el("span", { class: "number", "aria-hidden": "true" }, number(label)),
      el("h3", {},
        id === undefined
          ? el("bdi", {}, name)
          : el("button", { type: "button", class: "open", "data-at": `${id}:${source.start}`, onclick: open },
              el("bdi", { lang: langOf(name) }, name)),
      ),
      el("p", { class: "where" },
        source.kind && el("span", { class: "kind" }, source.kind),
        pathOf(folder, { title: source.path }),
        where.map((part) => el("span", { lang: langOf(part) || language }, part)),
      ),
    ),
    el("div", { class: "quote", onclick: () => id !== undefined && getSelection().isCollapsed && open() }, quote),
    el("p", { class: "foot" },
      id !== undefined && fileLink({ id, name, kind: source.kind, page: source.page }),
      scores && el("small", { title: t.scoresHint }, scores),
    ),
  );
}

/** A document's title where it says more than its name and the heading. */
export function titleOf({ title, heading = [] }, name) {
  const said = [name, name.replace(/\.[^.]*$/, ""), ...heading.slice(-2)];
  return title && !said.includes(title) ? title : "";
}

/** A link that opens a document's own file: {id, name, kind, page}. */
export function fileLink(file) {
  return el("a", { href: api.fileAddress(file.id), class: "file", onclick: (event) => openOriginal(event, file) }, t.original);
}

/** Open a document's file for a click on a link to it; says so where that does not work. */
export async function openOriginal(event, file) {
  event.preventDefault();
  try {
    if (await api.openFile(file)) notice(t.blocked);
  } catch (error) {
    notice([404, 409, 410].includes(error.status) ? t.gone : explain(error));
  }
}

/** Show a document's text beside the results, from `start` to `end` marked. */
export function openReader(id, { start = "", end = "", page = null, heading = [] } = {}) {
  const isOpen = read().doc !== "";
  const pushed = isOpen ? (history.state?.pushed ?? false) : true;
  go({ doc: String(id), from: String(start), to: String(end) }, { replace: isOpen, about: { pushed, page, heading } });
}
