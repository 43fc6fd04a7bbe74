// What is told of a chosen edge or node: principals, rules, recent decisions.

import { get } from "./api.js";
import { chip, glyph, h, mono } from "./dom.js";
import { answerChip, pairWords, pairsOf } from "./reach.js";
import { account, ago, asked, clock, count, place, rate, ruleName, target } from "./text.js";

const STATES = {
  allowed: ["allow", "allowed"], mixed: ["warn", "partly denied"], denied: ["deny", "tried and denied"], idle: ["", "permitted, idle"], unused: ["", "permitted, unused"],
};
const MAX_RECENT = 8;
const MAX_PAIRS = 12;
const STAGES = {
  "peer-authentication": "PeerAuthentication", normalization: "path normalisation", custom: "CUSTOM", jwt: "token", deny: "DENY", allow: "no ALLOW rule matched", default: "no ALLOW policy applies", identity: "sidecar identity", internal: "internal error",
};

const part = (title, ...content) => h("section", {}, h("h3", {}, title), ...content);
const tile = (value, name) => h("div", { class: "tile" }, h("b", {}, value), h("span", {}, name));

export function edgePanel(side, edge, graph, close, isNew, remark) {
  const node = (id) => graph.nodes.find((one) => one.id === id);
  const [from, to] = [node(edge.source), node(edge.target)];
  const { policy } = edge;
  const [kind, word] = STATES[policy.state];
  const total = policy.allowed + policy.denied;
  const recent = isNew || side.dataset.of !== edge.id ? h("ul", { "aria-label": "Recent decisions" }, h("li", { class: "muted" }, total ? "Loading…" : "None in this period.")) : side.querySelector("[data-recent]");
  recent.setAttribute("data-recent", "");
  const pairs = pairsOf(edge, to);
  const shown = JSON.stringify([edge.id, pairs, remark, policy.permittedBy]);
  const before = side.querySelector("[data-permitted]");
  const permitted = before?.dataset.permitted === shown ? before : permittedPart(policy, pairs, remark);
  permitted?.setAttribute("data-permitted", shown);
  side.dataset.of = edge.id;
  side.replaceChildren(...[
    h("header", {}, h("h2", {}, from?.name ?? "?", " → ", to?.name ?? "?"), close),
    h("p", {}, chip(kind, word), " ", ...policy.protocols.map((protocol) => chip("", protocol))),
    total ? h("div", { class: "tiles" }, tile(rate(policy.rate), count(total, "request")), tile(`${trim(100 - policy.deniedPercent)} %`, "allowed"), tile([glyph(policy.mtlsPercent > 0 ? "lock" : "unlock"), ` ${trim(policy.mtlsPercent)} %`], "mTLS"))
      : h("p", { class: "muted" }, policy.state === "unused" ? "Policy permits this, and nobody has used it since the service started. Is it still needed?" : `Last used ${ago(policy.lastAt, Date.now() / 1000)}.`),
    part("Principals", h("ul", {}, policy.principals.map((one) => h("li", {},
      one.principal ? mono(one.principal) : "no identity",
      h("span", { class: "place" }, `${one.requests ? count(one.requests, "request") : "no requests"}, ${one.permitted ? "permitted" : one.requests && policy.allowed ? "no rule names it" : "not permitted"}`))))),
    policy.rules.length ? part("What decided", h("ul", {}, policy.rules.map((one) => h("li", {},
      chip(one.effect, one.effect), " ", one.rule ? mono(ruleName(one.rule)) : one.name ? mono(one.name) : STAGES[one.stage] ?? one.stage,
      h("span", { class: "place" }, [count(one.requests, "decision"), place(one.rule)].filter(Boolean).join(" · ")))))) : null,
    permitted,
    part("Recent decisions", recent),
  ].filter(Boolean));
  if (total) fillRecent(recent, policy.principals.map((one) => one.principal), to);
}

/** What policy permits, beside what was observed: proved, in the words of the rules; else the rules that name the identity. */
function permittedPart(policy, pairs, remark) {
  if (pairs.length) {
    const words = (pair) => {
      const told = h("details", {}, h("summary", {}, answerChip(pair.answer), " ", h("span", {}, account(pair.principal).name || "anonymous", " → ", pair.workload.split("/")[1])));
      const fill = () => told.open && told.childElementCount === 1 && told.append(pairWords(pair.identity, pair.workload));
      told.addEventListener("toggle", fill);
      told.open = pairs.length === 1;
      return h("li", {}, told);
    };
    const more = pairs.length > MAX_PAIRS ? h("p", { class: "muted" }, `${pairs.length - MAX_PAIRS} more are in the `, h("a", { href: "#/matrix" }, "matrix"), ".") : null;
    return part("Permitted", h("ul", {}, pairs.slice(0, MAX_PAIRS).map(words)), more);
  }
  if (!policy.permittedBy.length) return null;
  return part("Permitted by", h("ul", {}, policy.permittedBy.map((rule) => h("li", {}, mono(ruleName(rule)), h("span", { class: "place" }, place(rule) ?? "")))),
    remark ? h("p", { class: "muted small" }, "Judged by the identity alone. ", remark) : null);
}

async function fillRecent(list, principals, to) {
  const names = new Set(to?.policy?.workloads ?? []);
  const found = await get("/api/decisions?limit=500").catch(() => null);
  if (!found) return;
  const rows = found.decisions.filter((row) => principals.includes(row.source?.principal ?? "") && (names.size ? names.has(target(row)) : row.destination?.namespace === to?.namespace)).slice(0, MAX_RECENT);
  const text = rows.map((row) => row.decision_id).join();
  if (text && list.dataset.text === text) return;
  list.dataset.text = text;
  list.replaceChildren(...(rows.length ? rows.map((row) => h("li", {}, h("a", { class: "mini", href: `#/decisions/${encodeURIComponent(row.decision_id)}` },
    chip(row.effect, row.effect === "allow" ? "Allowed" : "Denied"), h("span", { class: "mono" }, asked(row), " ", h("span", { class: "muted" }, clock(row.time).slice(0, 8))))))
    : [h("li", { class: "muted" }, "None kept in memory.")]));
}

const trim = (number) => (number >= 99.95 || number < 0.05 ? number.toFixed(0) : number.toFixed(1));

export function nodePanel(side, node, graph, close) {
  side.dataset.of = node.id;
  const name = (id) => graph.nodes.find((one) => one.id === id)?.name ?? "?";
  const { policy } = node;
  const edges = (title, key, other) => {
    const found = graph.edges.filter((edge) => edge[key] === node.id);
    if (!found.length) return null;
    return part(title, h("ul", {}, found.map((edge) => {
      const [kind, word] = STATES[edge.policy.state];
      return h("li", {}, name(edge[other]), " ", chip(kind, word), edge.policy.rate ? h("span", { class: "place" }, rate(edge.policy.rate)) : null);
    })));
  };
  side.replaceChildren(...[
    h("header", {}, h("h2", {}, node.name), close),
    node.nodeType === "unknown" ? h("p", {}, "Callers without a certificate: clients outside the mesh, or plaintext within it.")
      : node.isOutside ? h("p", {}, "Known by its certificate or by a policy that names it; no workload of the mesh has this account.")
        : h("p", { class: "muted" }, `Namespace ${node.namespace}${node.version ? `, version ${node.version}` : ""}`),
    policy ? h("p", {}, policy.mtlsModes.map((mode) => [chip(mode === "STRICT" ? "allow" : "warn", glyph(mode === "STRICT" ? "lock" : "unlock"), `mTLS ${mode.toLowerCase()}`), " "]),
      policy.isOpen ? chip("warn", "open: no ALLOW policy") : null, policy.jwtRules ? chip("accent", count(policy.jwtRules, "token rule")) : null) : null,
    policy?.serviceAccounts.length ? part("Service account", h("ul", {}, policy.serviceAccounts.map((one) => h("li", {}, mono(one))))) : null,
    policy ? part("Policies that apply", policy.policies.length ? h("ul", {}, policy.policies.map((one) => h("li", {}, mono(one)))) : h("p", { class: "muted" }, "None: everybody may call.")) : null,
    edges("Called by", "target", "source"), edges("Calls", "source", "target"),
  ].filter(Boolean));
}

