"""The page in headless Chromium: a template opens, the nodes are drawn, Queue gives a picture.

    $COMFYUI_PYTHON tests/test_browser.py HOST:PORT OUT_FOLDER [LANGUAGE ...]

is the script that does it, with selenium, against a running server; the test runs it. The pictures
that it takes are for eyes; the test leaves them in $ANIMEBG_SHOTS.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
READY = """
const a = window.app;
return !!(a && a.graph && a.canvas && a.canvas.canvas.width > 300 && window.LiteGraph
  && LiteGraph.registered_node_types['AnimeBGApplyStyle']
  && !document.querySelector('#splash-loader, .p-progressspinner'));"""
NODES = """
return window.app.graph._nodes.map(n => ({
  id: String(n.id), type: n.type, title: n.title, size: [n.size[0], n.size[1]],
  inputs: (n.inputs || []).map(i => i.name), label: n.constructor.title,
  widgets: (n.widgets || []).map(w => [w.name, w.label || w.name, w.value]),
  pictures: document.querySelectorAll(`[data-node-id="${n.id}"] img`).length,
}));"""
TEMPLATES = "window.app.extensionManager.command.execute('Comfy.BrowseTemplates');"
PACK = """
const found = [...document.querySelectorAll('span')].find(e => e.textContent.trim() == 'animebg');
if (found) found.click();
return !!found;"""
CARD = """
const found = document.querySelector('[data-testid="template-workflow-photo-to-anime"]');
if (found) (found.querySelector('img') || found).click();
return !!found;"""
OPEN = """
return window.app.graph._nodes.some(n => n.type == 'AnimeBGApplyStyle');"""


def test_the_page(tmp_path):
    import comfy_host
    import pytest

    folders = comfy_host.folders()
    if not (folders and CHROMIUM and DRIVER):
        pytest.skip("needs COMFYUI_DIRS, chromium and chromedriver")
    if subprocess.run([comfy_host.python(), "-c", "import selenium"]).returncode:
        pytest.skip("needs selenium beside the host")
    host = comfy_host.Host(folders[0], tmp_path / "base", HF_HUB_OFFLINE="1")
    try:
        shutil.copyfile(folders[0] / "input/example.png", host.base / "input/example.png")
        out = os.environ.get("ANIMEBG_SHOTS", str(tmp_path))
        script = [comfy_host.python(), __file__, host.server, out, "ja"]
        result = subprocess.run(script, capture_output=True, text=True, timeout=500)
        assert result.returncode == 0, result.stdout + result.stderr
        seen = json.loads(result.stdout.splitlines()[-1])
    finally:
        host.stop()

    assert "photo-to-anime" in seen["templates"]["animebg"]
    nodes = {node["type"]: node for node in seen["nodes"]}
    load, apply = nodes["AnimeBGLoadModel"], nodes["AnimeBGApplyStyle"]
    assert [w[0] for w in load["widgets"]] == ["style", "precision"]
    assert load["widgets"][0][2] == "Makoto Shinkai (Lite)"
    assert [w[0] for w in apply["widgets"]] == ["strength", "memory_limit_gb"]
    assert {"model", "image", "mask"} <= set(apply["inputs"])
    assert all(node["size"][0] > 100 for node in (load, apply))
    assert nodes["SaveImage"]["pictures"] == 1
    assert seen["help"] > 400  # pixels that the help page's picture has in width
    texts = json.loads((ROOT / "locales/ja/nodeDefs.json").read_text("utf-8"))
    nodes = {node["type"]: node for node in seen["ja"]}
    assert nodes["AnimeBGApplyStyle"]["label"] == texts["AnimeBGApplyStyle"]["display_name"]
    said = texts["AnimeBGLoadModel"]["inputs"]["style"]["name"]
    assert nodes["AnimeBGLoadModel"]["widgets"][0][1] == said
    assert seen["errors"] == []


# --- The script ---


def main(server: str, out: Path, *languages: str) -> dict:
    """Everything that the test looks at, as a dictionary; pictures into `out`."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    url = f"http://{server}"
    options = Options()
    options.binary_location = CHROMIUM
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument("--window-size=1700,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    seen: dict = {"templates": json.load(urllib.request.urlopen(f"{url}/api/workflow_templates"))}
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(120)
    try:
        for language in (*languages, "en"):
            settings = {
                "Comfy.Locale": language,
                "Comfy.TutorialCompleted": True,
                "Comfy.Workflow.Persist": False,
                "Comfy.Workflow.ShowMissingModelsWarning": False,
                "Comfy.VueNodes.Enabled": True,
            }
            body = json.dumps(settings).encode()
            urllib.request.urlopen(
                urllib.request.Request(
                    f"{url}/api/settings", body, {"Content-Type": "application/json"}
                )
            ).read()
            driver.get(url)
            wait(lambda: driver.execute_script(READY), 200)
            time.sleep(2)
            driver.execute_script(TEMPLATES)
            wait(lambda: driver.execute_script(PACK), 60)
            time.sleep(2)
            shot(driver, out / f"{language}-templates.png")
            wait(lambda: driver.execute_script(CARD), 60)
            wait(lambda: driver.execute_script(OPEN), 60)
            time.sleep(3)
            seen["nodes" if language == "en" else language] = driver.execute_script(NODES)
            shot(driver, out / f"{language}.png")
        driver.execute_async_script(
            "const d = arguments[0]; window.app.queuePrompt(0, 1).then(() => d(1));"
        )
        wait(lambda: idle(url), 120)
        wait(lambda: picture_of(driver, "SaveImage"), 20)
        time.sleep(1)
        seen["nodes"] = driver.execute_script(NODES)
        shot(driver, out / "painted.png")
        seen["help"] = help_page(driver, out)
        # Of what the pack serves; the page itself asks for files that a new user does not have.
        seen["errors"] = [
            entry["message"]
            for entry in driver.get_log("browser")
            if entry["level"] == "SEVERE" and "animebg" in entry["message"].lower()
        ]
    finally:
        driver.quit()
    return seen


def help_page(driver, out: Path) -> int:
    """Open the Apply node's help; the width of the picture in it, 0 where there is none."""
    driver.execute_script("""
        const a = window.app, n = a.graph._nodes.find(n => n.type == 'AnimeBGApplyStyle');
        a.canvas.selectNode(n);""")
    time.sleep(1)
    driver.execute_script("""
        const b = document.querySelector('[data-testid="info-button"], .help-button');
        if (b) b.click();""")
    find = """
        const i = document.querySelector('img[src*="strength-and-mask"]');
        return i ? i.naturalWidth : 0;"""
    wait(lambda: driver.execute_script(find), 15, fail=False)
    time.sleep(1)
    shot(driver, out / "help.png")
    return driver.execute_script(find)


def picture_of(driver, kind: str) -> bool:
    return any(n["type"] == kind and n["pictures"] for n in driver.execute_script(NODES))


def idle(url: str) -> bool:
    queue = json.load(urllib.request.urlopen(f"{url}/queue"))
    return not (queue["queue_running"] or queue["queue_pending"])


def wait(true, seconds: float, fail: bool = True) -> None:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            if fail:
                raise TimeoutError
            return
        time.sleep(0.3)


def shot(driver, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    driver.save_screenshot(str(path))


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])))
else:
    import pytest

    pytestmark = pytest.mark.comfy
