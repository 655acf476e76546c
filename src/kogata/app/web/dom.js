// Making elements. Every text goes through clean() into a text node: nothing that a document, a file name or the
// server says is ever read as markup.

export const $ = (selector) => document.querySelector(selector);

/**
 * An element: properties that begin with "on" are listeners, the others attributes (true is an empty one; false, null
 * and undefined are left out); children are elements or texts (false, null and undefined are left out).
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === false || value == null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : clean(String(value)));
  }
  for (const child of children.flat()) {
    if (child === false || child == null) continue;
    element.append(child instanceof Node ? child : clean(String(child)));
  }
  return element;
}

/** Replace what an element holds. */
export const fill = (element, ...children) => element.replaceChildren(...el("div", {}, ...children).childNodes);

// Bidirectional embeddings, overrides, isolates and marks could make "exe.txt" of "txt.exe".
const ORDER = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const CONTROLS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/g;

/** Text with lone surrogates as U+FFFD, control characters as their pictures, and nothing that reorders it. */
export function clean(text) {
  return text
    .toWellFormed()
    .replace(ORDER, "")
    .replace(/\r\n?/g, "\n")
    .replace(CONTROLS, (control) => {
      const code = control.charCodeAt(0);
      return code < 0x20 ? String.fromCharCode(0x2400 + code) : code === 0x7f ? "\u2421" : "\ufffd";
    });
}

/** A function that cuts a text at offsets in characters (the server counts code points, JavaScript UTF-16 units). */
export function cutter(text) {
  if (!/[\ud800-\udfff]/.test(text)) return (start, end) => text.slice(start, end);
  const points = Array.from(text);
  return (start, end) => points.slice(start, end).join("");
}

/** The text as nodes, its spans (in characters) as <mark>. */
export function marked(text, spans) {
  const cut = cutter(text);
  const nodes = [];
  let at = 0;
  for (const [start, end] of [...spans].sort((a, b) => a[0] - b[0])) {
    if (end <= at) continue;
    nodes.push(cut(at, Math.max(at, start)), el("mark", {}, cut(Math.max(at, start), end)));
    at = end;
  }
  return [...nodes, cut(at)].filter((node) => node !== "");
}

const JAPANESE = /[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]/g;

/** The language of a text, for its font and its line breaks: Japanese where an eighth of its beginning is. */
export function langOf(text) {
  const beginning = text.slice(0, 2000);
  return (beginning.match(JAPANESE)?.length ?? 0) * 8 > beginning.length ? "ja" : "en";
}

/** What stands between two sentences: a blank, but none between Japanese characters. */
export const gap = (left, right) => (langOf(left.slice(-1)) === "ja" && langOf(right.slice(0, 1)) === "ja" ? "" : " ");

/** Name and folder of a path, the folder beginning at the indexed folder it is in: "papers/2026". */
export function whereIs(path, roots) {
  const cut = Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\"));
  const folder = path.slice(0, Math.max(0, cut));
  const root = roots.find((root) => folder === root || folder.startsWith(root + "/") || folder.startsWith(root + "\\"));
  const from = root === undefined ? -1 : Math.max(root.lastIndexOf("/"), root.lastIndexOf("\\"));
  return { name: path.slice(cut + 1), folder: folder.slice(from + 1) };
}

/** A path, which may break after a slash. */
export const pathOf = (path, properties = {}) =>
  el("bdi", { lang: langOf(path), ...properties }, path.split(/(?<=[/\\])/).flatMap((part) => [part, el("wbr")]));

/** A few words at the bottom of the page that go away by themselves; screen readers say them. */
export function notice(text) {
  const place = $("#notice");
  place.textContent = clean(text);
  clearTimeout(notice.timer);
  notice.timer = setTimeout(() => (place.textContent = ""), 6000);
}

/** Ask before something is deleted; resolves to whether it was confirmed. */
export function confirm(question, detail, yes) {
  const dialog = $("#confirm");
  $("#confirm-heading").textContent = clean(question);
  $("#confirm-text").textContent = clean(detail);
  $("#confirm-yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
