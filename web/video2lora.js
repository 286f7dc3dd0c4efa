// What the pack adds to ComfyUI's page: colours of its two value types, short labels, decimals that survive being
// looked at, and on each node what it has to say of its last run.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const COLOURS = { VIDEO2LORA_HYPERNET: "#e0a458", ADAPTIVE_LORA: "#7bc8a4" };
const DECIMALS = 7;
const [LINE, CHARACTER] = [16, 5.6];
// What the classic canvas takes of a face's height.
const MARGIN = 10;
// A new node is wide enough for its title.
const NARROWEST = 225;
// Pictures in a row: their height, and what lies between them.
const [ROW, GAP] = [200, 4];
// A preview of few pixels is not blown up to the node's width, a tall one not at all.
const larger = ({ naturalWidth: across, naturalHeight: down }) => across * (across < down ? 1 : 2);
// What fits beside a value; a translation of an input's name goes first.
const LABELS = {
  adaptive_lora_name: "LoRA",
  aux_name: "aux file",
  checkpoint_name: "file",
  encoder_rate: "rate",
  end_percent: "end",
  filename_prefix: "save as",
  frame_count: "frames",
  frame_strengths: "by frame",
  frames_fps: "batch fps",
  gradient_checkpointing: "less VRAM",
  hypernet_name: "file",
  longest_side: "size",
  lora_name: "LoRA",
  motion_lora_name: "motion LoRA",
  motion_lora_strength: "its strength",
  motion_module_name: "module",
  motion_strength: "motion",
  refine_seed: "seed",
  spatial_strength: "spatial",
  start_percent: "start",
  targets_per_reference: "targets",
  when_run_exists: "if exists",
};

const isOurs = (type) => String(type).startsWith("Video2LoRA");

function colourSockets() {
  for (const [type, colour] of Object.entries(COLOURS)) {
    // Nodes 2.0 reads the style sheet, the classic canvas its own tables.
    document.documentElement.style.setProperty(`--color-datatype-${type}`, colour);
    app.canvas.default_connection_color_byType[type] = colour;
    app.canvas.default_connection_color_byTypeOff[type] = colour;
    globalThis.LGraphCanvas.link_type_colors[type] = colour;
  }
}

// Nodes 2.0 measures nodes while it fits the view to a new graph, and with two zooms at once puts them beside their
// groups. The view that will fit is set before, so that nothing changes under the measuring.
async function fitBefore(graph) {
  const boxes = (graph.nodes ?? []).map(({ pos, size }) => [pos[0], pos[1] - 30, pos[0] + size[0], pos[1] + size[1]]);
  if (!LiteGraph.vueNodesMode || graph.extra?.ds || !graph.nodes?.some((node) => isOurs(node.type))) return;
  const [left, top] = [0, 1].map((side) => Math.min(...boxes.map((box) => box[side])) - 10);
  const [right, bottom] = [2, 3].map((side) => Math.max(...boxes.map((box) => box[side])) + 10);
  app.canvas.ds.fitToBounds([left, top, right - left, bottom - top]);
  app.canvas.setDirty(true, true);
  for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
}

function shortLabels(node) {
  for (const widget of node.widgets ?? []) {
    const label = LABELS[widget.name];
    if (label && (!widget.label || widget.label === widget.name)) widget.label = label;
  }
}

// What a node returns as "text" and as pictures ("face") stands on the node itself, in both renderings.
function addFace(node) {
  const element = document.createElement("div");
  element.className = "video2lora-face";
  element.style.cssText =
    "overflow:hidden auto;white-space:pre-wrap;overflow-wrap:anywhere;flex-wrap:wrap;min-width:0;font:11px/1.45 sans-serif;color:var(--input-text);user-select:text";
  const margin = () => (element.wanted && !LiteGraph.vueNodesMode ? MARGIN : 0);
  const options = { serialize: false, hideOnZoom: false, getMinHeight: () => (element.wanted ?? 0) + margin() };
  const face = node.addDOMWidget("video2lora_face", "video2lora_face", element, options);
  face.serialize = false;
  return element;
}

function showFace(node, output) {
  if (!output?.text && !output?.face) return;
  // A node that ran for every item of a list says how often, and what came last.
  const texts = [output?.text ?? []].flat();
  const lines = texts.length > 1 ? `× ${texts.length}\n${texts.at(-1)}` : texts.join("");
  const last = texts.length > 1 ? -Math.ceil((output?.face ?? []).length / texts.length) : 0;
  const entries = (output?.face ?? []).slice(last);
  fillFace(
    node,
    entries.map((entry) => api.apiURL(`/view?${new URLSearchParams(entry)}`)),
    lines,
  );
}

// A wide node has several pictures and its text in a row, any other has them below each other.
function fillFace(node, addresses, lines, beside = addresses.length > 1) {
  const element = node.video2loraFace;
  const pictures = addresses.map((address) => {
    const picture = document.createElement("img");
    picture.src = address;
    picture.onload = measure;
    return picture;
  });
  const text = document.createElement("div");
  text.textContent = lines;
  text.style.cssText = `flex:1 1 ${NARROWEST}px;min-width:0;overflow-wrap:anywhere`;
  const textHeight = (width) =>
    lines.split("\n").reduce((sum, line) => sum + Math.ceil((line.length * CHARACTER) / width) * LINE, 0);
  function measure() {
    const width = Math.max(node.size[0] - 20, 100);
    const shapes = pictures.map(({ naturalWidth: across, naturalHeight: down }) => across / (down || 1));
    const left = width - shapes.reduce((sum, shape) => sum + shape * ROW + GAP, 0);
    const row = beside && left > NARROWEST;
    element.style.display = row ? "flex" : "block";
    for (const picture of pictures) {
      picture.style.cssText = row
        ? `height:${ROW}px;margin-right:${GAP}px`
        : `display:block;max-width:100%;width:${larger(picture)}px;margin-bottom:${GAP}px`;
    }
    const heights = pictures.map((picture, index) => GAP + Math.min(width, larger(picture)) / (shapes[index] || 1));
    element.wanted = row
      ? Math.max(ROW, textHeight(left))
      : heights.reduce((sum, part) => sum + part, textHeight(width));
    // The classic canvas gives a widget its new place as the node's size is set.
    const [least, size] = [node.computeSize(), node.size];
    node.setSize([size[0], Math.max(size[1], least[1])]);
    node.setDirtyCanvas?.(true, true);
  }
  element.replaceChildren(...pictures, text);
  mountAgain(node, element);
  measure();
}

// Where a graph in the API's format takes the place of one with the same ids, Nodes 2.0 keeps drawing the faces of the
// nodes that went.
function mountAgain(node, element) {
  if (element.isConnected || node.graph !== app.canvas.graph) return;
  document.querySelector(`[data-node-id="${node.id}"] .video2lora-face`)?.replaceWith(element);
}

// A node of the open graph by the host's id: "1:6" is node 6 in subgraph node 1.
function nodeOf(id) {
  const parts = String(id).split(":");
  const last = parts.pop();
  return parts.reduce((graph, part) => graph?.getNodeById(part)?.subgraph, app.graph)?.getNodeById(last);
}

// Whether a node has the same settings in two prompts, and all that it is made from too.
function sameIn(one, other, id) {
  const [before, now] = [one[id], other[id]];
  if (!before || before.class_type !== now?.class_type) return false;
  const names = Object.keys({ ...before.inputs, ...now.inputs });
  return names.every((name) => {
    const [old, value] = [before.inputs[name], now.inputs[name]];
    if (JSON.stringify(old) !== JSON.stringify(value)) return false;
    return !Array.isArray(value) || !(value[0] in other) || sameIn(one, other, value[0]);
  });
}

// The host does not say again what a node said whose result it kept. An empty face, as after the page was loaded
// again, is filled from the run that made the result, while the host's history has it.
async function showKept({ detail: { nodes, prompt_id: id } }) {
  const empty = nodes.filter((node) => isOurs(nodeOf(node)?.comfyClass) && !nodeOf(node).video2loraFace.hasChildNodes());
  if (!empty.length) return;
  const read = async (route) => (await api.fetchApi(route)).json();
  const { queue_running: running } = await read("/queue");
  const history = await read("/history?max_items=64");
  const [, , prompt] = running.find((item) => item[1] === id) ?? history[id]?.prompt ?? [];
  const runs = Object.values(history).reverse();
  for (const node of prompt ? empty : []) {
    const made = runs.find((run) => run.outputs[node] && sameIn(run.prompt[2], prompt, node));
    if (made && nodeOf(node)?.comfyClass === prompt[node].class_type) nodeOf(node).onExecuted(made.outputs[node]);
  }
}

app.registerExtension({
  name: "Video2LoRA",
  setup() {
    colourSockets();
    api.addEventListener("execution_cached", showKept);
    api.addEventListener("video2lora.face", ({ detail: { node, pictures, text } }) => {
      if (nodeOf(node)?.video2loraFace) fillFace(nodeOf(node), pictures, text, true);
    });
  },
  beforeConfigureGraph: fitBefore,
  // Loading a palette empties the colours of types that it does not know, so they are given again.
  afterConfigureGraph: colourSockets,
  // Another tab's graph, or one opened from the history, comes with what its nodes said.
  onNodeOutputsUpdated(outputs) {
    for (const [id, output] of Object.entries(outputs)) {
      const node = nodeOf(id);
      if (node?.video2loraFace) showFace(node, output);
    }
  },
  nodeCreated(node) {
    if (!isOurs(node.comfyClass)) return;
    colourSockets();
    shortLabels(node);
    for (const widget of node.widgets ?? []) {
      // A rate of 0.0003 would be shown, and written back, as 0.
      if (widget.type === "number" && widget.options?.step2 < 0.001) {
        widget.options.maxFractionDigits = DECIMALS;
        widget.options.precision = Math.max(widget.options.precision ?? 0, DECIMALS);
      }
    }
    if (node.size[0] < NARROWEST) node.setSize([NARROWEST, node.size[1]]);
    node.video2loraFace = addFace(node);
    const executed = node.onExecuted;
    node.onExecuted = function (output) {
      executed?.apply(this, arguments);
      showFace(this, output);
    };
  },
});
