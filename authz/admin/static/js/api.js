// The service: JSON by GET, and the live stream of decisions.

/** The service gave no answer that can be shown; the head of the page says how it is. */
export class Unanswered extends Error {}
export class Gone extends Unanswered {}

/** Read JSON. Throws Gone for 404, Unanswered otherwise. */
export async function get(path) {
  let answer;
  try {
    answer = await fetch(path, { headers: { accept: "application/json" }, cache: "no-store" });
  } catch {
    throw new Unanswered("the service cannot be reached");
  }
  if (answer.status === 404) throw new Gone("not kept any more");
  if (!answer.ok) throw new Unanswered(`the service answered ${answer.status}`);
  return answer.json();
}

const POLL_MS = 1000;
const MAX_KNOWN = 5000;

/**
 * Follow decisions after a cursor. `told` gets each once, oldest first; `state` "live" or "lost".
 * Where a stream cannot pass, it asks again and again.
 */
export function follow(after, told, state) {
  let last = after;
  let timer = 0;
  let source = new EventSource(`/api/decisions/stream?after=${encodeURIComponent(after)}`);
  let known = new Set();
  const next = (row) => {
    if (known.has(row.decision_id)) return;
    if (known.size > MAX_KNOWN) known = new Set();
    known.add(row.decision_id);
    told(row);
  };
  source.onopen = () => state("live");
  source.onmessage = (event) => next(JSON.parse(event.data));
  source.onerror = () => {
    state("lost");
    if (source.readyState === EventSource.CLOSED && !timer) timer = setTimeout(poll, POLL_MS);
  };
  async function poll() {
    try {
      const found = await get(`/api/decisions?after=${encodeURIComponent(last)}&limit=100`);
      state("live");
      last = found.cursor;
      found.decisions.reverse().forEach(next);
    } catch {
      state("lost");
    }
    if (source) timer = setTimeout(poll, POLL_MS);
  }
  return () => {
    source.close();
    source = null;
    clearTimeout(timer);
  };
}

/** Call `work` now and every `ms`, not while the page is hidden; answers a stop function. */
export function every(ms, work) {
  let timer = 0;
  let stopped = false;
  const run = async () => {
    try {
      if (!document.hidden) await work();
    } catch (error) {
      if (!(error instanceof Unanswered)) throw error;
    } finally {
      if (!stopped) timer = setTimeout(run, ms);
    }
  };
  const seen = () => {
    if (!document.hidden && !stopped) {
      clearTimeout(timer);
      run();
    }
  };
  document.addEventListener("visibilitychange", seen);
  run();
  return () => {
    stopped = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", seen);
  };
}
