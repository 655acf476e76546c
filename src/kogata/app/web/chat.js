// The second view: a conversation with the server's model, over one's documents or without them. It is kept nowhere but
// in this page's memory.

import * as api from "./api.js";
import { $, clean, confirm, el, fill, langOf, marked, pathOf, whereIs } from "./dom.js";
import { drawProse } from "./prose.js";
import { openReader } from "./results.js";
import { explain, language, note, number, t } from "./strings.js";

const NEAR_END = 120; // px from the end of the page within which it follows what is written
const QUOTED = 300; // characters of a passage shown with it
const NEAREST = 3; // passages offered where there is no answer

const form = $("#chat-form");
const box = $("#chat-box");

let writer = undefined; // {id}, null where there is none, undefined before that is known
let turns = []; // {question, text, passages, notes, hits, state, element}
let running = null; // AbortController of the answer on its way
let roots = [];
let visible = false;

/** Show or leave the view; ask once who writes here. */
export function showChat(shown, newRoots) {
  roots = newRoots;
  if (shown === visible) return;
  visible = shown;
  if (shown && !writer) findWriter();
}

async function findWriter() {
  try {
    writer = await api.getWriter();
    drawIntro();
  } catch (error) {
    if (!writer) fill($("#chat-intro"), el("p", { class: "bad", role: "alert" }, explain(error)));
  }
}

/** Put the cursor where one writes. */
export function toChatBox() {
  box.focus();
}

/** What a person has typed goes off, and the answer is shown as it comes. */
async function send() {
  const question = box.value.trim();
  if (!question || running || !writer) return;
  const turn = { question, text: "", passages: [], cited: [], notes: [], hits: [], state: "looking", read: null };
  const earlier = turns.filter((past) => past.counts).flatMap((past) => [
    { role: "user", content: past.question }, { role: "assistant", content: past.text },
  ]);
  turns.push(turn);
  box.value = "";
  drawIntro();
  add(turn);
  const mine = (running = new AbortController());
  drawForm();
  try {
    if ($("#chat-documents").checked) await fromDocuments(turn, earlier, mine.signal);
    else await fromModel(turn, earlier, mine.signal);
  } catch (error) {
    turn.state = error.name === "AbortError" ? "stopped" : "failed";
    turn.error = error;
  }
  turn.counts = turn.text.trim() !== "" && (turn.state === "done" || turn.state === "stopped");
  running = running === mine ? null : running;
  if (!turns.includes(turn)) return; // a new conversation has begun
  draw(turn);
  drawForm();
  $("#said").textContent = clean(turn.state === "missing" ? t.notFound : turn.text);
}

async function fromDocuments(turn, earlier, signal) {
  const asked = { query: turn.question, earlier, writer: true, stream: true };
  for await (const event of api.events("v1/ask", asked, signal)) {
    if (event.type === "sources") Object.assign(turn, { passages: event.passages, state: "reading" });
    else if (event.type === "reading") Object.assign(turn, { read: event, state: "reading" });
    else if (event.type === "text") Object.assign(turn, { text: turn.text + event.text, state: "writing" });
    else if (event.type === "answer") {
      const { found, text, citations, notes, hits } = event;
      Object.assign(turn, { cited: citations, notes, hits, text, state: found ? "done" : "missing" });
    }
    later(turn);
  }
}

async function fromModel(turn, earlier, signal) {
  const asked = { model: writer.id, messages: [...earlier, { role: "user", content: turn.question }], stream: true };
  turn.state = "reading";
  later(turn);
  for await (const event of api.events("v1/chat/completions", asked, signal)) {
    const said = event.choices?.[0]?.delta?.content;
    if (!said) continue;
    Object.assign(turn, { text: turn.text + said, state: "writing" });
    later(turn);
  }
  turn.state = "done";
}

function stop() {
  running?.abort();
}

async function begin() {
  if (turns.length && !(await confirm(t.chatNewAsk, t.chatNewDetail, t.chatNewYes))) return;
  stop();
  running = null;
  turns = [];
  $("#chat").replaceChildren();
  drawIntro();
  drawForm();
  box.focus();
}

// --- what is shown

/** Show what is known anew: after the language or the folders have changed. */
export function drawChat(newRoots = roots) {
  const changed = JSON.stringify(newRoots) !== JSON.stringify(roots) || $("#chat").lang !== language;
  roots = newRoots;
  $("#chat").lang = language;
  if (!changed) return;
  drawIntro();
  drawForm();
  for (const turn of turns) draw(turn, { whole: true });
}

function drawIntro() {
  const place = $("#chat-intro");
  form.hidden = !writer;
  $("#view-chat").classList.toggle("empty", !turns.length);
  if (writer === undefined) fill(place);
  else if (writer === null) {
    fill(place,
      el("h2", {}, t.chatNoWriter), el("p", {}, t.chatNoWriterHow),
      el("p", {}, el("code", {}, "kogata serve --writer MODEL")), el("p", { class: "quiet" }, t.chatNoWriterTry));
  } else {
    const begun = turns.length > 0;
    fill(place,
      !begun && el("h2", {}, t.chatHeading), !begun && el("p", { class: "quiet" }, t.chatText),
      !begun && el("p", { class: "quiet" }, t.chatWriter(writer.id)), writer.id === "tiny" && el("p", { class: "quiet" }, t.chatTiny));
  }
}

function drawForm() {
  const button = $("#chat-send");
  button.textContent = running ? t.chatStop : t.chatSend;
  button.classList.toggle("quiet", running !== null);
  button.disabled = !running && !box.value.trim();
  box.placeholder = t.chatBox;
  box.setAttribute("aria-label", t.chatBox);
  box.lang = langOf(box.value || t.chatBox);
  $("#chat-new").hidden = !turns.length;
}

function add(turn) {
  const n = turns.length;
  turn.n = n;
  turn.body = el("div", { class: "prose" });
  turn.below = el("div", { class: "below" });
  turn.heading = el("h2", { class: "unseen" });
  const asked = el("li", { class: "question" }, turn.heading, el("p", { lang: langOf(turn.question) }, turn.question));
  const given = el("li", { class: "reply" }, turn.body, turn.below);
  $("#chat").append(asked, given);
  draw(turn);
  // The question goes to the top of what is seen: its answer grows into the room below it, and nothing moves.
  asked.scrollIntoView({ block: "start" });
}

let due = null;

/** Draw with the next frame: text comes faster than that. */
function later(turn) {
  due ??= requestAnimationFrame(() => {
    due = null;
    if (turns.includes(turn)) following(() => draw(turn));
  });
}

/** Make a change, and stay at the end of the page if one is there. */
function following(change) {
  const page = document.documentElement;
  const end = visible && innerHeight + scrollY >= page.scrollHeight - NEAR_END;
  change();
  if (end) scrollTo({ top: page.scrollHeight, behavior: "instant" });
}

function draw(turn, { whole = false } = {}) {
  turn.heading.textContent = t.chatQuestion(number(turn.n));
  if (whole) turn.body.replaceChildren();
  const byNumber = new Map([...turn.passages, ...turn.cited].map((passage) => [passage.number, passage]));
  drawProse(turn.body, turn.text, (n) => byNumber.has(n) && citing(byNumber.get(n)));
  turn.body.setAttribute("aria-busy", String(["looking", "reading", "writing"].includes(turn.state)));
  const shows = JSON.stringify([turn.state, turn.read, turn.cited.length, language, roots]);
  if (turn.shows !== shows) fill(turn.below, ...below(turn));
  turn.shows = shows;
}

const citing = (passage) =>
  el("button", {
    type: "button", class: "cite", "aria-label": t.citation(passage.number, whereIs(passage.path, []).name),
    onclick: () => openReader(passage.document_id, passage),
  }, number(passage.number));

/** What stands below an answer: how far it is, or what it rests on. */
function below(turn) {
  switch (turn.state) {
    case "looking": return [busy($("#chat-documents").checked ? t.chatLooking : t.chatReading())];
    case "reading": return [busy(turn.read ? t.chatReading(number(turn.read.done), number(turn.read.total)) : t.chatReading())];
    case "writing": return [];
    case "failed": return [el("p", { class: "failure", role: "alert" }, explain(turn.error))];
    case "missing": return [
      el("p", {}, el("strong", {}, t.notFound)),
      el("p", { class: "quiet" }, turn.hits.length ? t.notFoundNear : t.notFoundNothing),
      sources(turn, turn.hits.slice(0, NEAREST)), notes(turn.notes),
    ];
  }
  const stopped = turn.state === "stopped" && el("p", { class: "quiet" }, t.chatStopped);
  const named = turn.state === "stopped" ? turn.passages.filter((one) => turn.text.includes(`[${one.number}]`)) : turn.cited;
  const given = turn.passages.length > 0 && !named.length;
  return [
    stopped,
    named.length > 0 && el("h3", { class: "label" }, t.sources),
    given && el("h3", { class: "label" }, t.chatGiven),
    sources(turn, given ? turn.passages : named),
    notes(turn.notes),
  ];
}

const busy = (text) => el("p", { class: "busy" }, el("span", { class: "dot", "aria-hidden": "true" }), text);

const notes = (said) =>
  said.length > 0 && el("ul", { class: "notes" }, said.map((sentence) => {
    const { text, lang } = note(sentence);
    return el("li", { lang }, text);
  }));

/** Sources, each with where it is and how it begins, or the part of it that fits the question. */
const sources = (turn, passages) =>
  passages.length > 0 && el("ol", { class: "sources" }, passages.map((passage) => {
    const { name, folder } = whereIs(passage.path, roots);
    const heading = passage.heading.slice(-2).join(" › ");
    const hit = turn.hits.find((one) => one.document_id === passage.document_id && one.start === passage.start);
    const where = [passage.page != null && t.page(passage.page), heading].filter(Boolean);
    const quote = hit ? marked(hit.snippet, hit.highlights) : [passage.text.slice(0, QUOTED)];
    return el("li", {},
      passage.number !== undefined && el("span", { class: "number", "aria-hidden": "true" }, number(passage.number)),
      el("div", {},
        el("button", {
          type: "button", class: "open", "data-at": `${passage.document_id}:${passage.start}`,
          onclick: () => openReader(passage.document_id, passage),
        }, el("bdi", { lang: langOf(name) }, name)),
        el("p", { class: "where" },
          pathOf(folder, { title: passage.path }), where.map((part) => el("span", { lang: langOf(part) || language }, part))),
        el("blockquote", { lang: langOf(passage.text) }, ...quote)),
    );
  }));

// --- keys and buttons

function onKey(event) {
  // An Enter that ends the choice of kanji is not one that sends.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  send();
}

/** Stop the answer on its way. Returns whether there was one. */
export function stopChat() {
  const there = running !== null;
  stop();
  return there;
}

/** Wire the view's own elements. */
export function startChat() {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) stop();
    else send();
  });
  box.addEventListener("keydown", onKey);
  box.addEventListener("input", drawForm);
  $("#chat-new").addEventListener("click", begin);
  $("#chat").lang = language;
  drawForm();
}
