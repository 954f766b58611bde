// SPDX-License-Identifier: Apache-2.0
/**
 * Where to draw the services of a dependency graph: callers left, callees right, few crossings. The layered
 * drawing of Sugiyama et al. (1981) in its simplest form: longest paths for layers, barycentres for the
 * order within. Nothing here touches the document.
 */

/** @typedef {{parent: string, child: string, callCount: number}} Dependency */
/** @typedef {{name: string, layer: number, place: number}} Node `place`: 0 is the top of the layer */
/**
 * @typedef {{nodes: Map<string, Node>, layers: string[][], edges: Dependency[], self: Map<string, number>}} Layout
 */

const SWEEPS = 8;

/**
 * @param {Dependency[]} dependencies
 * @returns {Layout}
 */
export function layOut(dependencies) {
  const edges = dependencies.filter((edge) => edge.parent !== edge.child);
  const self = new Map(
    dependencies.filter((edge) => edge.parent === edge.child).map((edge) => [edge.parent, edge.callCount]),
  );
  const names = [...new Set(dependencies.flatMap((edge) => [edge.parent, edge.child]))].sort();
  const forward = withoutRings(names, edges);
  const layerOf = longestPaths(names, forward);
  const layers = Array.from(
    { length: Math.max(0, ...layerOf.values()) + 1 },
    () => /** @type {string[]} */ ([]),
  );
  for (const name of names) layers[layerOf.get(name) ?? 0].push(name);
  order(layers, edges);
  const nodes = new Map();
  layers.forEach((layer, x) => layer.forEach((name, place) => nodes.set(name, { name, layer: x, place })));
  return { nodes, layers: names.length ? layers : [], edges, self };
}

/**
 * The edges without those that lead back to where one came from.
 * @param {string[]} names
 * @param {Dependency[]} edges
 */
function withoutRings(names, edges) {
  const out = Map.groupBy(edges, (edge) => edge.parent);
  const called = new Set(edges.map((edge) => edge.child));
  /** @type {Map<string, "open" | "done">} */
  const state = new Map();
  /** @type {Dependency[]} */
  const kept = [];
  // Entries of the system first, so that it is the way back that is left out.
  for (const start of [...names].sort((a, b) => Number(called.has(a)) - Number(called.has(b)))) {
    if (state.has(start)) continue;
    const stack = [{ name: start, rest: [...(out.get(start) ?? [])] }];
    state.set(start, "open");
    while (stack.length) {
      const top = stack[stack.length - 1];
      const edge = top.rest.pop();
      if (!edge) {
        state.set(top.name, "done");
        stack.pop();
      } else if (state.get(edge.child) !== "open") {
        kept.push(edge);
        if (!state.has(edge.child)) {
          state.set(edge.child, "open");
          stack.push({ name: edge.child, rest: [...(out.get(edge.child) ?? [])] });
        }
      }
    }
  }
  return kept;
}

/** @param {string[]} names @param {Dependency[]} edges without rings */
function longestPaths(names, edges) {
  const waiting = new Map(names.map((name) => [name, 0]));
  for (const edge of edges) waiting.set(edge.child, (waiting.get(edge.child) ?? 0) + 1);
  const out = Map.groupBy(edges, (edge) => edge.parent);
  const layer = new Map(names.map((name) => [name, 0]));
  const ready = names.filter((name) => waiting.get(name) === 0);
  for (let name = ready.pop(); name !== undefined; name = ready.pop()) {
    for (const { child } of out.get(name) ?? []) {
      layer.set(child, Math.max(layer.get(child) ?? 0, (layer.get(name) ?? 0) + 1));
      const left = (waiting.get(child) ?? 0) - 1;
      waiting.set(child, left);
      if (left === 0) ready.push(child);
    }
  }
  return layer;
}

/**
 * Puts each node near the middle of those it is joined to, left to right and back.
 * @param {string[][]} layers
 * @param {Dependency[]} edges
 */
function order(layers, edges) {
  /** @type {Map<string, string[]>} */
  const neighbours = new Map();
  for (const { parent, child } of edges) {
    for (const [a, b] of [
      [parent, child],
      [child, parent],
    ])
      neighbours.set(a, [...(neighbours.get(a) ?? []), b]);
  }
  const place = new Map();
  /** @param {string[]} layer */
  const note = (layer) => layer.forEach((name, i) => place.set(name, (i + 0.5) / layer.length));
  layers.forEach(note);
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    for (const layer of sweep % 2 ? [...layers].reverse() : layers) {
      const middle = new Map(
        layer.map((name) => {
          const places = (neighbours.get(name) ?? []).map((other) => place.get(other));
          return [name, places.length ? places.reduce((a, b) => a + b, 0) / places.length : place.get(name)];
        }),
      );
      layer.sort((a, b) => middle.get(a) - middle.get(b));
      note(layer);
    }
  }
}
