// Where nodes stand: dagre ranks callers before those they call; versions of one app stand together in its box.

import * as dagre from "../vendor/dagre.esm.js";

export const WIDE = { direction: "LR", width: 152, height: 58, gap: 30, header: 32, pad: 12, rank: 26, node: 64, label: 92, broad: 78, tall: 44 };
export const NARROW = { direction: "TB", width: 160, height: 52, gap: 10, header: 28, pad: 8, rank: 14, node: 24, label: 60, broad: 108, tall: 24 };

const CROWD = 16; // nodes beyond which they move together

/**
 * Place the elements of the service's graph.
 *
 * Answers `positions` by id (centres and sizes), and `via(edge)`: the points by which an edge gets around what stands
 * between its ends. The same graph is always placed the same.
 */
export function place(nodes, edges, form) {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const children = new Map();
  for (const node of nodes) if (node.parent) children.set(node.parent, [...(children.get(node.parent) ?? []), node.id]);
  const top = (id) => byId.get(id)?.parent ?? id;
  const graph = new dagre.Graph({ multigraph: false });
  graph.setGraph({ rankdir: form.direction, ranksep: form.rank, nodesep: nodes.length > CROWD ? form.node / 2 : form.node, edgesep: 16, marginx: 10, marginy: 10 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const node of [...nodes].sort((a, b) => (a.name + a.id).localeCompare(b.name + b.id))) {
    if (!node.parent) graph.setNode(node.id, size(children.get(node.id)?.length ?? 0, form));
  }
  // What was refused does not say where something belongs, unless nothing else does.
  const placed = new Set(edges.filter((edge) => edge.policy.state !== "denied").flatMap((edge) => [top(edge.source), top(edge.target)]));
  for (const edge of edges) {
    const [from, to] = [top(edge.source), top(edge.target)];
    if (from === to || (edge.policy.state === "denied" && placed.has(from) && placed.has(to))) continue;
    graph.setEdge(from, to, { width: form.label, height: form.direction === "LR" ? 40 : 34, labelpos: "c", weight: edge.policy.allowed ? 3 : 1 });
  }
  dagre.layout(graph);
  const positions = new Map();
  for (const id of graph.nodes()) {
    const { x, y, height, width } = graph.node(id);
    const inside = [...(children.get(id) ?? [])].sort((a, b) => byId.get(a).name.localeCompare(byId.get(b).name));
    positions.set(id, { x, y, width, height });
    inside.forEach((child, index) => positions.set(child, {
      x: form.direction === "LR" ? x : x - width / 2 + form.pad + form.width / 2 + index * (form.width + form.gap),
      y: y - height / 2 + form.header + form.height / 2 + (form.direction === "LR" ? index * (form.height + form.gap) : 0),
      width: form.width, height: form.height,
    }));
  }
  const ways = new Map(graph.edges().map(({ v, w }) => [`${v} ${w}`, graph.edge(v, w).points]));
  const usual = Math.min(...[...ways.values()].map((points) => points.length));
  const via = (edge) => {
    const points = ways.get(`${top(edge.source)} ${top(edge.target)}`) ?? [];
    return points.length > usual ? points.slice(1, -1) : [];
  };
  return { positions, via };
}

function size(inside, form) {
  if (!inside) return { width: form.width, height: form.height };
  const [across, along] = form.direction === "LR" ? [1, inside] : [inside, 1];
  return {
    width: across * form.width + (across - 1) * form.gap + 2 * form.pad,
    height: form.header + along * form.height + (along - 1) * form.gap + form.pad,
  };
}

/**
 * The point at a part of the way along a chain of quadratic curves, as cytoscape draws one through its control points.
 */
function along(ends, controls, part) {
  const stops = [ends[0], ...controls.slice(1).map((next, index) => ({ x: (controls[index].x + next.x) / 2, y: (controls[index].y + next.y) / 2 })), ends[1]];
  const piece = Math.min(controls.length - 1, Math.floor(part * controls.length));
  const t = part * controls.length - piece;
  const at = (axis) => (1 - t) ** 2 * stops[piece][axis] + 2 * t * (1 - t) * controls[piece][axis] + t ** 2 * stops[piece + 1][axis];
  return { x: at("x"), y: at("y") };
}

const PARTS = [0.5, 0.7, 0.3, 0.6, 0.4, 0.8, 0.2, 0.88, 0.12];

/**
 * Where the labels of edges stand: on their own curve, near the end where edges that share the other have parted, and
 * where possible neither on a node nor on another label.
 *
 * `lines` are `{id, source, target, ends, controls, state}`; `boxes` what labels must not cover. Answers points by id.
 */
export function labelPlaces(lines, boxes, { broad, tall }) {
  const number = (key, id) => lines.filter((line) => line[key] === id).length;
  const taken = [];
  const places = new Map();
  const covers = (one, other) => Math.max(0, (one.width + other.width) / 2 - Math.abs(one.x - other.x)) * Math.max(0, (one.height + other.height) / 2 - Math.abs(one.y - other.y));
  const isQuiet = ({ state }) => state === "unused" || state === "idle";
  const length = ({ ends: [a, b] }) => Math.hypot(a.x - b.x, a.y - b.y);
  // What says more comes first, and of those the short ones, which have the least choice.
  for (const line of [...lines].sort((a, b) => isQuiet(a) - isQuiet(b) || length(a) - length(b))) {
    const size = isQuiet(line) ? { width: 58, height: 20 } : line.state === "mixed" ? { width: Math.max(broad, 108), height: tall + 12 } : { width: broad, height: tall };
    const [out, into] = [number("source", line.source), number("target", line.target)];
    const first = out > 1 && into < 2 ? 0.7 : into > 1 && out < 2 ? 0.3 : 0.5;
    let best = null;
    for (const part of [first, ...PARTS]) {
      const point = line.controls.length ? along(line.ends, line.controls, part) : { x: line.ends[0].x + (line.ends[1].x - line.ends[0].x) * part, y: line.ends[0].y + (line.ends[1].y - line.ends[0].y) * part };
      const label = { ...point, ...size };
      const covered = [...taken, ...boxes].reduce((sum, other) => sum + covers(label, other), 0);
      if (!best || covered < best.covered) best = { label, covered };
      if (!covered) break;
    }
    taken.push(best.label);
    places.set(line.id, best.label);
  }
  return places;
}

const BEND = 0.45;
const BOW = 64; // how far an edge that does not run forward swings out

/**
 * An edge between two places as cytoscape draws curves: where it leaves and arrives, and control points as distances
 * from the straight line and weights along it. Forward it is an S; else it leaves and arrives on the same side.
 */
export function curve(from, to, form, via = []) {
  const isWide = form.direction === "LR";
  const right = (place) => ({ x: place.x + place.width / 2, y: place.y });
  const left = (place) => ({ x: place.x - place.width / 2, y: place.y });
  const below = (place) => ({ x: place.x, y: place.y + place.height / 2 });
  const above = (place) => ({ x: place.x, y: place.y - place.height / 2 });
  const a = isWide ? right(from) : below(from);
  let b = isWide ? left(to) : above(to);
  let points;
  const runsForward = isWide ? b.x > a.x + 8 : b.y > a.y + 8;
  if (runsForward) {
    const [dx, dy] = [b.x - a.x, b.y - a.y];
    const between = via.filter((point) => (isWide ? point.x > a.x + 8 && point.x < b.x - 8 : point.y > a.y + 8 && point.y < b.y - 8));
    points = between.length ? between : isWide ? [{ x: a.x + dx * BEND, y: a.y }, { x: b.x - dx * BEND, y: b.y }] : [{ x: a.x, y: a.y + dy * BEND }, { x: b.x, y: b.y - dy * BEND }];
  } else {
    b = isWide ? right(to) : below(to);
    const far = (isWide ? Math.max(a.x, b.x) : Math.max(a.y, b.y)) + BOW;
    points = isWide ? [{ x: far, y: a.y }, { x: far, y: b.y }] : [{ x: a.x, y: far }, { x: b.x, y: far }];
  }
  const [dx, dy] = [b.x - a.x, b.y - a.y];
  const length2 = dx * dx + dy * dy;
  if (length2 < 1) return {}; // a loop: cytoscape knows how
  const offsets = points.map(({ x, y }) => [x - a.x, y - a.y]);
  const end = isWide ? ["50% 0%", "-50% 0%"] : ["0% 50%", "0% -50%"];
  return {
    curved: true,
    leaves: end[0],
    arrives: runsForward ? end[1] : end[0],
    weights: offsets.map(([x, y]) => (x * dx + y * dy) / length2),
    distances: offsets.map(([x, y]) => (dx * y - dy * x) / Math.sqrt(length2)),
  };
}
