// Where nodes stand: dagre ranks callers before those they call; versions of one app stand together in its box.

import * as dagre from "../vendor/dagre.esm.js";

export const WIDE = { direction: "LR", width: 152, height: 50, gap: 12, header: 28, pad: 12, rank: 64, node: 34 };
export const NARROW = { direction: "TB", width: 106, height: 46, gap: 10, header: 26, pad: 8, rank: 34, node: 14 };

/**
 * Place the elements of the service's graph.
 *
 * Answers positions by id (centres) and the size of every box by id; the same graph is always placed the same.
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
  for (const edge of edges) {
    const [from, to] = [top(edge.source), top(edge.target)];
    if (from !== to) graph.setEdge(from, to, { width: form.direction === "LR" ? 96 : 40, height: 24, labelpos: "c", weight: edge.policy.allowed ? 3 : 1 });
  }
  dagre.layout(graph);
  const positions = new Map();
  for (const id of graph.nodes()) {
    const { x, y, height, width } = graph.node(id);
    const inside = [...(children.get(id) ?? [])].sort((a, b) => byId.get(a).name.localeCompare(byId.get(b).name));
    positions.set(id, { x, y, width, height });
    inside.forEach((child, index) => positions.set(child, {
      x, y: y - height / 2 + form.header + form.height / 2 + index * (form.height + form.gap), width: form.width, height: form.height,
    }));
  }
  return positions;
}

function size(inside, form) {
  if (!inside) return { width: form.width, height: form.height };
  return { width: form.width + 2 * form.pad, height: form.header + inside * form.height + (inside - 1) * form.gap + form.pad };
}

/** Control points of an S between two places, in cytoscape's terms: distances from the straight line, and weights along it. */
export function curve(from, to, form) {
  const [a, b] = ends(from, to, form);
  const [dx, dy] = [b.x - a.x, b.y - a.y];
  const length2 = dx * dx + dy * dy;
  if (length2 < 1) return null;
  const bend = 0.45;
  const points = form.direction === "LR"
    ? [{ x: a.x + dx * bend, y: a.y }, { x: b.x - dx * bend, y: b.y }]
    : [{ x: a.x, y: a.y + dy * bend }, { x: b.x, y: b.y - dy * bend }];
  const length = Math.sqrt(length2);
  return points.map((point) => {
    const [px, py] = [point.x - a.x, point.y - a.y];
    return { weight: (px * dx + py * dy) / length2, distance: (dx * py - dy * px) / length };
  });
}

/** Where an edge leaves and arrives; null when it does not run forward, so that another way must be drawn. */
function ends(from, to, form) {
  return form.direction === "LR"
    ? [{ x: from.x + from.width / 2, y: from.y }, { x: to.x - to.width / 2, y: to.y }]
    : [{ x: from.x, y: from.y + from.height / 2 }, { x: to.x, y: to.y - to.height / 2 }];
}

export function runsForward(from, to, form) {
  const [a, b] = ends(from, to, form);
  return form.direction === "LR" ? b.x > a.x + 8 : b.y > a.y + 8;
}
