// The fleet: which revision every replica and proxy runs. A page of its own, that a control plane serves.

import { every, get } from "./api.js";
import { chip, h, mono } from "./dom.js";
import { ago, span } from "./text.js";

const MAX_ROWS = 500; // more than anybody reads; the filter finds the rest
const KINDS = { current: "allow", behind: "warn", refusing: "deny", silent: "deny", unknown: "deny", missing: "warn" };
const EXPIRING_SECONDS = 900;
const body = document.getElementById("fleet");
const state = document.getElementById("state");
const search = document.getElementById("search");
const lagging = document.getElementById("lagging");
let found = null;
let told = "";

const word = (one) => chip(KINDS[one.state] ?? "", one.state);
const since = (at) => h("span", { class: "num nowrap" }, at ? span(found.now - at) : "–");
const revision = (one) => (one.revision ? mono(one.revision) : h("span", { class: "muted" }, "unknown"));
const CANDIDATE_KINDS = { "in force": "allow", "in shadow": "allow", refused: "deny", "taken back": "warn", waiting: "warn" };
const refusesCandidate = (one) => one.candidate?.state === "refused" && one.state !== "silent";

function tell(kind, words) {
  if (`${kind}${words}` === told) return; // a status that did not change is not read out again
  told = `${kind}${words}`;
  state.replaceChildren(chip(kind, words));
}

function tile(value, name, title = "") {
  return h("div", { class: "card tile", title }, h("b", {}, value), h("span", {}, name));
}

function table(title, names, rows, empty) {
  return h("div", { class: "card" }, h("h2", {}, title), h("div", { class: "gap" }), rows.length
    ? h("div", { class: "scroll" }, h("table", { class: "stacked" }, h("caption", { class: "sr" }, title),
      h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, index) => h("td", { "data-label": index ? names[index] : null }, cell)))))))
    : h("div", { class: "empty" }, empty));
}

function expiry(at) {
  if (!at) return h("span", { class: "muted" }, "–");
  const left = at - found.now;
  return chip(left <= 0 ? "deny" : left < EXPIRING_SECONDS ? "warn" : "", left > 0 ? `${span(left)} left` : `expired ${span(-left)} ago`);
}

function tiles() {
  const current = (all) => `${all.filter((one) => one.state === "current").length} of ${all.length}`;
  return h("div", { class: "tiles" },
    tile(found.revision || "none", "newest revision"),
    tile(current(found.replicas), "replicas are current"),
    tile(current(found.proxies), "proxies are current"),
    tile(found.skew_seconds ? span(found.skew_seconds) : "none", "skew", "For how long whoever is behind longest has been so"));
}

function candidate(one) {
  if (!one) return null;
  return h("div", {}, chip(CANDIDATE_KINDS[one.state] ?? "", `candidate ${one.number || ""} ${one.state}`.replace("  ", " ")),
    one.reason ? h("div", { class: one.state === "refused" ? "fails-text" : "" }, one.reason) : null);
}

function replicas() {
  const rows = found.replicas.map((one) => [h("b", {}, one.name), one.kind, word(one), revision(one), since(one.since), ago(one.heard_at, found.now),
    h("span", { class: "num" }, one.proxies), expiry(one.certificate_expires),
    [one.problem ? h("span", { class: "fails-text" }, one.problem) : null,
      candidate(one.candidate),
      one.has_wrong_clock ? chip("warn", `clock ${span(Math.abs(one.clock_offset))} ${one.clock_offset > 0 ? "ahead" : "behind"}`) : null]]);
  return table(`Replicas (${rows.length})`, ["Replica", "Kind", "State", "Revision", "For", "Heard", "Proxies", "Certificate", "Attention"], rows,
    "No replica has reported.");
}

function proxies() {
  const wanted = search.value.trim().toLowerCase();
  const matches = (one) => (!lagging.checked || one.state !== "current") &&
    (!wanted || [one.name, one.replica, one.revision, one.state].some((text) => text.toLowerCase().includes(wanted)));
  const shown = found.proxies.filter(matches);
  const rows = shown.slice(0, MAX_ROWS).map((one) => [h("b", { class: "nowrap" }, one.name), word(one),
    [revision(one), one.candidate ? h("div", { class: "muted nowrap" }, `candidate ${one.candidate}`) : null], h("span", { class: "nowrap" }, one.replica || "–"), since(one.since),
    h("span", { class: "nowrap" }, one.acknowledged_at ? ago(one.acknowledged_at, found.now) : "–"), expiry(one.certificate_expires),
    [...one.refusals.map((refused) => h("div", { class: "fails-text" }, `${refused.kind}: ${refused.words}`)),
      ...one.waits.map((line) => h("div", {}, `no answer to ${line}`))]]);
  const more = shown.length > rows.length ? `, the first ${rows.length} of them` : "";
  return table(`Proxies (${shown.length.toLocaleString("en")}${more})`,
    ["Proxy", "State", "Revision", "At", "For", "Last ACK", "Certificate", "Refused"], rows,
    found.proxies.length ? "None is like that." : "The mesh has no proxies.");
}

function show() {
  if (found) body.replaceChildren(tiles(), replicas(), proxies());
}

search.addEventListener("input", show);
lagging.addEventListener("change", show);
every(3000, async () => {
  try {
    found = await get("/fleet/view");
  } catch (error) {
    tell("deny", "no answer");
    throw error;
  }
  const others = [...found.replicas, ...found.proxies].filter((one) => one.state !== "current");
  const refusing = found.replicas.filter(refusesCandidate).length;
  const isBad = refusing || others.some((one) => KINDS[one.state] === "deny");
  const words = [others.length ? `${others.length} not current` : "all current", ...(refusing ? [`${refusing} refusing the candidate`] : [])];
  tell(isBad ? "deny" : others.length ? "warn" : "allow", words.join(", "));
  show();
});
