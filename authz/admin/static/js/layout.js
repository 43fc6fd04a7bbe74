// Where nodes stand: dagre ranks callers before those they call; versions of one app stand together in its box.

import * as dagre from "../vendor/dagre.esm.js";

export const WIDE = { direction: "LR", width: 148, height: 54, gap: 26, header: 30, pad: 12, rank: 34, node: 64, label: 88 };
export const NARROW = { direction: "TB", width: 124, height: 50, gap: 10, header: 26, pad: 8, rank: 40, node: 40, label: 60 };

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
  graph.setGraph({ rankdir: form.direction, ranksep: form.rank, nodesep: form.node, edgesep: 16, marginx: 10, marginy: 10 });
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
  const along = points.map(({ x, y }) => [x - a.x, y - a.y]);
  const end = isWide ? ["50% 0%", "-50% 0%"] : ["0% 50%", "0% -50%"];
  return {
    curved: true,
    leaves: end[0],
    arrives: runsForward ? end[1] : end[0],
    weights: along.map(([x, y]) => (x * dx + y * dy) / length2),
    distances: along.map(([x, y]) => (dx * y - dy * x) / Math.sqrt(length2)),
  };
}
