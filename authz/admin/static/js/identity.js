// Certificates by workload, key sets, and who was seen.

import { every, get } from "./api.js";
import { chip, h, mono } from "./dom.js";
import { account, ago, count, span } from "./text.js";

const WARN_PART = 0.25; // of its life: what renews at half of it has failed twice by then
const WARN_SECONDS = 3600; // where the beginning is not known

export function identityView(main) {
  const body = h("div", { class: "stack" });
  main.append(h("section", { class: "page", "aria-labelledby": "title" }, h("div", { class: "head" }, h("h1", { id: "title" }, "Identity")), body));
  return every(5000, async () => {
    const found = await get("/api/identity");
    body.replaceChildren(certificates(found), keySets(found), peers(found));
  });
}

function table(title, names, rows, empty) {
  return h("div", { class: "card" }, h("h2", {}, title), h("div", { class: "gap" }), rows.length
    ? h("div", { class: "scroll" }, h("table", { class: "stacked" }, h("caption", { class: "sr" }, title),
      h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, index) => h("td", { "data-label": index ? names[index] : null }, cell)))))))
    : h("div", { class: "empty" }, empty));
}

function certificates(found) {
  const rows = found.certificates.map((item) => {
    const left = item.not_after - found.now;
    const part = item.not_before ? left / (item.not_after - item.not_before) : null;
    const kind = left <= 0 ? "deny" : (part === null ? left < WARN_SECONDS : part < WARN_PART) ? "warn" : "allow";
    return [h("b", {}, item.workload || item.identity), item.kind, item.identity ? mono(item.identity) : h("span", { class: "muted" }, "not a workload"),
      life(kind, part, left > 0 ? `${span(left)} left` : `expired ${span(-left)} ago`), h("span", { class: "num muted nowrap" }, new Date(item.not_after * 1000).toISOString().slice(0, 16).replace("T", " "))];
  });
  return table(`Certificates (${rows.length})`, ["Workload", "Kind", "Identity", "Time left", "Expires (UTC)"], rows,
    "None known. Name the directory of the mesh's certificates with the setting “certificates”.");
}

/** The time left in words, and as the part of the whole life where that is known. */
function life(kind, part, words) {
  if (part === null) return chip(kind, words);
  const bar = h("i", { class: kind });
  bar.style.width = `${Math.round(100 * Math.min(1, Math.max(0, part)))}%`;
  return h("div", { class: "life" }, chip(kind, words), h("span", { class: "bar" }, bar));
}

function keySets(found) {
  const rows = found.key_sets.map((item) => [mono(item.name), item.keys ? count(item.keys, "key") : chip("deny", "no keys"),
    item.fetched_at ? ago(item.fetched_at, found.now) : "never", item.skipped.length ? h("span", { class: "fails-text" }, item.skipped.join("; ")) : "none", item.error ? h("span", { class: "fails-text" }, item.error) : chip("allow", "well")]);
  return table(`Key sets (${rows.length})`, ["Source", "Keys", "Read", "Not used", "Last error"], rows, "No policy needs keys from the network.");
}

function peers(found) {
  const rows = found.peers.map((item) => {
    const { namespace, name } = account(item.principal);
    return [h("b", {}, name || "no identity"), namespace || "", item.principal ? mono(item.principal) : h("span", { class: "muted" }, "plaintext, or TLS without a client certificate"), ago(item.last_at, found.now)];
  });
  return table(`Callers seen (${rows.length})`, ["Account", "Namespace", "Principal", "Last seen"], rows, "Nobody has called yet.");
}
