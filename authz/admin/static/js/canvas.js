// The drawn graph: cytoscape draws shapes and lines; names and edge labels are elements above it, so that they can be
// read, focused and pressed like any others.

import cytoscape from "../vendor/cytoscape.esm.min.js";
import { glyph, h } from "./dom.js";
import { NARROW, WIDE, curve, labelPlaces, place } from "./layout.js";
import { rate } from "./text.js";

const [LONG, LONGER, LONGEST] = [11, 15, 22]; // letters of a name beyond which it is written smaller, or without its middle
const FAR = 0.55; // below this zoom only labels that matter are shown
const probe = document.createElement("span");

function colour(name) {
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function style() {
  const c = Object.fromEntries(["surface", "raised", "line", "strong-line", "allow", "deny", "warn", "quiet", "accent", "bg"].map((name) => [name, colour(name)]));
  const edge = (selector, css) => ({ selector, css });
  return [
    { selector: "node", css: { shape: "round-rectangle", "corner-radius": 10, width: "data(width)", height: "data(height)", "background-color": c.surface, "border-width": 1.4, "border-color": c["strong-line"], "overlay-opacity": 0, "z-index-compare": "manual", "z-index": 3 } },
    { selector: "node[?isFrame]", css: { "background-color": c.raised, "background-opacity": 0.75, "border-color": c.line, "border-width": 1.4, "z-index": 0, "corner-radius": 14 } },
    { selector: "node[?isOutside]", css: { "border-style": "dashed", "background-color": c.bg } },
    { selector: "node[?isOpen]", css: { "border-color": c.warn } },
    { selector: "node.chosen", css: { "border-color": c.accent, "border-width": 2.6 } },
    edge("edge", { "curve-style": "bezier", width: "data(weight)", "line-color": c.allow, "target-arrow-color": c.allow, "target-arrow-shape": "triangle", "arrow-scale": 1.05, "overlay-opacity": 0, "z-index-compare": "manual", "z-index": 2, "source-endpoint": "outside-to-node", "target-endpoint": "outside-to-node" }),
    edge("edge[?curved]", { "curve-style": "unbundled-bezier", "control-point-distances": "data(distances)", "control-point-weights": "data(weights)", "source-endpoint": "data(leaves)", "target-endpoint": "data(arrives)", "edge-distances": "endpoints" }),
    edge("edge[state = 'mixed']", { "line-color": c.warn, "target-arrow-color": c.warn }),
    edge("edge[state = 'denied']", { "line-color": c.deny, "target-arrow-color": c.deny, "line-style": "dashed", "line-dash-pattern": [8, 5], "target-arrow-shape": "tee", "arrow-scale": 1.3 }),
    edge("edge[state = 'unused'], edge[state = 'idle']", { "line-color": c.quiet, "target-arrow-color": c.quiet, "line-style": "dashed", "line-dash-pattern": [2, 5], "line-cap": "round", "target-arrow-shape": "vee", opacity: 0.85 }),
    edge("edge.chosen", { "line-color": c.accent, "target-arrow-color": c.accent, "z-index": 4 }),
    edge(".faded", { opacity: 0.22 }),
  ];
}

/** Draws into `wrap`; `chosen(element)` is told what was pressed: data of a node or an edge, or null. */
export function canvas(wrap, chosen) {
  const ground = h("div", { class: "canvas", "aria-hidden": "true" });
  const overlay = h("div", { class: "overlay" });
  wrap.prepend(ground, overlay);
  const cy = cytoscape({ container: ground, style: style(), minZoom: 0.2, maxZoom: 2.5, boxSelectionEnabled: false, autoungrabify: true });
  let signature = "";
  let labels = new Map();
  let shown = null;
  let selected = "";
  let isFitted = true;
  const form = () => (wrap.clientWidth < 640 ? NARROW : WIDE);

  const follow = () => {
    const pan = cy.pan();
    overlay.style.transform = `translate(${pan.x}px, ${pan.y}px) scale(${cy.zoom()})`;
    overlay.classList.toggle("far", cy.zoom() < FAR);
  };
  cy.on("viewport", follow);
  cy.on("tap", (event) => {
    if (event.target === cy) choose("");
    else choose(event.target.id());
  });
  const fit = () => {
    isFitted = true;
    cy.fit(undefined, wrap.clientWidth < 640 ? 12 : 22);
    if (cy.zoom() > 1.15) {
      cy.zoom(1.15);
      cy.center();
    }
    const least = wrap.clientWidth < 640 ? 0.72 : 0.62; // one drags a large graph rather than guesses its letters
    if (cy.elements().nonempty() && cy.zoom() < least) {
      cy.zoom(least);
      cy.center();
      const box = cy.elements().renderedBoundingBox();
      cy.panBy({ x: form() === WIDE && box.w > cy.width() ? 16 - box.x1 : 0, y: box.h > cy.height() ? 16 - box.y1 : 0 });
    }
    follow();
  };
  cy.on("scrollzoom dragpan pinchzoom", () => (isFitted = false));

  function choose(id) {
    selected = selected === id ? "" : id;
    mark();
    const data = selected && shown ? [...shown.nodes, ...shown.edges].find((one) => one.id === selected) : null;
    chosen(data ?? null);
    if (data) uncover(cy.getElementById(selected));
  }

  /** Move what was chosen out from under the panel, where that lies over the canvas. */
  function uncover(one) {
    const covered = wrap.parentElement.querySelector(".side:not([hidden])")?.offsetWidth ?? 0;
    if (!one?.nonempty() || covered >= wrap.clientWidth) return;
    const box = one.renderedBoundingBox();
    const over = box.x2 - (wrap.clientWidth - covered - 24);
    if (over > 0) cy.panBy({ x: -Math.min(over, Math.max(0, box.x1 - 24)), y: 0 });
    follow();
  }

  function mark() {
    cy.elements().removeClass("chosen faded");
    const one = selected ? cy.getElementById(selected) : null;
    if (one?.nonempty()) {
      const near = one.isEdge() ? one.union(one.connectedNodes()) : one.union(one.connectedEdges()).union(one.connectedEdges().connectedNodes());
      cy.edges().difference(near).addClass("faded");
      one.addClass("chosen");
    }
    for (const [id, label] of labels) if (label.hasAttribute("aria-pressed")) label.setAttribute("aria-pressed", String(id === selected));
  }

  /** Show a graph; where nothing came or went only numbers change. */
  function update(graph) {
    shown = graph;
    const now = `${wrap.clientWidth < 640}|${graph.nodes.map((node) => node.id)}|${graph.edges.map((edge) => edge.id)}`;
    if (now !== signature) {
      signature = now;
      rebuild(graph);
    }
    cy.batch(() => {
      for (const node of graph.nodes) cy.getElementById(node.id).data({ isOpen: node.policy?.isOpen ?? false });
      for (const edge of graph.edges) cy.getElementById(edge.id).data({ state: edge.policy.state, weight: Math.min(6, 1.6 + Math.log10(1 + 10 * edge.policy.rate)) });
    });
    for (const node of graph.nodes) relabel(labels.get(node.id), nodeWords(node, graph));
    for (const edge of graph.edges) {
      const label = labels.get(edge.id);
      label.className = `edge-label ${edge.policy.state}`;
      relabel(label, [h("span", { class: "sr" }, edgeNames(edge, graph), SPOKEN[edge.policy.state]), ...edgeWords(edge)]);
    }
    mark();
  }

  function rebuild(graph) {
    const shape = form();
    const { positions: places, via } = place(graph.nodes, graph.edges, shape);
    const frames = new Set(graph.nodes.map((node) => node.parent).filter(Boolean));
    cy.elements().remove();
    cy.add(graph.nodes.map((node) => {
      const { x, y, width, height } = places.get(node.id);
      return { group: "nodes", data: { id: node.id, width, height, isFrame: frames.has(node.id), isOutside: node.isOutside }, position: { x, y } };
    }));
    cy.add(graph.edges.map((edge) => ({ group: "edges", data: { id: edge.id, source: edge.source, target: edge.target, state: edge.policy.state, weight: 2, ...curve(places.get(edge.source), places.get(edge.target), shape, via(edge)) } })));
    labels = new Map();
    overlay.replaceChildren();
    for (const node of graph.nodes) {
      const { x, y, width, height } = places.get(node.id);
      const isFrame = frames.has(node.id);
      const label = h("button", { class: isFrame ? "box-label" : "node-label", type: "button", "aria-pressed": "false", onclick: () => choose(node.id) });
      Object.assign(label.style, { left: `${x - width / 2}px`, top: `${y - height / 2}px`, width: `${width}px`, height: isFrame ? "auto" : `${height}px` });
      labels.set(node.id, label);
      overlay.append(label);
    }
    const solid = graph.nodes.filter((node) => !frames.has(node.id)).map((node) => places.get(node.id));
    const spots = labelPlaces(graph.edges.map((edge) => {
      const line = cy.getElementById(edge.id);
      const isLoop = edge.source === edge.target;
      return { id: edge.id, source: edge.source, target: edge.target, state: edge.policy.state, ends: isLoop ? [line.midpoint(), line.midpoint()] : [line.sourceEndpoint(), line.targetEndpoint()], controls: isLoop ? [] : line.controlPoints() ?? [] };
    }), solid, shape);
    for (const edge of graph.edges) {
      const middle = spots.get(edge.id);
      const label = h("button", { class: "edge-label", type: "button", "aria-pressed": "false", onclick: () => choose(edge.id) });
      Object.assign(label.style, { left: `${middle.x}px`, top: `${middle.y}px` });
      labels.set(edge.id, label);
      overlay.append(label);
    }
    if (isFitted || !cy.elements().length) fit();
    else follow();
  }

  const resized = new ResizeObserver(() => {
    cy.resize();
    if (shown) update(shown);
    if (isFitted) fit();
  });
  resized.observe(wrap);
  const rethemed = () => cy.style(style());
  addEventListener("themechange", rethemed);

  return {
    update, fit, choose,
    get selected() { return selected; },
    zoom(factor) {
      isFitted = false;
      cy.zoom({ level: cy.zoom() * factor, renderedPosition: { x: cy.width() / 2, y: cy.height() / 2 } });
    },
    close() {
      resized.disconnect();
      removeEventListener("themechange", rethemed);
      cy.destroy();
    },
  };
}

/** Replace a label's content only when it says something else: it may have the focus. */
function relabel(label, words) {
  const text = words.map((word) => (typeof word === "string" ? word : word.outerHTML)).join("|");
  if (label.dataset.text !== text) {
    label.dataset.text = text;
    label.replaceChildren(...words);
  }
}

function nodeWords(node, graph) {
  const isFrame = graph.nodes.some((other) => other.parent === node.id);
  if (isFrame) return [node.name];
  const marks = [];
  if (node.nodeType === "unknown") marks.push(glyph("globe"), "no identity");
  else {
    if (node.isGateway) marks.push(glyph("gate"));
    const isVersioned = node.version && node.version !== "*" && !node.name.endsWith(node.version);
    marks.push(node.isOutside ? "not in the mesh" : node.nodeType === "box" ? "namespace" : `${node.namespace}${isVersioned ? ` · ${node.version}` : ""}`);
    const modes = node.policy?.mtlsModes ?? [];
    if (modes.length === 1 && modes[0] === "STRICT" && !node.isGateway) marks.push(mark("lock", "strict", "mTLS only"));
    if (node.policy?.isOpen) marks.push(mark("unlock", "open", "open: no ALLOW policy"));
  }
  const { length } = node.name;
  const kind = length > LONGER ? "longer" : length > LONG ? "long" : null;
  const name = length > LONGEST ? [h("span", { class: "sr" }, node.name), h("span", { "aria-hidden": "true" }, `${node.name.slice(0, 9)}…${node.name.slice(-8)}`)] : node.name;
  return [h("b", { class: kind, title: node.name }, name), h("small", {}, marks)];
}

const mark = (name, kind, words) => h("span", { class: kind, title: words }, glyph(name), h("span", { class: "sr" }, words));

/** What stands on an edge: the padlock, the rate, the share that is denied. */
export function edgeWords(edge) {
  const { state, mtlsPercent: percent, rate: perSecond, deniedPercent } = edge.policy;
  if (state === "unused" || state === "idle") return edge.policy.permission === "with conditions" ? [state, h("span", { class: "if", title: "with conditions" }, h("span", { "aria-hidden": "true" }, "if"), h("span", { class: "sr" }, ", with conditions"))] : [state];
  const kind = percent >= 100 ? "" : percent > 0 ? "part" : "none";
  const lock = h("span", { class: `lock ${kind}`, title: `mTLS: ${Math.round(percent)} % of requests` }, glyph(percent > 0 ? "lock" : "unlock"), h("span", { class: "sr" }, " mTLS "), `${Math.round(percent)} %`);
  const speed = [rate(perSecond), state === "denied" ? glyph("cross") : null];
  const share = state === "mixed" ? h("span", { class: "share" }, `${deniedPercent < 1 ? "<1" : Math.round(deniedPercent)} % denied`) : null;
  return [h("span", { class: "first" }, share ? [...speed, lock] : speed), share ? h("span", { class: "sr" }, ", ") : null, share ?? lock].filter(Boolean);
}

const SPOKEN = { allowed: "allowed, ", mixed: "partly denied, ", denied: "denied, ", idle: "permitted, ", unused: "permitted, " };

/** What a button that stands for an edge says before the words that are seen: between whom, and how it went. */
export function edgeNames(edge, graph) {
  const name = (id) => graph.nodes.find((node) => node.id === id)?.name ?? id;
  return `${name(edge.source)} to ${name(edge.target)}: `;
}
