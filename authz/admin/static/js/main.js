// The frame: which view is shown, the theme, and the state of the service.

import { every, get } from "./api.js";
import { chip, glyph, h } from "./dom.js";
import { decisionView } from "./decision.js";
import { decisionsView } from "./decisions.js";
import { graphView } from "./graph.js";
import { identityView } from "./identity.js";
import { matrixView } from "./matrix.js";
import { policiesView } from "./policies.js";

const VIEWS = {
  graph: ["Graph", graphView],
  matrix: ["Matrix", matrixView],
  decisions: ["Decisions", decisionsView],
  policies: ["Policies", policiesView],
  identity: ["Identity", identityView],
};
const main = document.getElementById("content");
let leave = () => {};
let isFirst = true;

/** `#/decisions/65a1?effect=deny` as its parts. */
function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, ...rest] = path.split("/");
  return { view: view in VIEWS ? view : "graph", id: rest.length ? decodeURIComponent(rest.join("/")) : "", query: new URLSearchParams(query) };
}

function show() {
  if (!isFirst && location.hash && !location.hash.startsWith("#/")) return; // the skip link
  const { view, id, query } = route();
  leave();
  main.replaceChildren();
  document.title = `${id ? `Decision ${id}` : VIEWS[view][0]} · authz`;
  for (const tab of document.querySelectorAll(".tabs a")) {
    if (tab.dataset.view === view) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  leave = (view === "decisions" && id ? decisionView(main, id) : VIEWS[view][1](main, query)) ?? (() => {});
  scrollTo(0, 0);
  if (!isFirst) main.focus({ preventScroll: true });
  isFirst = false;
}

// --- theme ---

const THEMES = { auto: "auto", light: "sun", dark: "moon" };
const button = document.getElementById("theme");

function stored() {
  try {
    return localStorage.getItem("authz-theme") ?? "auto";
  } catch {
    return "auto"; // storage is switched off
  }
}

function setTheme(name) {
  const theme = name in THEMES ? name : "auto";
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  button.replaceChildren(glyph(THEMES[theme], ""));
  button.title = `Theme: ${theme}`;
  button.setAttribute("aria-label", `Theme: ${theme}. Change it`);
  dispatchEvent(new Event("themechange"));
  return theme;
}

let theme = setTheme(stored());
button.addEventListener("click", () => {
  const names = Object.keys(THEMES);
  theme = setTheme(names[(names.indexOf(theme) + 1) % names.length]);
  try {
    localStorage.setItem("authz-theme", theme);
  } catch {
    // it holds until the page is left
  }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("themechange")));

// --- state of the service ---

const state = document.getElementById("state");
const dot = document.querySelector(".tabs .dot");
let told = "";

function tell(kind, words, title) {
  const text = `${kind}${words.join()}${title}`;
  if (text === told) return; // a status that did not change is not read out again
  told = text;
  const version = words[1] ? h("span", { class: "muted small wide" }, "policies ", h("code", {}, words[1])) : null;
  state.replaceChildren(...[version, chip(kind, words[0])].filter(Boolean));
  state.title = title;
}

every(2500, async () => {
  let found;
  try {
    found = await get("/api/overview");
  } catch {
    tell("deny", ["no answer"], "The service does not answer");
    return;
  }
  dot.hidden = found.reload_ok;
  const causes = found.causes.map((cause) => `${cause.part}: ${cause.message}`).join("\n");
  if (!found.ready) tell("deny", ["not ready", found.policy_version], causes);
  else if (!found.reload_ok) tell("warn", ["change refused", found.policy_version], causes);
  else tell(causes ? "warn" : "allow", [causes ? "attention" : "healthy", found.policy_version], causes || "Everything is well");
});

addEventListener("hashchange", show);
show();
