// The view of the matrix: every caller by every workload, what is permitted beside what was observed.

import { every, get } from "./api.js";
import { announce, chip, glyph, h } from "./dom.js";
import { ANSWERS, answerChip, followReach, isProved, pairWords, whyNot } from "./reach.js";
import { count } from "./text.js";

const OBSERVED_MS = 3000;
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const short = (name) => name.split(", ").map((one) => one.split("/").pop()).join(", ");

export function matrixView(main) {
  let found = null;
  let observed = new Map(); // "identity workload" to [allowed, denied]
  let chosen = null; // { caller, workload }
  let at = [0, 0]; // the cell that Tab reaches
  let told = "";
  const from = h("input", { type: "search", placeholder: "Caller", "aria-label": "Search callers" });
  const to = h("input", { type: "search", placeholder: "Called workload", "aria-label": "Search called workloads" });
  const passing = h("input", { type: "checkbox" });
  const state = h("p", { class: "notice", role: "status", hidden: true });
  const table = h("div", { class: "scroll matrix-scroll", role: "region", "aria-label": "Callers and workloads", tabindex: "0" });
  const side = h("aside", { class: "side", "aria-label": "Details", hidden: true, tabindex: "-1" });
  main.append(h("section", { class: "matrix-view", "aria-labelledby": "title" },
    h("div", { class: "page" },
      h("div", { class: "head" }, h("h1", { id: "title" }, "Who may call whom"), h("div", { class: "filters" }, from, to, h("label", { class: "check" }, passing, "Only what may pass"))),
      state,
      h("div", { class: "card" }, table, h("ul", { class: "matrix-legend", "aria-label": "Legend" },
        Object.values(ANSWERS).map(([kind, letters, words]) => h("li", {}, h("span", { class: `cell ${kind}` }, letters), words)),
        h("li", {}, h("i", { class: "seen" }), "observed in the last 10 minutes"), h("li", {}, h("i", { class: "seen refused" }), "observed, all denied"))),
      h("p", { class: "muted small" }, "Proved for all requests, from the policies in force: whoever calls with this identity. A workload can also call without it, as anonymous; whether there is a route is not asked.")),
    side));
  from.addEventListener("input", render);
  to.addEventListener("input", render);
  passing.addEventListener("change", render);

  const seen = (identity, workload) => observed.get(`${identity} ${workload}`);
  const matches = (search, text) => search.value.toLowerCase().split(/\s+/).filter(Boolean).every((word) => text.toLowerCase().includes(word));
  const passes = (answer) => answer && answer !== "no";

  function render() {
    if (!found) return;
    const why = whyNot(found);
    if (state.textContent !== (why ?? "")) state.textContent = why ?? "";
    state.hidden = !why;
    let callers = found.callers.filter((one) => matches(from, one.name));
    let workloads = found.workloads.filter((one) => matches(to, one));
    if (passing.checked) {
      callers = callers.filter((caller) => workloads.some((workload) => passes(found.at(caller.identity, workload))));
      workloads = workloads.filter((workload) => callers.some((caller) => passes(found.at(caller.identity, workload))));
    }
    at = [Math.min(at[0], Math.max(0, callers.length - 1)), Math.min(at[1], Math.max(0, workloads.length - 1))];
    const text = JSON.stringify([callers, workloads, found.answers, [...observed], chosen]);
    if (text === told) return; // the focus stays where it is
    told = text;
    const focus = document.activeElement?.closest?.("td[data-at]")?.dataset.at;
    if (!callers.length || !workloads.length) {
      table.replaceChildren(h("p", { class: "empty" }, found.callers.length ? "Nothing matches." : "Nothing is known yet."));
      return;
    }
    table.replaceChildren(h("table", { class: "matrix" },
      h("caption", { class: "sr" }, "Callers in rows, the workloads they call in columns. Arrow keys go from cell to cell."),
      h("thead", {}, h("tr", {}, h("td", { class: "corner muted" }, "caller ↓ calls →"), workloads.map((name) => h("th", { scope: "col", title: name }, h("span", {}, short(name)))))),
      h("tbody", {}, callers.map((caller, row) => h("tr", {}, h("th", { scope: "row", title: caller.name }, caller.identity ? short(caller.name) : h("i", {}, "anonymous")),
        workloads.map((workload, column) => cell(caller, workload, row, column)))))));
    if (focus) table.querySelector(`td[data-at="${focus}"] button`)?.focus();
  }

  function cell(caller, workload, row, column) {
    const answer = found.at(caller.identity, workload);
    const [kind, letters, words] = ANSWERS[answer] ?? ["", "…", "being proved"];
    const numbers = seen(caller.identity, workload);
    const mark = numbers ? h("i", { class: numbers[0] ? "seen" : "seen refused" }) : null;
    const isChosen = chosen && chosen.caller.identity === caller.identity && chosen.workload === workload;
    const label = `${short(caller.name)} to ${short(workload)}: ${words}${numbers ? `; observed: ${observedWords(numbers)}` : ""}`;
    const press = () => {
      at = [row, column];
      choose(isChosen ? null : { caller, workload });
    };
    return h("td", { "data-at": `${row},${column}` }, h("button", { class: `cell ${kind}`, type: "button", "aria-label": label, title: label, "aria-pressed": String(Boolean(isChosen)), tabindex: row === at[0] && column === at[1] ? "0" : "-1", onclick: press, onkeydown: step }, letters, mark));
  }

  function step(event) {
    const by = STEPS[event.key];
    if (!by) return;
    const [row, column] = event.currentTarget.parentElement.dataset.at.split(",").map(Number);
    const next = table.querySelector(`td[data-at="${row + by[0]},${column + by[1]}"] button`);
    if (!next) return;
    event.preventDefault();
    event.currentTarget.tabIndex = -1;
    next.tabIndex = 0;
    at = [row + by[0], column + by[1]];
    next.focus();
  }

  function choose(pair) {
    chosen = pair;
    render();
    side.hidden = !pair;
    if (!pair) return;
    const answer = found.at(pair.caller.identity, pair.workload);
    const numbers = seen(pair.caller.identity, pair.workload);
    const close = h("button", { class: "icon", type: "button", "aria-label": "Close details", onclick: () => choose(null) }, glyph("cross", ""));
    side.replaceChildren(
      h("header", {}, h("h2", {}, short(pair.caller.name), " → ", short(pair.workload)), close),
      h("p", {}, answer ? answerChip(answer) : chip("", "being proved")),
      h("section", {}, h("h3", {}, "Permitted"), answer ? pairWords(pair.caller.identity, pair.workload) : h("p", { class: "muted" }, "Being proved.")),
      h("section", {}, h("h3", {}, "Observed"), h("p", {}, numbers ? `${observedWords(numbers)} in the last 10 minutes` : "Nothing in the last 10 minutes.")));
    side.scrollTop = 0;
    announce(`Details of ${short(pair.caller.name)} to ${short(pair.workload)}`);
  }

  const escape = (event) => {
    if (event.key === "Escape" && chosen) choose(null);
  };
  addEventListener("keydown", escape);
  const stops = [
    followReach((now) => {
      const wasProved = isProved(found) && found.matrix_version === now.matrix_version;
      found = now;
      render();
      if (chosen && !wasProved) choose(chosen);
    }),
    every(OBSERVED_MS, async () => {
      observed = observedPairs(await get("/api/namespaces/graph?graphType=workload&duration=10m&permitted=false"));
      render();
    }),
  ];
  return () => {
    stops.forEach((stop) => stop());
    removeEventListener("keydown", escape);
  };
}

const observedWords = ([allowed, denied]) => [allowed ? `${count(allowed, "request")} allowed` : "", denied ? `${count(denied, "request")} denied` : ""].filter(Boolean).join(", ");

/** Requests by identity and workload; an edge of several callers or workloads counts for each of them. */
function observedPairs(graph) {
  const nodes = new Map(graph.elements.nodes.map(({ data }) => [data.id, data]));
  const found = new Map();
  for (const { data: edge } of graph.elements.edges) {
    const to = nodes.get(edge.target);
    for (const { principal, requests } of edge.policy.principals) {
      for (const name of requests ? to?.policy?.workloads ?? [] : []) found.set(`${principal ? `spiffe://${principal}` : ""} ${to.namespace}/${name}`, [edge.policy.allowed, edge.policy.denied]);
    }
  }
  return found;
}
