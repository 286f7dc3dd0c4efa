// Where everything is on the page, in the graph's coordinates, as it is drawn: for test_templates.py.
() => {
  const view = app.canvas.ds;
  const round = (numbers) => numbers.map(Math.round);
  const boxOf = (node) => {
    const element = document.querySelector(`[data-node-id="${node.id}"]`);
    if (!element) return [node.pos[0], node.pos[1] - 30, node.size[0], node.size[1] + 30];
    const { left, top, width, height } = element.getBoundingClientRect();
    const { left: x, top: y } = app.canvas.canvas.getBoundingClientRect();
    return [
      (left - x) / view.scale - view.offset[0],
      (top - y) / view.scale - view.offset[1],
      width / view.scale,
      height / view.scale,
    ];
  };
  const nodes = app.graph._nodes.map((node) => ({ id: node.id, type: node.type, title: node.title, box: boxOf(node) }));
  // A link runs behind a node where its stroke meets the node's border; at its two ends it has to.
  const context = document.createElement("canvas").getContext("2d");
  context.lineWidth = 5;
  const border = ([x, y, width, height]) => {
    const points = [];
    for (let at = 0; at <= width; at += 4) points.push([x + at, y + 1], [x + at, y + height - 1]);
    for (let at = 0; at <= height; at += 4) points.push([x + 1, y + at], [x + width - 1, y + at]);
    return points;
  };
  const strokes = [];
  for (const link of app.graph._links.values()) strokes.push([link, link.path]);
  for (const reroute of app.graph.reroutes.values())
    strokes.push([app.graph._links.get([...reroute.linkIds][0]), reroute.path]);
  const hidden = [];
  for (const node of nodes) {
    const points = border(node.box);
    for (const [link, path] of strokes) {
      if (!path || node.id === link.origin_id || node.id === link.target_id) continue;
      if (points.some(([x, y]) => context.isPointInStroke(path, x, y)))
        hidden.push(`${link.origin_id} to ${link.target_id} behind ${node.title}`);
    }
  }
  return {
    nodes: nodes.map((node) => ({ ...node, box: round(node.box) })),
    groups: app.graph.groups.map((group) => ({ title: group.title, box: round([...group.pos, ...group.size]) })),
    hidden,
    drawn: strokes.filter(([, path]) => path).length,
    scale: view.scale,
    // Titles and labels of our nodes that do not fit; values of lists may be longer than their box.
    cut: nodes
      .filter((node) => node.type.startsWith("Video2LoRA"))
      .flatMap((node) => [...document.querySelectorAll(`[data-node-id="${node.id}"] .truncate`)])
      .filter((text) => !text.closest("button, [role=combobox], [data-pc-name=select]"))
      .filter((text) => text.textContent && text.scrollWidth > text.clientWidth + 1)
      .map((text) => text.textContent),
  };
}
