// Pictures on nodes: below the style of Load AnimeBG Model what it looks like, and whether it is on
// this computer; on the samples what they show, with a button that puts a loader in their place. And
// the notes of the templates in the page's language. The nodes work the same without.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const LOADER = "AnimeBGLoadModel";
const SAMPLES = {
  AnimeBGSamplePhoto: { picture: "sample-photo", loader: "LoadImage" },
  AnimeBGSampleVideo: { picture: "sample-video", loader: "LoadVideo" },
};
const HEIGHT = 190; // of a picture and its line of text, in pixels
let styles = {}; // label: {picture, download}, as the server says
let texts = {}; // by language, from locales/*/main.json
const shown = new Set(); // redraws each loader on the page

function learn(definition) {
  styles = definition?.input?.required?.style?.[1]?.animebg_styles ?? styles;
  for (const show of shown) show();
}

// The texts in the page's language.
function said() {
  const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
  return texts[language] ?? texts[language.slice(0, 2)] ?? texts.en;
}

// A widget without a value; returns what puts a picture, or none, and a line of text there.
function addPicture(node) {
  const box = document.createElement("div");
  box.className = "animebg-picture";
  box.style.cssText = "display:flex;flex-direction:column;gap:4px;overflow:hidden;min-height:0";
  const image = document.createElement("img");
  image.alt = "";
  image.style.cssText = "width:100%;flex:1;min-height:0;object-fit:contain;border-radius:6px";
  const line = document.createElement("div");
  line.style.cssText = "text-align:center;font:12px sans-serif;opacity:.75";
  box.append(image, line);
  const widget = node.addDOMWidget("animebg_picture", "animebg_picture", box, {
    serialize: false,
    getMinHeight: () => HEIGHT,
    getMaxHeight: () => HEIGHT,
  });
  widget.serialize = false; // so that the values of a saved workflow stay where they are
  return (picture, text) => {
    image.style.display = picture ? "" : "none";
    if (picture) image.src = new URL(`pictures/${picture}.jpg`, import.meta.url).href;
    line.textContent = text;
  };
}

// `after` runs whenever the object's method of that name has run.
function follow(object, name, after) {
  const before = object[name];
  object[name] = function (...values) {
    const result = before?.apply(this, values);
    after();
    return result;
  };
}

function addStyle(node) {
  const style = node.widgets?.find((widget) => widget.name === "style");
  if (!style) return;
  const put = addPicture(node);
  const show = () => {
    const found = styles[style.value];
    const { here, download } = said() ?? { here: "", download: "" };
    const listed = found || style.options?.values?.includes?.(style.value);
    const text = found?.download ? download.replace("#", found.download) : here;
    put(found?.picture, listed ? text : ""); // an old workflow may name what is not there
  };
  follow(style, "callback", show); // another one was chosen
  follow(node, "onConfigure", show); // a workflow was opened
  follow(node, "onRemoved", () => shown.delete(show));
  shown.add(show);
  show();
}

function addSample(node, { picture, loader }) {
  addPicture(node)(picture, "");
  const label = said()?.own[node.comfyClass];
  if (!label) return;
  const button = node.addWidget("button", label, null, () => replace(node, loader), {
    serialize: false,
  });
  button.serialize = false;
}

// Put a node of another kind, with the same outputs in the same order, in a node's place.
function replace(node, kind) {
  const graph = node.graph;
  const other = window.LiteGraph.createNode(kind);
  other.pos = [...node.pos];
  graph.add(other);
  node.outputs.forEach((output, slot) => {
    for (const id of [...(output.links ?? [])]) {
      const link = graph.getLink?.(id) ?? graph.links[id];
      const target = graph.getNodeById(link.target_id);
      if (target) other.connect(slot, target, link.target_slot);
      else graph.outputs[link.target_slot].connect(other.outputs[slot], other); // out of a subgraph
    }
  });
  graph.remove(node);
  // A file is what one wants next.
  other.widgets?.find((widget) => widget.name === "upload")?.callback?.();
}

// The note of a template in the page's language, if nobody has changed it.
function translate(node) {
  const note = node.properties?.animebg_note;
  const known = Object.values(texts).map((one) => one.notes[note]);
  const text = said()?.notes[note];
  if (!text || !known.includes(node.widgets_values?.[0])) return;
  node.widgets_values = [text];
  node.title = said().title;
}

app.registerExtension({
  name: "animebg.pictures",
  async init() {
    const answer = await api.fetchApi("/i18n");
    const all = Object.entries(await answer.json());
    texts = Object.fromEntries(all.filter(([, one]) => one.animebg).map(([k, one]) => [k, one.animebg]));
  },
  beforeRegisterNodeDef(type, definition) {
    if (definition.name === LOADER) learn(definition);
  },
  beforeConfigureGraph(graph) {
    graph.nodes?.forEach(translate);
  },
  refreshComboInNodes(definitions) {
    learn(definitions?.[LOADER]);
  },
  nodeCreated(node) {
    if (!node.addDOMWidget) return;
    if (node.comfyClass === LOADER) addStyle(node);
    if (SAMPLES[node.comfyClass]) addSample(node, SAMPLES[node.comfyClass]);
  },
  setup() {
    // A run may have downloaded what was chosen.
    api.addEventListener("execution_success", async () => {
      if (!shown.size) return;
      const answer = await api.fetchApi(`/object_info/${LOADER}`);
      learn((await answer.json())[LOADER]);
    });
  },
});
