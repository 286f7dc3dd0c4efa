// The sidebar's library of saved adaptive LoRAs: look, search, put one on the canvas, delete.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const ROUTE = "/video2lora/loras";
const DRAGGED = "application/x-video2lora-file";
const LOADER = "Video2LoRALoadAdaptiveLoRA";
const HYPERNET_LOADER = "Video2LoRALoadHypernet";
const STYLE = `
.v2l-library { display: flex; flex-direction: column; gap: 8px; height: 100%; padding: 10px; box-sizing: border-box;
  color: var(--fg-color); font-size: 13px; }
.v2l-library input { padding: 7px 9px; border: 1px solid var(--border-color); border-radius: 6px;
  background: var(--comfy-input-bg); color: var(--input-text); }
.v2l-list { overflow-y: auto; display: flex; flex-direction: column; gap: 6px; }
.v2l-card { display: grid; grid-template-columns: 72px 1fr auto; gap: 10px; align-items: center; padding: 6px;
  border: 1px solid var(--border-color); border-radius: 8px; background: var(--comfy-input-bg); cursor: grab; }
.v2l-card:hover, .v2l-card:focus-visible { border-color: #7bc8a4; outline: none; }
.v2l-card img, .v2l-card .v2l-none { width: 72px; height: 72px; object-fit: contain; border-radius: 4px; background: #000; }
.v2l-card .v2l-none { display: grid; place-items: center; color: #888; }
.v2l-text { min-width: 0; }
.v2l-text * { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.v2l-small { color: var(--descrip-text); font-size: 11px; }
.v2l-card button { border: 0; background: none; color: var(--descrip-text); cursor: pointer; padding: 6px; }
.v2l-card button:hover { color: #e66; }`;

// locales/<language>/main.json, video2lora.library
let words = {};
let panel = null;
let saved = [];

function element(tag, className, content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (content !== undefined) made.textContent = content;
  return made;
}

async function load() {
  const list = panel.querySelector(".v2l-list");
  try {
    const answer = await api.fetchApi(ROUTE, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText || answer.status);
    saved = await answer.json();
    show();
  } catch (error) {
    list.replaceChildren(element("div", "v2l-small", `${words.failed} ${error.message}`));
  }
}

function show() {
  const asked = panel.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = saved.filter((lora) => {
    const where = `${lora.name} ${lora.file} ${lora.checkpoint}`.toLowerCase();
    return asked.every((word) => where.includes(word));
  });
  const message = saved.length ? words.none : words.empty;
  const cards = found.length ? found.map(card) : [element("div", "v2l-small", message)];
  panel.querySelector(".v2l-list").replaceChildren(...cards);
}

function card(lora) {
  const made = element("div", "v2l-card");
  made.draggable = true;
  made.tabIndex = 0;
  made.title = `${lora.file}\n${lora.created}\n${words.use}`;
  let picture = element("div", "v2l-none", "–");
  if (lora.preview) {
    picture = element("img");
    const asked = new URLSearchParams({ file: lora.file, changed: lora.modified });
    picture.src = api.apiURL(`${ROUTE}/preview?${asked}`);
    picture.alt = "";
    picture.draggable = false;
  }
  const facts = element("div", "v2l-text");
  const strengths = ["strength", "spatial_strength", "motion_strength"].map(
    (key) => `${words[key]} ${lora.strengths[key] ?? 1}`,
  );
  facts.append(
    element("div", "", lora.name),
    element("div", "v2l-small", lora.checkpoint || `${words.checkpoint} ${lora.fingerprint.slice(0, 12)}`),
    element("div", "v2l-small", strengths.join(" · ")),
    element("div", "v2l-small", lora.file),
  );
  const bin = element("button");
  bin.append(element("i", "pi pi-trash"));
  bin.title = `${words.delete} ${lora.name}`;
  bin.setAttribute("aria-label", bin.title);
  bin.addEventListener("click", (event) => {
    event.stopPropagation();
    remove(lora);
  });
  made.append(picture, facts, bin);
  made.addEventListener("click", () => put(lora, middle()));
  made.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target === made) put(lora, middle());
  });
  made.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData(DRAGGED, lora.file);
    event.dataTransfer.effectAllowed = "copy";
  });
  return made;
}

async function remove(lora) {
  const question = { title: words.delete_question, message: `${lora.name} (${lora.file})`, type: "delete" };
  const dialog = app.extensionManager?.dialog;
  const sure = dialog ? await dialog.confirm(question) : window.confirm(`${question.title}\n${question.message}`);
  if (!sure) return;
  const answer = await api.fetchApi(`${ROUTE}/delete`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ file: lora.file }),
  });
  if (!answer.ok) {
    const { error } = await answer.json().catch(() => ({ error: answer.statusText }));
    app.extensionManager?.toast?.add({ severity: "error", summary: words.not_deleted, detail: error });
  }
  await load();
}

function middle() {
  const box = app.canvas.canvas.getBoundingClientRect();
  return [box.left + box.width / 2, box.top + box.height / 2];
}

// A loader with this file, its hypernet linked where the graph loads the one that predicted it.
function put(lora, place) {
  const graph = app.canvas.graph ?? app.graph;
  const node = LiteGraph.createNode(LOADER);
  const { scale, offset } = app.canvas.ds;
  const box = app.canvas.canvas.getBoundingClientRect();
  node.pos = [(place[0] - box.left) / scale - offset[0], (place[1] - box.top) / scale - offset[1]];
  const widget = node.widgets.find((one) => one.name === "lora_name");
  if (!widget.options.values.includes(lora.file)) widget.options.values = [...widget.options.values, lora.file];
  widget.value = lora.file;
  graph.add(node);
  const fits = (other) =>
    other.comfyClass === HYPERNET_LOADER && String(other.widgets?.[0]?.value).split(/[\\/]/).pop() === lora.checkpoint;
  const source = lora.checkpoint && graph._nodes.find(fits);
  if (source) source.connect(0, node, node.inputs.findIndex((input) => input.name === "hypernet"));
  app.canvas.selectNode?.(node);
  app.canvas.setDirty(true, true);
}

// The page's own handler of drops reads files and graphs; a card is neither, so it is taken before.
function takeDrops() {
  const ours = (event) =>
    event.dataTransfer?.types.includes(DRAGGED) &&
    document.elementsFromPoint(event.clientX, event.clientY).includes(app.canvas.canvas);
  document.addEventListener("dragover", (event) => ours(event) && event.preventDefault(), true);
  document.addEventListener(
    "drop",
    (event) => {
      if (!ours(event)) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      const lora = saved.find((one) => one.file === event.dataTransfer.getData(DRAGGED));
      if (lora) put(lora, [event.clientX, event.clientY]);
    },
    true,
  );
}

function render(container) {
  panel = element("div", "v2l-library");
  const search = element("input");
  search.type = "search";
  search.placeholder = words.search;
  search.addEventListener("input", show);
  panel.append(element("style", "", STYLE), search, element("div", "v2l-list"));
  container.style.height = "100%";
  container.replaceChildren(panel);
  load();
}

app.registerExtension({
  name: "Video2LoRA.Library",
  async setup() {
    const languages = await api.getCustomNodesI18n();
    const language = app.ui.settings.getSettingValue("Comfy.Locale");
    words = { ...languages.en?.video2lora?.library, ...languages[language]?.video2lora?.library };
    app.extensionManager?.registerSidebarTab?.({
      id: "video2lora-library",
      icon: "pi pi-book",
      title: words.title,
      tooltip: words.tooltip,
      type: "custom",
      render,
    });
    takeDrops();
    // A prompt that ran may have saved one.
    api.addEventListener("execution_success", () => panel?.isConnected && load());
  },
});
