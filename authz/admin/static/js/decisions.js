// The live list of decisions.

import { follow, get } from "./api.js";
import { announce, chip, glyph, h } from "./dom.js";
import { asked, clock, failure, target, who } from "./text.js";

const MAX_ROWS = 300;
const WORDS = { allow: "Allowed", deny: "Denied" };

export function decisionsView(main, query) {
  const rows = []; // newest first
  let paused = false;
  let waiting = [];
  let quietUntil = 0;
  let untold = { all: 0, denied: 0 };

  const effect = h("select", { "aria-label": "Show which decisions" },
    h("option", { value: "" }, "All decisions"), h("option", { value: "deny" }, "Denied"), h("option", { value: "allow" }, "Allowed"),
    h("option", { value: "dry" }, "Would be denied (dry run)"), h("option", { value: "audit" }, "Audited"));
  effect.value = query.get("effect") ?? "";
  const search = h("input", { type: "search", placeholder: "Workload, caller, path, rule or id", "aria-label": "Search decisions", value: query.get("q") ?? "" });
  const pause = h("button", { class: "button", type: "button", "aria-pressed": "false" });
  const live = h("span", { class: "chip" }, "connecting");
  const list = h("ul", { class: "rows", id: "rows" });
  const empty = h("div", { class: "empty" }, "Loading…");

  const matches = (row) => {
    if (effect.value === "dry" ? row.would_deny !== true : effect.value === "audit" ? row.audit !== true : effect.value && row.effect !== effect.value) return false;
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return true;
    const text = [row.decision_id, row.source?.principal, row.token?.subject, target(row), row.destination?.namespace, asked(row), row.rule?.name, row.nearest?.rule, row.reason, row.trace_id, row.x_request_id].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  };

  const render = () => {
    const shown = rows.filter(matches).slice(0, MAX_ROWS);
    list.replaceChildren(...shown.map((row) => line(row)));
    tellEmpty(shown.length);
  };
  const tellEmpty = (number) => {
    empty.hidden = number > 0;
    if (number) return;
    empty.replaceChildren(rows.length ? "No decision matches." : "No decisions yet. They appear here as Envoy asks.");
  };
  const add = (row) => {
    const older = rows.findIndex((other) => other.time <= row.time);
    const place = older < 0 ? rows.length : older;
    const before = rows.slice(0, place).filter(matches).length;
    rows.splice(place, 0, row);
    if (rows.length > 2 * MAX_ROWS) rows.length = MAX_ROWS;
    if (!matches(row)) return;
    list.insertBefore(line(row, true), list.children[before] ?? null);
    while (list.children.length > MAX_ROWS) list.lastElementChild.remove();
    empty.hidden = true;
    untold.all += 1;
    untold.denied += row.effect === "deny" ? 1 : 0;
    const now = Date.now();
    if (now > quietUntil) {
      quietUntil = now + 4000;
      setTimeout(() => {
        announce(`${untold.all} new ${untold.all === 1 ? "decision" : "decisions"}${untold.denied ? `, ${untold.denied} denied` : ""}`);
        untold = { all: 0, denied: 0 };
      }, 500);
    }
  };
  const tellPause = () => {
    pause.replaceChildren(glyph(paused ? "play" : "pause"), paused ? `Resume${waiting.length ? ` (${waiting.length})` : ""}` : "Pause");
    pause.setAttribute("aria-pressed", String(paused));
  };
  pause.addEventListener("click", () => {
    paused = !paused;
    if (!paused) waiting.splice(0).forEach(add);
    tellPause();
  });
  effect.addEventListener("change", render);
  search.addEventListener("input", render);
  tellPause();

  main.append(h("section", { class: "page", "aria-labelledby": "title" },
    h("div", { class: "head" }, h("h1", { id: "title" }, "Decisions"), live, h("div", { class: "filters" }, search, effect, pause)),
    h("div", { class: "card" },
      h("div", { class: "rows-head", "aria-hidden": "true" }, ["Effect", "Time", "Who asked whom", "Request", "Why"].map((name) => h("span", {}, name))),
      list, empty)));

  let stop = () => {};
  let left = false;
  get("/api/decisions?limit=300").then((found) => {
    if (left) return;
    rows.push(...found.decisions);
    render();
    stop = follow(found.cursor, (row) => {
      if (paused) {
        waiting.push(row);
        waiting = waiting.slice(-MAX_ROWS);
        tellPause();
      } else add(row);
    }, (word) => {
      live.className = `chip ${word === "live" ? "allow" : "deny"}`;
      live.textContent = word === "live" ? "live" : "not connected";
    });
  }).catch((error) => empty.replaceChildren(`Could not be read: ${error.message}`));
  return () => {
    left = true;
    stop();
  };
}

/** Why, in one line: the field that failed in the rule that came closest, or the reason. */
function why(row) {
  const failed = row.nearest?.failed?.[0];
  if (failed) return ["closest ", h("b", {}, row.nearest.rule), ": ", failure(failed)];
  if (row.effect === "allow" && row.would_deny) return [h("b", {}, "dry run: would be denied"), row.by ? ` by ${row.by}` : ""];
  return [row.reason];
}

function line(row, fresh = false) {
  return h("li", {}, h("a", { class: `row${fresh ? " fresh" : ""}`, href: `#/decisions/${encodeURIComponent(row.decision_id)}` },
    h("span", { class: "effect" }, chip(row.effect, WORDS[row.effect])),
    h("time", { datetime: row.time }, clock(row.time)),
    h("span", { class: "who" }, h("span", {}, who(row)), h("span", { class: "arrow", "aria-hidden": "true" }, "→"), h("span", { class: "sr" }, " to "), h("b", {}, target(row))),
    h("span", { class: "what mono", title: asked(row) }, asked(row)),
    h("span", { class: "why" }, why(row))));
}
