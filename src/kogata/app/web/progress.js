// How far the indexing is, on both views.

import { el, fill } from "./dom.js";
import { duration, t } from "./strings.js";

/** Show a running or failed indexing run in a place; nothing where all is done. Returns whether it shows something. */
export function showIndexing(place, status, { path = false } = {}) {
  const run = status.indexing;
  if (!run.running && !run.error) {
    place.replaceChildren();
  } else if (!run.running) {
    fill(place, el("p", { class: "bad" }, t.indexingFailed(run.error)));
  } else {
    const what = (t.indexing[run.phase] ?? t.indexing.other)(run.done, run.total);
    const share = run.total ? run.done / run.total : null;
    const left = run.eta_seconds != null && t.left(duration(run.eta_seconds));
    const hint = t.indexingHint[run.phase];
    fill(
      place,
      el("div", { class: "indexing" },
        el("p", {}, el("strong", {}, what), left && el("span", { class: "quiet" }, left)),
        el("progress", { "aria-label": what, max: share !== null && 1, value: share }),
        path && run.path && el("p", { class: "quiet path", title: run.path }, el("bdi", {}, run.path)),
        hint && el("p", { class: "quiet" }, hint),
      ),
    );
  }
  return place.hasChildNodes();
}
