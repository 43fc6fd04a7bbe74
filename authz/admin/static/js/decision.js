// One decision: what it was, why, every stage, and how to decide it again.

import { Gone, get } from "./api.js";
import { boxed, chip, copyable, facts, glyph, h, mono } from "./dom.js";
import { asked, clock, isCounted, place, ruleName, span, target, who } from "./text.js";

const WORDS = { allow: "Allowed", deny: "Denied" };
const FIRED = { ALLOW: "allow", AUDIT: "accent", CUSTOM: "warn" };
const STAGES = { "peer-authentication": "PeerAuthentication", jwt: "RequestAuthentication", custom: "CUSTOM", deny: "DENY", allow: "ALLOW", default: "ALLOW" };

export function decisionView(main, id) {
  let left = false;
  const page = h("section", { class: "page", "aria-labelledby": "title" }, back(), h("p", { class: "muted" }, "Loading…"));
  main.append(page);
  get(`/api/decisions/${encodeURIComponent(id)}`).then((found) => {
    if (!left) page.replaceChildren(back(), ...render(found));
  }).catch((error) => {
    if (!left) page.replaceChildren(back(), error instanceof Gone ? gone(id) : h("p", { class: "notice deny" }, error.message));
  });
  return () => (left = true);
}

const back = () => h("p", {}, h("a", { href: "#/decisions" }, "← All decisions"));

function gone(id) {
  return h("div", { class: "card" }, h("div", { class: "empty" }, h("h1", { id: "title" }, "Not kept here any more"),
    h("p", {}, "Only the newest decisions are kept in memory. The audit log has them all:"), copyable(`authz audit show ${id}`, "command")));
}

function render(found) {
  const nearest = found.nearest_rule;
  return [
    verdict(found),
    h("div", { class: "two" },
      h("div", { class: "stack" },
        isCounted(found) ? counted(found) : null,
        nearest ? missed(nearest) : null,
        found.explained ? stages(found) : null,
        found.command ? h("div", { class: "card" }, h("h2", {}, "Decide it again"), h("div", { class: "body" },
          h("p", { class: "muted small" }, "The same request against the policies in force, offline. Only headers and claims that policies ask about are told, and no credentials."),
          copyable(found.command, "authz check command"))) : null),
      h("div", { class: "stack" }, ...sides(found))),
  ];
}

function verdict(found) {
  const rule = found.rule;
  const version = found.policy_version_in_force;
  return h("div", { class: `card verdict ${found.effect}` },
    h("h1", { id: "title" }, chip(found.effect, glyph(found.effect === "allow" ? "check" : "cross"), WORDS[found.effect]), found.request?.host ? h("span", { class: "mono" }, `${found.request.method} `, h("span", { class: "muted" }, found.request.host), found.request.path) : mono(asked(found))),
    h("p", { class: "reason" }, who(found), " → ", h("b", {}, target(found)), ": ", found.reason),
    rule ? h("p", {}, "Rule ", mono(ruleName(rule)), place(rule) ? [" at ", mono(place(rule))] : "") : null,
    found.would_deny !== null ? h("p", {}, chip(found.would_deny ? "warn" : "allow", "dry run"), ` would ${found.would_deny ? "be denied" : "be allowed"}${found.by ? ` by ${found.by}` : ""}`) : null,
    found.audit ? h("p", {}, chip("accent", "audited"), found.audit_rule ? ` by ${ruleName(found.audit_rule)}` : "") : null,
    h("p", { class: "muted small" }, `${clock(found.time)} · decision `, mono(found.decision_id), ` · policies `, mono(found.policy_version || "none")),
    version && found.policy_version !== version
      ? h("p", { class: "notice" }, `Decided by policies ${found.policy_version}; explained below with those now in force, ${version}.`) : null,
    found.explained && !found.explained.agrees
      ? h("p", { class: "notice" }, `The policies in force would now answer: ${found.explained.effect}, ${found.explained.reason}. The request is explained as the last stage saw it.`) : null);
}

const values = (list, none) => (list === null ? h("i", {}, "not delivered") : list.length ? list.map((value) => boxed(value || "(empty)")) : h("i", {}, none));

function wanted(predicate) {
  const parts = [];
  if (predicate.expected.length) parts.push(predicate.expected.length > 1 ? "one of " : "", values(predicate.expected));
  if (predicate.excluded.length) parts.push(parts.length ? " and none of " : "none of ", values(predicate.excluded));
  return parts;
}

/** A request that policies had allowed: with the check, who sent it stands in that decision. */
function counted(found) {
  return h("div", { class: "card" }, h("h2", {}, "Rate limit"), h("div", { class: "body" },
    h("p", {}, "The policies allowed this request; a rate limit refused it."),
    found.token || !found.x_request_id ? null : h("p", {}, "Whose token it had is told by the ", h("a", { href: `#/decisions?q=${encodeURIComponent(found.x_request_id)}` }, "decisions of this request"), ".")));
}

/** The rule that came closest, with the fields that failed. */
function missed(note) {
  const failed = note.predicates.filter((predicate) => !predicate.holds);
  const held = note.predicates.length - failed.length;
  return h("div", { class: "card miss", id: "nearest" },
    h("h2", {}, "Nearest miss: ", mono(ruleName(note.rule))),
    h("div", { class: "body" },
      h("p", {}, place(note.rule) ? mono(place(note.rule)) : "", h("span", { class: "muted" }, ` ${failed.length} of ${failed.length + held} fields failed. Had they matched, this rule would have allowed the request.`))),
    h("div", { class: "scroll" }, h("table", { class: "stacked" },
      h("thead", {}, h("tr", {}, ["Field", "Expected", "Actual", "Vouched for by"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, failed.map((predicate) => h("tr", {},
        h("td", {}, mono(predicate.path), predicate.path.endsWith(predicate.key) ? null : h("div", { class: "muted small" }, predicate.key)),
        h("td", { class: "want", "data-label": "Expected" }, wanted(predicate)),
        h("td", { class: "got", "data-label": "Actual" }, values(predicate.actual, "nothing"), predicate.note ? h("div", { class: "muted small" }, predicate.note) : null),
        h("td", { class: "muted", "data-label": "Vouched for by" }, predicate.vouched_by)))))));
}

function stages(found) {
  const decided = STAGES[found.stage] ?? "";
  const list = h("ol", { class: "stages" });
  for (const stage of found.explained.stages) {
    const isHere = found.explained.agrees && (found.stage === "custom" ? stage.stage.startsWith("CUSTOM") && stage.rules.some((rule) => rule.fired) : stage.stage === decided);
    const kind = !stage.reached ? "unreached" : isHere ? (found.effect === "allow" ? "decided" : "refused") : stage.outcome === "no policy applies" ? "none" : "passed";
    const mark = { unreached: "skip", none: "skip", passed: "check", decided: "check", refused: "cross" }[kind];
    const word = { unreached: "not reached", none: "", passed: "passed", decided: "decided", refused: "refused here" }[kind];
    list.append(h("li", { class: `stage ${kind}` },
      h("span", { class: "mark" }, glyph(mark, "")),
      h("div", { class: "line" }, h("b", {}, stage.stage), h("span", { class: "muted" }, stage.reached ? stage.outcome : "not reached"),
        isHere ? chip(found.effect, word) : null),
      stage.rules.map((note) => ruleNote(note, isHere && (note.fired || stage.rules.length === 1)))));
  }
  return h("div", { class: "card" }, h("h2", {}, "Stages"), list);
}

function ruleNote(note, isOpen) {
  const failed = note.predicates.filter((predicate) => !predicate.holds).length;
  return h("details", { class: "rule-note", open: isOpen },
    h("summary", {}, mono(ruleName(note.rule)), " ", chip(note.fired ? FIRED[note.action] ?? "deny" : "", note.fired ? "matched" : failed ? `${failed} failed` : "matches nothing"),
      " ", place(note.rule) ? h("span", { class: "muted small mono" }, place(note.rule)) : ""),
    note.predicates.length ? h("div", { class: "scroll" }, h("table", { class: "stacked" },
      h("thead", {}, h("tr", {}, ["Field", "", "Expected", "Actual"].map((name) => h("th", { scope: "col" }, name || h("span", { class: "sr" }, "Holds"))))),
      h("tbody", {}, note.predicates.map((predicate) => h("tr", {},
        h("td", {}, mono(predicate.path), predicate.path.startsWith("when") ? h("div", { class: "muted" }, predicate.key) : null),
        h("td", { class: predicate.holds ? "holds" : "fails" }, glyph(predicate.holds ? "check" : "cross"), h("span", { class: "sr" }, predicate.holds ? "holds" : "fails")),
        h("td", { "data-label": "Expected" }, wanted(predicate)), h("td", { "data-label": "Actual" }, values(predicate.actual, "nothing"), predicate.note ? h("div", { class: "muted small" }, predicate.note) : null))))))
      : h("p", { class: "muted small" }, "Asks nothing: it matches every request."));
}

function sides(found) {
  const { source, destination, request, token } = found;
  const card = (title, pairs) => h("div", { class: "card" }, h("h2", {}, title), h("div", { class: "body" }, facts(pairs)));
  const labels = Object.entries(found.labels ?? {}).map(([name, value]) => boxed(`${name}=${value}`));
  return [
    card("Caller", [
      ["Identity", source.principal ? mono(source.principal) : "none (plaintext, or no client certificate)"],
      ["mTLS", source.mtls ? chip("allow", glyph("lock"), "yes") : chip("warn", glyph("unlock"), source.mtls === null ? "unknown" : "no")],
      ["Address", source.ip && mono(source.ip)],
      ["Client address", source.remote_ip !== source.ip ? source.remote_ip && mono(source.remote_ip) : null],
      ["TLS server name", found.sni && mono(found.sni)],
    ]),
    card("Workload", [
      ["Name", destination.workload], ["Namespace", destination.namespace], ["Service account", destination.service_account],
      ["Labels", labels.length ? h("span", {}, labels) : null], ["Port", destination.port === null ? null : String(destination.port)],
    ]),
    request ? card("Request", [
      ["Method", request.method], ["Host", mono(request.host)], ["Path", mono(request.path)],
      ["User agent", request.user_agent && mono(request.user_agent)],
      ["Status told", found.status ? String(found.status) : null],
      ["Headers", found.header_names?.length ? h("details", {}, h("summary", {}, `${found.header_names.length} names`), found.header_names.map((name) => boxed(name))) : null],
    ]) : null,
    isCounted(found) && !token ? null : card("Token", token ? [
      ["Issuer", mono(token.issuer)], ["Subject", mono(token.subject)], ["Accepted by", mono(token.rule)], ["Key", token.key_id && mono(token.key_id)],
      ["Digest", token.digest && mono(token.digest)], ["Expires", token.expires_at ? expiry(token.expires_at) : "never"], ["Verified", token.cached ? "before, remembered" : "now"],
    ] : [["Presented", found.authentication.outcome === "rejected" ? `refused: ${found.authentication.reason || "not accepted"}` : "none that a policy asks for"]]),
    found.candidate_result ? card("Candidate", [
      ["Would answer", found.candidate_effect ? chip(found.candidate_effect, found.candidate_effect === "allow" ? "Allowed" : "Denied") : found.candidate_status ? `status ${found.candidate_status}` : "the same, by another rule"],
      ["By", found.candidate_rule ? mono(ruleName(found.candidate_rule)) : "no rule"], ["At", found.candidate_rule && place(found.candidate_rule) && mono(place(found.candidate_rule))],
    ]) : null,
    card("Trace", [
      ["Trace id", found.trace_id ? mono(found.trace_id) : "none"], ["x-request-id", found.x_request_id && mono(found.x_request_id)],
      ["Took", isCounted(found) ? null : `${found.duration_us.toFixed(0)} µs`],
      ...found.timings.map((timing) => [timing.name, `${timing.duration_us.toFixed(0)} µs ${timing.detail}`]),
    ]),
    h("div", { class: "card" }, h("h2", {}, "In the audit log"), h("div", { class: "body" }, copyable(`authz audit show ${found.decision_id}`, "audit command"))),
  ].filter(Boolean);
}

function expiry(text) {
  const at = Date.parse(text);
  if (Number.isNaN(at)) return text;
  const left = (at - Date.now()) / 1000;
  return left > 0 ? `in ${span(left)}` : `${span(-left)} ago`;
}

