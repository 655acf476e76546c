// A model's text as paragraphs, lists and code: a few marks of Markdown, made into elements whose texts are texts.

import { el, langOf } from "./dom.js";

const FENCE = /^\s*```\s*([\w+#.-]*)\s*$/;
const ITEM = /^\s{0,8}(?:[-*+•]|(\d{1,4})[.)])\s+(.*)$/;
const HEADING = /^#{1,6}\s+(.*)$/;
const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|\[(\d{1,3})\]/g;

/** The blocks of a text: {kind: "code", text}, {kind: "list", from, items}, {kind: "heading", text} or {kind: "text", text}. */
export function blocks(text) {
  const found = [];
  let block = null; // what the next line may belong to
  let list = null; // what the next item may belong to, after blank lines too
  const begin = (next) => {
    list = next.kind === "list" ? next : null;
    found.push((block = next));
  };
  for (const line of text.split("\n")) {
    const [, point, said] = ITEM.exec(line) ?? [];
    if (block?.kind === "code") {
      if (FENCE.test(line)) block = null;
      else block.lines.push(line);
    } else if (FENCE.test(line)) {
      begin({ kind: "code", lines: [] });
    } else if (!line.trim()) {
      block = null;
    } else if (said !== undefined) {
      const from = point === undefined ? null : Number(point);
      if (list && (list.from === null) === (from === null)) (block = list).items.push([said]);
      else begin({ kind: "list", from, items: [[said]] });
    } else if (HEADING.test(line)) {
      begin({ kind: "heading", lines: [HEADING.exec(line)[1]] });
      block = null;
    } else if (block?.kind === "list" && /^\s/.test(line)) {
      block.items.at(-1).push(line.trim());
    } else if (block?.kind === "text") {
      block.lines.push(line);
    } else {
      begin({ kind: "text", lines: [line] });
    }
  }
  return found.map(({ kind, from, items, lines }) =>
    kind === "list" ? { kind, from, items: items.map((parts) => parts.join("\n")) } : { kind, text: lines.join("\n") },
  );
}

const shown = new WeakMap(); // what an element was made of

/**
 * Show a text in a place. Called again as the text grows, it touches only what has changed: the last block as a rule.
 * `cite(number)` is what stands for [number], or null where that is only a text.
 */
export function drawProse(place, text, cite) {
  const wanted = blocks(text);
  for (const [i, block] of wanted.entries()) {
    const made = JSON.stringify(block);
    const there = place.children[i];
    if (there && shown.get(there) === made) continue;
    const element = elementOf(block, cite);
    shown.set(element, made);
    if (there) there.replaceWith(element);
    else place.append(element);
  }
  while (place.children.length > wanted.length) place.lastElementChild.remove();
}

function elementOf(block, cite) {
  if (block.kind === "code") return el("pre", { tabindex: "0" }, el("code", {}, block.text));
  if (block.kind === "heading") return el("p", { lang: langOf(block.text) }, el("strong", {}, ...inline(block.text, cite)));
  if (block.kind === "text") return el("p", { lang: langOf(block.text) }, ...inline(block.text, cite));
  const items = block.items.map((item) => el("li", { lang: langOf(item) }, ...inline(item, cite)));
  return block.from === null ? el("ul", {}, items) : el("ol", { start: block.from }, items);
}

function inline(text, cite) {
  const nodes = [];
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, code, strong, number] = match;
    const node = code !== undefined ? el("code", {}, code)
      : strong !== undefined ? el("strong", {}, ...inline(strong, cite))
      : cite(Number(number));
    if (!node) continue;
    nodes.push(text.slice(at, match.index), node);
    at = match.index + whole.length;
  }
  return [...nodes, text.slice(at)].filter((node) => node !== "");
}
