// What the pack adds to ComfyUI's page: colours of its two value types, and decimals that survive being looked at.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const COLOURS = { VIDEO2LORA_HYPERNET: "#e0a458", ADAPTIVE_LORA: "#7bc8a4" };
const DECIMALS = 7;

function colourSockets() {
  for (const [type, colour] of Object.entries(COLOURS)) {
    // Nodes 2.0 reads the style sheet, the classic canvas its own tables.
    document.documentElement.style.setProperty(`--color-datatype-${type}`, colour);
    app.canvas.default_connection_color_byType[type] = colour;
    app.canvas.default_connection_color_byTypeOff[type] = colour;
    globalThis.LGraphCanvas.link_type_colors[type] = colour;
  }
}

// The classic canvas gives a new moving picture its place only when the view changes: until then it covers all.
function placePictures() {
  const view = app.canvas.ds;
  for (const delay of [200, 1000]) {
    setTimeout(() => {
      view.offset[0] += 0.01;
      view.onChanged?.(view.scale, view.offset);
      app.canvas.setDirty(true, true);
    }, delay);
  }
}

app.registerExtension({
  name: "Video2LoRA",
  setup() {
    colourSockets();
    api.addEventListener("executed", ({ detail }) => {
      if (detail?.output?.animated?.[0]) placePictures();
    });
  },
  // Loading a palette empties the colours of types that it does not know, so they are given again.
  afterConfigureGraph: colourSockets,
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("Video2LoRA")) return;
    colourSockets();
    for (const widget of node.widgets ?? []) {
      // A rate of 0.0003 would be shown, and written back, as 0.
      if (widget.type === "number" && widget.options?.step2 < 0.001) {
        widget.options.maxFractionDigits = DECIMALS;
        widget.options.precision = Math.max(widget.options.precision ?? 0, DECIMALS);
      }
    }
  },
});
