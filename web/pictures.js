// Pictures on two nodes: below the style of Load AnimeBG Model what it looks like, and whether it
// is on this computer; on AnimeBG Sample Photo the photo. The nodes work the same without.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const LOADER = "AnimeBGLoadModel";
const PHOTO = "AnimeBGSamplePhoto";
const HEIGHT = 190; // of a picture and its line of text, in pixels
const TEXTS = {
  en: { here: "on this computer", download: "the first run downloads # MB" },
  ja: { here: "このコンピューターにあります", download: "初回に # MB をダウンロードします" },
  zh: { here: "已在本机", download: "首次运行时下载 # MB" },
};
let styles = {}; // label: {picture, download}, as the server says
const shown = new Set(); // redraws each loader on the page

function learn(definition) {
  styles = definition?.input?.required?.style?.[1]?.animebg_styles ?? styles;
  for (const show of shown) show();
}

function texts() {
  const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
  return TEXTS[language.slice(0, 2)] ?? TEXTS.en;
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
    const { here, download } = texts();
    put(found?.picture, found?.download ? download.replace("#", found.download) : here);
  };
  follow(style, "callback", show); // another one was chosen
  follow(node, "onConfigure", show); // a workflow was opened
  follow(node, "onRemoved", () => shown.delete(show));
  shown.add(show);
  show();
}

app.registerExtension({
  name: "animebg.pictures",
  beforeRegisterNodeDef(type, definition) {
    if (definition.name === LOADER) learn(definition);
  },
  refreshComboInNodes(definitions) {
    learn(definitions?.[LOADER]);
  },
  nodeCreated(node) {
    if (!node.addDOMWidget) return;
    if (node.comfyClass === LOADER) addStyle(node);
    if (node.comfyClass === PHOTO) addPicture(node)("sample-photo", "");
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
