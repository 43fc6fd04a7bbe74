// The view of the security graph: tools, canvas, panel, table.

import { every, get } from "./api.js";
import { canvas, edgeNames } from "./canvas.js";
import { glyph, h, mono, sample } from "./dom.js";
import { edgePanel, nodePanel } from "./panel.js";
import { answerChip, answerOf, followReach, pairsOf, whyNot } from "./reach.js";
import { rate, ruleName } from "./text.js";

const GROUPS = [["namespace", "Namespace"], ["app", "App"], ["versionedApp", "Version"], ["workload", "Workload"]];
const WINDOWS = [["1m", "Last minute"], ["5m", "Last 5 minutes"], ["10m", "Last 10 minutes"]];
export const STATES = {
  allowed: ["allow", "allowed"], mixed: ["warn", "partly denied"], denied: ["deny", "denied"], idle: ["", "permitted, idle"], unused: ["", "permitted, unused"],
};
const REFRESH_MS = 2000;
const kept = { group: matchMedia("(max-width: 720px)").matches ? "app" : "versionedApp", window: "5m", namespace: "", unused: true };

export function graphView(main) {
  let found = null;
  let asking = 0;
  let unproved = null;
  const group = segments("Group by", "group", GROUPS, kept.group, (value) => change("group", value));
  const window_ = select("Period", WINDOWS, kept.window, (value) => change("window", value));
  const namespace = select("Namespace", [["", "All namespaces"]], "", (value) => change("namespace", value));
  const unused = h("input", { type: "checkbox", checked: kept.unused, onchange: () => change("unused", unused.checked) });
  const side = h("aside", { class: "side", "aria-label": "Details", hidden: true, tabindex: "-1" });
  const empty = h("div", { class: "graph-empty muted" }, "Loading…");
  const wrap = h("div", { class: "canvas-wrap", role: "group", "aria-label": "Security graph. Every node and edge is a button; the same facts are in the table below." }, empty, legend());
  const table = h("div", { class: "scroll" });
  const remark = h("span", { class: "chip warn", hidden: true }, "too large: choose a namespace");
  const proof = h("span", { class: "chip", hidden: true });
  main.append(h("section", { class: "graph-view", "aria-labelledby": "title" },
    h("h1", { class: "sr", id: "title" }, "Security graph"),
    h("div", { class: "tools" }, group, window_, namespace, h("label", { class: "check" }, unused, "Unused"), remark, proof),
    h("div", { class: "stage-area" }, wrap, side),
    h("details", { class: "graph-table" }, h("summary", {}, "Edges as a table"), table)));
  const drawing = canvas(wrap, (data) => panel(data, true));
  const button = (name, words, work) => h("button", { class: "icon", type: "button", "aria-label": words, title: words, onclick: work }, glyph(name, ""));
  wrap.append(h("div", { class: "zoom" }, button("plus", "Zoom in", () => drawing.zoom(1.25)), button("minus", "Zoom out", () => drawing.zoom(0.8)), button("fit", "Show all", () => drawing.fit())));

  function change(name, value) {
    kept[name] = value;
    refresh();
  }

  async function refresh() {
    const number = ++asking;
    const query = new URLSearchParams({ graphType: kept.group, duration: kept.window, namespaces: kept.namespace });
    const answer = await get(`/api/namespaces/graph?${query}`);
    if (number !== asking || !wrap.isConnected) return; // a newer question is on its way
    show(answer);
  }

  function show(answer) {
    const edges = answer.elements.edges.map((edge) => edge.data).filter((edge) => kept.unused || !["unused", "idle"].includes(edge.policy.state));
    const used = new Set(edges.flatMap((edge) => [edge.source, edge.target]));
    const nodes = answer.elements.nodes.map((node) => node.data).filter((node) => node.policy || used.has(node.id) || answer.elements.nodes.some((other) => other.data.parent === node.id));
    found = { ...answer, nodes, edges };
    remark.hidden = !answer.truncated;
    options(namespace.querySelector("select"), [["", "All namespaces"], ...(answer.namespaces ?? []).map((name) => [name, name])], kept.namespace);
    empty.hidden = nodes.length > 0;
    empty.textContent = "Nothing known yet: no workload is described and none has asked.";
    drawing.update(found);
    fillTable();
    if (drawing.selected) panel([...nodes, ...edges].find((one) => one.id === drawing.selected) ?? null, false);
  }

  function panel(data, isNew) {
    side.hidden = !data;
    if (!data) return;
    const close = h("button", { class: "icon", type: "button", "aria-label": "Close details", onclick: () => drawing.choose(drawing.selected) }, glyph("cross", ""));
    const make = data.source ? edgePanel : nodePanel;
    make(side, data, found, close, isNew, unproved);
    if (isNew) side.scrollTop = 0;
  }

  function fillTable() {
    const name = (id) => found.nodes.find((node) => node.id === id)?.name ?? id;
    const node = (id) => found.nodes.find((one) => one.id === id);
    const text = JSON.stringify(found.edges.map((edge) => [edge.id, answerOf(pairsOf(edge, node(edge.target))), edge.policy.state, edge.policy.rate, edge.policy.denied, edge.policy.mtlsPercent]));
    if (table.dataset.text === text) return;
    table.dataset.text = text;
    table.replaceChildren(h("table", { class: "stacked" }, h("caption", { class: "sr" }, "Edges of the security graph"),
      h("thead", {}, h("tr", {}, ["From", "To", "State", "Rate", "Denied", "mTLS", "Permitted"].map((title) => h("th", { scope: "col", class: ["Rate", "Denied", "mTLS"].includes(title) ? "num" : null }, title)))),
      h("tbody", {}, found.edges.map((edge) => {
        const { policy } = edge;
        const [kind, word] = STATES[policy.state];
        const answer = answerOf(pairsOf(edge, node(edge.target)));
        const isSeen = policy.allowed + policy.denied > 0;
        return h("tr", {}, h("td", {}, h("b", {}, name(edge.source))), h("td", { "data-label": "To" }, h("b", {}, name(edge.target))),
          h("td", { "data-label": "State" }, h("button", { class: `chip ${kind}`, type: "button", onclick: () => drawing.selected === edge.id || drawing.choose(edge.id) }, h("span", { class: "sr" }, `Show details: ${edgeNames(edge, found)}`), word)),
          h("td", { class: "num", "data-label": "Rate" }, isSeen ? rate(policy.rate) : "–"), h("td", { class: "num", "data-label": "Denied" }, isSeen ? `${policy.deniedPercent} %` : "–"), h("td", { class: "num", "data-label": "mTLS" }, isSeen ? `${policy.mtlsPercent} %` : "–"),
          h("td", { "data-label": "Permitted" }, answer ? [answerChip(answer), " "] : null, policy.permittedBy.length ? policy.permittedBy.map((rule, index) => [index ? ", " : "", mono(ruleName(rule))]) : answer ? null : "–"));
      }))));
  }

  const escape = (event) => {
    if (event.key === "Escape" && drawing.selected) drawing.choose(drawing.selected);
  };
  addEventListener("keydown", escape);
  const stops = [every(REFRESH_MS, refresh), followReach((now) => {
    unproved = whyNot(now);
    proof.hidden = !unproved;
    proof.textContent = now.state === "computing" ? "what is permitted is being proved" : "permitted: by identity alone";
    proof.title = unproved ?? "";
  })];
  return () => {
    stops.forEach((stop) => stop());
    removeEventListener("keydown", escape);
    drawing.close();
  };
}

function segments(title, name, choices, value, changed) {
  return h("div", { class: "segments", role: "radiogroup", "aria-label": title }, choices.map(([key, words]) =>
    h("label", {}, h("input", { type: "radio", name, value: key, checked: key === value, onchange: () => changed(key) }), h("span", {}, words))));
}

function select(title, choices, value, changed) {
  const list = h("select", { "aria-label": title, onchange: () => changed(list.value) });
  options(list, choices, value);
  return h("span", {}, list);
}

function options(list, choices, value) {
  const text = JSON.stringify(choices);
  if (list.dataset.text !== text) {
    list.dataset.text = text;
    list.replaceChildren(...choices.map(([key, words]) => h("option", { value: key }, words)));
  }
  if (list.value !== value) list.value = value;
}

function legend() {
  return h("ul", { class: "legend", "aria-label": "Legend" },
    [["allowed", "allowed"], ["mixed", "partly denied"], ["denied", "denied"], ["unused", "permitted, unused"]].map(([kind, words]) => h("li", {}, sample(kind), words)),
    h("li", {}, glyph("lock"), "mTLS"), h("li", {}, glyph("unlock"), "plaintext, open"));
}

