// Values as people read them.

/** `cluster.local/ns/shop/sa/web` as its account and namespace. */
export function account(principal) {
  const match = /^[^/]+\/ns\/([^/]+)\/sa\/([^/]+)$/.exec(principal ?? "");
  return match ? { namespace: match[1], name: match[2] } : { namespace: "", name: principal || "" };
}

/** Who called: the account of the certificate, else the person of the token, which whoever counts requests is not told. */
export const who = (record) => account(record.source?.principal).name || record.token?.subject || (isCounted(record) ? "somebody" : "no identity");

/** Whether a rate limit refused it, after policies had allowed it. */
export const isCounted = (record) => record.stage === "rate-limit";

export function clock(iso) {
  const at = new Date(iso);
  return Number.isNaN(at.getTime()) ? "" : `${at.toLocaleTimeString("en-GB")}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

/** A stretch of time in at most two units, `2 h 5 min`. */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const at = units.findIndex(([, size]) => whole >= size);
  if (at < 0) return "0 s";
  const [unit, size] = units[at];
  const head = `${Math.floor(whole / size)} ${unit}`;
  if (unit === "d" && whole >= 730 * size) return `${Math.round(whole / 365.25 / size)} years`;
  if (unit === "d" && whole >= 30 * size) return head;
  const next = units[at + 1];
  const rest = next && next[0] !== "s" ? Math.floor((whole % size) / next[1]) : 0;
  return rest ? `${head} ${rest} ${next[0]}` : head;
}

export function ago(at, now) {
  if (!at) return "never";
  const seconds = now - at;
  return seconds < 1.5 ? "just now" : `${span(seconds)} ago`;
}

export function rate(perSecond) {
  if (perSecond >= 10) return `${perSecond.toFixed(0)}/s`;
  if (perSecond >= 0.095) return `${perSecond.toFixed(1)}/s`;
  return perSecond * 60 >= 0.95 ? `${(perSecond * 60).toFixed(0)}/min` : `${(perSecond * 60).toFixed(1)}/min`;
}

export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/** `policies/a.yaml:14`, or null. */
export function place(thing) {
  if (!thing?.file) return null;
  return thing.line ? `${thing.file}:${thing.line}${thing.column ? `:${thing.column}` : ""}` : thing.file;
}

export const ruleName = (rule) => (rule ? `${rule.namespace}/${rule.policy}/${rule.index}` : "");

/** One line about what was asked. */
export function asked(record) {
  const request = record.request;
  if (!request) return `TCP to port ${record.destination?.port ?? "?"}`;
  return `${request.method} ${request.path}`;
}

export const target = (record) => record.destination?.workload || record.destination?.service_account || record.destination?.namespace || "unknown";

/** What failed in one field, `methods: expected GET, got POST`. */
export function failure(one) {
  const wanted = [];
  if (one.expected?.length) wanted.push(one.expected.join(" or "));
  if (one.excluded?.length) wanted.push(`not ${one.excluded.join(" or ")}`);
  const got = one.actual === null ? "not delivered" : one.actual?.length ? `got ${one.actual.join(", ")}` : "got nothing";
  const told = one.note?.startsWith("got ") ? one.note : one.note ? `${got}; ${one.note}` : got;
  return `${fieldName(one.field ?? one.path, one.key)} must be ${wanted.join(", ")}; ${told}`;
}

/** The last part of a field's path, or the condition's key. */
export const fieldName = (path, key) => (path?.startsWith("when") ? key : path?.split(".").pop() ?? key);
