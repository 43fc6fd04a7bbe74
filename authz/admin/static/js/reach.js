// Who may call whom, proved: what is known of it, and one pair in words.

import { Unanswered, every, get } from "./api.js";
import { boxed, chip, copyable, facts, h } from "./dom.js";
import { place } from "./text.js";

/** How an answer is shown: kind of chip, in short, in words. */
export const ANSWERS = {
  yes: ["allow", "yes", "everything may pass"], "with conditions": ["accent", "if", "with conditions"],
  no: ["", "no", "nothing may pass"], "not decided": ["warn", "?", "not decided"],
};
const POLL_MS = 3000;
const SPIFFE = "spiffe://";
let matrix = null;
let answers = new Map(); // by caller and workload, of one version

const cellKey = (identity, workload) => `${identity} ${workload}`;

/** Follow the matrix; `told` gets it each time, with `at(identity, workload)`. Answers a stop function. */
export function followReach(told) {
  return every(POLL_MS, async () => {
    const found = await get("/api/reach");
    if (found.matrix_version !== matrix?.matrix_version) answers = new Map();
    const known = new Map();
    found.workloads.forEach((workload, row) => found.callers.forEach((caller, column) => known.set(cellKey(caller.identity, workload), found.answers[row][column])));
    matrix = { ...found, at: (identity, workload) => known.get(cellKey(identity, workload)) ?? null };
    told(matrix);
  });
}

/** Whether the matrix is whole and of the policies in force. */
export const isProved = (found) => found?.state === "ready";

/** Why there is no matrix of the policies in force, as a sentence; null where there is one. */
export function whyNot(found) {
  if (!found || isProved(found)) return null;
  const older = found.matrix_version && found.matrix_version !== found.policy_version ? ` What is shown is of version ${found.matrix_version}.` : "";
  switch (found.state) {
    case "computing": return (found.pairs && found.done ? `Being proved: ${found.done} of ${found.pairs} pairs.` : "Being proved.") + older;
    case "undescribed": return "Not known: no mesh description (--mesh) says which workloads there are.";
    case "too large": return `Too large to be proved here: ${found.reason}. Ask authz who-can about some workloads (--to).`;
    case "other files": return `Not known: the files are not what is in force; ${found.reason}, and ${found.policy_version} is in force.${older}`;
    default: return `Not known: ${found.reason ?? "it failed"}.${older}`;
  }
}

/** The pairs that an edge stands for, with their answers; those that may pass first. */
export function pairsOf(edge, to) {
  if (!isProved(matrix) || !to?.policy) return [];
  const pairs = edge.policy.principals.flatMap(({ principal }) => {
    const identity = principal ? SPIFFE + principal : "";
    return to.policy.workloads.map((name) => ({ identity, principal, workload: `${to.namespace}/${name}`, answer: matrix.at(identity, `${to.namespace}/${name}`) }));
  }).filter((pair) => pair.answer);
  return pairs.sort((a, b) => (a.answer === "no") - (b.answer === "no"));
}

/** What policy says of a whole edge: an answer, or null where it is not proved. */
export function answerOf(pairs) {
  const found = new Set(pairs.map((pair) => pair.answer));
  if (!found.size) return null;
  if (found.size === 1) return [...found][0];
  return found.has("yes") || found.has("with conditions") ? "with conditions" : "not decided";
}

export const answerChip = (answer) => chip(ANSWERS[answer][0], ANSWERS[answer][2]);

/** An element that tells a pair in the words of the rules, as `authz who-can` does; filled when they have come. */
export function pairWords(identity, workload) {
  const part = h("div", { class: "grants" }, h("p", { class: "muted" }, "Loading…"));
  tell(part, identity, workload);
  return part;
}

async function tell(part, identity, workload) {
  const key = cellKey(identity, workload);
  try {
    if (!answers.has(key)) answers.set(key, await get(`/api/reach/cell?${new URLSearchParams({ caller: identity, workload })}`));
  } catch (error) {
    if (!(error instanceof Unanswered)) throw error;
    part.replaceChildren(h("p", { class: "muted" }, "Not known any more: other policies came into force."));
    return;
  }
  const found = answers.get(key);
  if (found.answer === "not decided") part.replaceChildren(h("p", {}, "Not decided: ", found.not_decided.join("; ") || "the engine does not confirm what was found"));
  else if (!found.grants.length) part.replaceChildren(h("p", {}, "Nothing may pass. That is proved of all requests."));
  else part.replaceChildren(...found.grants.map(grantWords));
}

function grantWords(grant) {
  const { said } = grant;
  const by = grant.rule ? [h("span", {}, said.by.split(" at ")[0]), h("span", { class: "place mono" }, place(grant.rule) ?? "")] : said.by;
  return h("div", { class: "grant" }, h("b", {}, said.who),
    facts([["may", said.may], ["if", said.if], ["but", said.but.length ? said.but.map((one) => h("div", {}, one)) : null], ["over", grant.over.map((one) => h("div", {}, one))], ["by", by], ["example", boxed(grant.request)]]),
    h("details", {}, h("summary", {}, "Command that decides the example"), copyable(grant.command, "authz check command")));
}
