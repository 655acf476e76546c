// What is shown, kept in the part of the address after "#": Back works, and a link can be passed on.

const LISTS = new Set(["type"]);
const DEFAULTS = { view: "ask", q: "", mode: "ask", by: "hybrid", type: [], path: "", doc: "", from: "", to: "" };

let show = () => {};

/** What the address says: every name of DEFAULTS with its value. */
export function read() {
  const written = new URLSearchParams(location.hash.slice(1));
  const place = {};
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    place[name] = LISTS.has(name) ? written.getAll(name) : (written.get(name) ?? usual);
  }
  return place;
}

/** The address of a place. */
export function link(place) {
  const written = new URLSearchParams();
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    for (const value of [place[name] ?? usual].flat()) if (value !== usual) written.append(name, value);
  }
  return "#" + written;
}

/** Go to where we are with some changes, and show it. `replace`: without a new step for Back; `about`: kept with the step. */
export function go(changes, { replace = false, about = null } = {}) {
  const to = link({ ...read(), ...changes });
  if (replace) history.replaceState(about, "", to);
  else if (to !== link(read())) history.pushState(about, "", to);
  show();
}

/** Call a function now and whenever the address changes. */
export function follow(shower) {
  show = shower;
  addEventListener("popstate", shower);
  shower();
}

/** The key that a link brought along (#key=…), taken out of the address so that it is not passed on with it. */
export function takeKey() {
  const written = location.hash.slice(1).split("&");
  const found = written.find((part) => part.startsWith("key="));
  if (found === undefined) return null;
  history.replaceState(history.state, "", "#" + written.filter((part) => part !== found).join("&"));
  try {
    return decodeURIComponent(found.slice(4)); // a "+" is one, not a blank
  } catch {
    return found.slice(4);
  }
}
