// The candidate: what it would change, with examples, what it costs, and the commands that end it.

import { chip, copyable, h, mono } from "./dom.js";
import { ago, count, place, ruleName, span } from "./text.js";

const RESULTS = {
  newly_denied: ["deny", "newly denied"], newly_allowed: ["warn", "newly allowed"], other_status: ["", "other status"], other_rule: ["", "other rule only"],
};

/** A card of what is known of the candidate; null where there is none. */
export function candidateCard(found, now) {
  if (!found?.is_set || (!found.version && found.reload_ok)) return null;
  const refused = found.reload_ok ? null : h("div", { class: "notice deny" }, `Its last change was refused: ${found.problems.map((one) => `${place(one) ?? ""} ${one.message}`.trim()).join("; ") || "see the log"}.${found.version ? "" : " Nothing decides in shadow."}`);
  if (!found.version) return h("section", { class: "card", "aria-label": "Candidate" }, h("h2", {}, "Candidate"), h("div", { class: "body" }, refused));
  const { results } = found;
  const compared = results.same + Object.keys(RESULTS).reduce((sum, name) => sum + results[name], 0);
  const number = (value) => value.toLocaleString("en");
  const fact = (value, name, kind) => h("div", { class: "tile" }, h("b", { class: value && kind ? kind : null }, typeof value === "number" ? number(value) : value), h("span", {}, name));
  return h("section", { class: "card", "aria-label": "Candidate" },
    h("h2", {}, "Candidate ", mono(found.version)),
    h("div", { class: "body" }, refused,
      h("p", {}, `Decides every request in shadow${found.since ? `, for ${span(now - found.since)} now` : ""}; no answer depends on it. ${count(compared, "request")} compared.`),
      h("div", { class: "tiles facts" }, fact(results.same, "the same"), fact(results.newly_denied, "newly denied", "fails-text"), fact(results.newly_allowed, "newly allowed", "warns-text"),
        fact(results.other_status, "other status"), fact(results.other_rule, "other rule only"), fact(results.undecided + results.failed, results.failed ? `undecided, ${number(results.failed)} failed` : "undecided"), fact(...cost(found)))),
    found.differences.length ? differences(found, now) : compared ? h("p", { class: "muted pad-x" }, "No difference so far.") : null,
    h("details", { class: "pad-x" }, h("summary", {}, "Commands: compare all requests, put it in force, forget it"),
      ["diff", "promote", "abort"].map((name) => copyable(found.commands[name], `${name} command`))));
}

function cost(found) {
  if (!found.timed) return ["–", "its time"];
  const each = (found.own_seconds / found.timed) * 1e6;
  return [`${each.toFixed(0)} µs`, `for a request: ${Math.round((100 * found.own_seconds) / found.check_seconds)} % of the check's own time`];
}

function differences(found, now) {
  const rule = (one) => (one ? [mono(ruleName(one)), h("div", { class: "muted small mono" }, place(one) ?? "")] : h("span", { class: "muted" }, "no rule"));
  const heads = ["Difference", "Workload", "Decides now", "Would decide", "Requests", "Last", "Examples"];
  return h("div", { class: "scroll", role: "region", "aria-label": "Differences of the candidate", tabindex: "0" }, h("table", { class: "stacked" },
    h("thead", {}, h("tr", {}, heads.map((title) => h("th", { scope: "col", class: title === "Requests" ? "num" : null }, title)))),
    h("tbody", {}, found.differences.map((one) => {
      const [kind, words] = RESULTS[one.result];
      return h("tr", {}, h("td", {}, chip(kind, words)), h("td", { "data-label": "Workload" }, h("span", { class: "muted" }, `${one.namespace}/`), one.workload || "?"),
        h("td", { "data-label": "Decides now" }, rule(one.rule)), h("td", { "data-label": "Would decide" }, rule(one.candidate_rule)),
        h("td", { class: "num", "data-label": "Requests" }, one.count.toLocaleString("en")), h("td", { class: "nowrap", "data-label": "Last" }, ago(one.last_at, now)),
        h("td", { "data-label": "Examples" }, one.decisions.map((id, index) => [index ? " " : "", h("a", { class: "mono", href: `#/decisions/${encodeURIComponent(id)}`, "aria-label": `Decision ${id}` }, `…${id.slice(-6)}`)])));
    }))), found.uncounted ? h("p", { class: "muted pad-x" }, `${count(found.uncounted, "request")} more differ in other ways.`) : null);
}
