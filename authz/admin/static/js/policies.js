// What is in force, what was wrong with the last change, and which rules were ever hit.

import { every, get } from "./api.js";
import { boxed, chip, h, mono } from "./dom.js";
import { candidateCard } from "./shadow.js";
import { ago, count, place, span } from "./text.js";

const KINDS = { ALLOW: "allow", DENY: "deny", AUDIT: "accent", CUSTOM: "warn" };

export function policiesView(main) {
  const search = h("input", { type: "search", placeholder: "Name, namespace or value", "aria-label": "Search policies" });
  const never = h("input", { type: "checkbox" });
  const top = h("div", { class: "stack" });
  const shadow = h("div", { class: "stack", hidden: true });
  const list = h("div", { class: "stack" });
  let found = null;
  let told = "";

  const render = () => {
    if (!found) return;
    list.replaceChildren(authorization(found, search.value, never.checked), authentication(found), peers(found));
  };
  search.addEventListener("input", render);
  never.addEventListener("change", render);
  main.append(h("section", { class: "page", "aria-labelledby": "title" },
    h("div", { class: "head" }, h("h1", { id: "title" }, "Policies"), h("div", { class: "filters" }, search, h("label", { class: "check" }, never, "Never hit only"))),
    top, shadow, list));

  return every(2000, async () => {
    const candidate = await get("/api/candidate");
    found = await get("/api/policies");
    const now = Date.now() / 1000;
    top.replaceChildren(tiles(found, now), ...[problems(found)].filter(Boolean));
    if (!shadow.contains(document.activeElement) && !shadow.querySelector("details[open]")) { // whoever reads or copies is not disturbed
      const card = candidateCard(candidate, now);
      shadow.hidden = !card;
      shadow.replaceChildren(...[card].filter(Boolean));
    }
    const text = JSON.stringify(found);
    if (text !== told) {
      told = text;
      render();
    }
  });
}

function tiles(found, now) {
  const tile = (value, name) => h("div", { class: "card tile" }, h("b", {}, value), h("span", {}, name));
  const rules = (found.authorization ?? []).flatMap((policy) => policy.rules);
  const hit = rules.filter((rule) => rule.hits > 0).length;
  return h("div", { class: "tiles" },
    tile(found.policy_version ? mono(found.policy_version) : "none", "version in force"),
    tile(ago(found.loaded_at, now), "loaded"),
    tile(found.reload_ok ? "accepted" : "refused", `last change; ${count(found.reloads.failures, "refusal")} so far`),
    tile(String(Object.values(found.documents ?? {}).reduce((sum, number) => sum + number, 0)), "documents"),
    tile(`${hit} of ${rules.length}`, `rules hit in ${span(now - found.started_at)}`));
}

function problems(found) {
  const serious = found.problems.filter((problem) => problem.severity !== "info");
  if (!serious.length) return null;
  const errors = serious.filter((problem) => problem.severity === "error").length;
  serious.sort((a, b) => (b.severity === "error") - (a.severity === "error")); // stable: places stay in order
  const title = found.reload_ok ? "Remarks" : `The last change was refused: ${count(errors, "problem")}. Version ${found.policy_version ?? "none"} stays in force.`;
  const list = serious.map((problem) => h("div", { class: `problem ${problem.severity}` },
    h("span", { class: "where mono" }, place(problem) ?? ""),
    h("span", {}, problem.path ? [mono(problem.path), ": "] : "", problem.message),
    h("span", { class: "muted small" }, [problem.resource, problem.code, problem.help].filter(Boolean).join(" · "))));
  if (found.reload_ok) return h("details", { class: "card" }, h("summary", { class: "pad-s" }, h("b", {}, `${count(serious.length, "remark")} on the policies in force`)), list);
  return h("div", { class: "card", role: "alert" }, h("h2", { class: "fails-title" }, title), h("div", { class: "gap" }), list);
}

const selector = (labels) => Object.entries(labels).map(([name, value]) => boxed(`${name}=${value}`));

function words(rule) {
  const parts = [];
  const entry = (title, one) => {
    for (const [field, values] of Object.entries(one)) parts.push(h("span", {}, h("span", { class: "key" }, `${title} ${field} `), values.map((value) => boxed(value))));
  };
  rule.from.forEach((one) => entry("from", one));
  rule.to.forEach((one) => entry("to", one));
  for (const one of rule.when) {
    parts.push(h("span", {}, h("span", { class: "key" }, `when ${one.key} `), one.values.map((value) => boxed(value)),
      one.notValues.length ? [h("span", { class: "key" }, " not "), one.notValues.map((value) => boxed(value))] : ""));
  }
  return parts.length ? parts : [h("span", { class: "muted" }, "every request")];
}

function authorization(found, text, neverOnly) {
  const wanted = text.toLowerCase().split(/\s+/).filter(Boolean);
  const most = Math.max(1, ...(found.authorization ?? []).flatMap((policy) => policy.rules.map((rule) => rule.hits)));
  const cards = [];
  for (const policy of found.authorization ?? []) {
    const all = JSON.stringify(policy).toLowerCase();
    const rules = policy.rules.filter((rule) => !neverOnly || rule.hits === 0);
    if (!wanted.every((word) => all.includes(word)) || (neverOnly && !rules.length)) continue;
    cards.push(h("article", { class: "policy" },
      h("h3", {}, chip(KINDS[policy.action] ?? "", policy.action), policy.dry_run ? chip("", "dry run") : null, h("span", {}, h("span", { class: "muted" }, `${policy.namespace}/`), policy.name),
        selector(policy.selector), policy.target_refs.map((ref) => boxed(ref)), policy.provider ? chip("", policy.provider) : null,
        h("span", { class: "muted small mono" }, place(policy) ?? "")),
      policy.rules.length ? h("ol", {}, rules.map((rule) => h("li", { class: rule.hits ? "" : "never" },
        h("span", { class: "muted" }, `#${rule.index}`), h("div", { class: "rule-text" }, words(rule)),
        h("div", { class: "hits" }, rule.hits ? count(rule.hits, "hit") : h("span", { class: "muted" }, "never hit"), h("span", { class: "bar" }, share(rule.hits / most))))))
        : h("p", { class: "muted small" }, "No rules: it matches nothing.")));
  }
  return h("div", { class: "card" }, h("h2", {}, `Authorization (${found.authorization?.length ?? 0})`), h("div", { class: "gap" }),
    cards.length ? cards : h("div", { class: "empty" }, "No policy matches."));
}

function share(part) {
  const bar = h("i", {});
  bar.style.width = `${Math.max(part > 0 ? 3 : 0, Math.round(100 * part))}%`;
  return bar;
}

function authentication(found) {
  if (!found.authentication?.length) return "";
  return h("div", { class: "card" }, h("h2", {}, `Request authentication (${found.authentication.length})`), h("div", { class: "gap" }), found.authentication.map((item) =>
    h("article", { class: "policy" }, h("h3", {}, h("span", {}, h("span", { class: "muted" }, `${item.namespace}/`), item.name), selector(item.selector), h("span", { class: "muted small mono" }, place(item) ?? "")),
      h("ol", {}, item.rules.map((rule, index) => h("li", {}, h("span", { class: "muted" }, `#${index}`),
        h("div", { class: "rule-text" }, h("span", {}, h("span", { class: "key" }, "issuer "), boxed(rule.issuer || "any")),
          rule.audiences.length ? h("span", {}, h("span", { class: "key" }, "audiences "), rule.audiences.map((audience) => boxed(audience))) : null),
        h("span", { class: "hits muted" }, `keys: ${rule.keys}`)))))));
}

function peers(found) {
  if (!found.peers?.length) return "";
  return h("div", { class: "card" }, h("h2", {}, `Peer authentication (${found.peers.length})`), h("div", { class: "gap" }), found.peers.map((item) =>
    h("article", { class: "policy" }, h("h3", {}, chip(item.mode === "STRICT" ? "allow" : "warn", item.mode), h("span", {}, h("span", { class: "muted" }, `${item.namespace}/`), item.name), selector(item.selector),
      Object.entries(item.ports).map(([port, mode]) => boxed(`${port}: ${mode}`)), h("span", { class: "muted small mono" }, place(item) ?? "")))));
}
