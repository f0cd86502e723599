#!/usr/bin/env python3
"""Pages of dil view in a browser: no error on the console, nothing is fetched, no text lies on another one or leaves the window, and the flock
does what its keys and buttons say. Skips where there is no Chromium.

The browser is driven through its debugging pipe (file descriptors 3 and 4, messages end with a zero byte). One script listens from before
the page's own, one acts and returns what it found.
"""
import fcntl
import json
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time

SOURCE = os.environ.get("DIL_SOURCE_DIR", ".")
BINARY = os.environ.get("DIL_BINARY", "")
MODEL = os.path.join(SOURCE, "models/sigircik-moe.gguf")
TRACES = os.path.join(SOURCE, "tests/traces")
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "chrome"]

LISTEN = """
window.found = {errors: [], texts: new Map()};
addEventListener("error", (e) => found.errors.push(String(e.message)));
addEventListener("unhandledrejection", (e) => found.errors.push(String(e.reason)));
for (const kind of ["error", "warn"]) console[kind] = (...all) => found.errors.push(all.join(" "));
for (const name of ["fetch", "XMLHttpRequest", "WebSocket", "EventSource"]) window[name] = () => found.errors.push("called " + name);
/* Text on canvases, forgotten when they are cleared. */
const context = CanvasRenderingContext2D.prototype, clear = context.clearRect, fill = context.fillText;
context.clearRect = function (...all) { found.texts.set(this.canvas, []); return clear.apply(this, all); };
context.fillText = function (text, x, y) {
  const m = this.measureText(text), at = this.getTransform(), k = at.a;
  const box = {text, left: (at.e + k * (x - m.actualBoundingBoxLeft)) / k, right: (at.e + k * (x + m.actualBoundingBoxRight)) / k,
               top: (at.f + k * (y - m.actualBoundingBoxAscent)) / k, bottom: (at.f + k * (y + m.actualBoundingBoxDescent)) / k};
  (found.texts.get(this.canvas) || found.texts.set(this.canvas, []).get(this.canvas)).push(box);
  return fill.apply(this, arguments);
};
"""

ACT = """(async () => {
const overlaps = (list) => {
  const out = [];
  for (let i = 0; i < list.length; i++)
    for (let j = 0; j < i; j++) {
      const [a, b] = [list[i], list[j]];
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1.5 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1.5) out.push(a.text + " | " + b.text);
    }
  return out;
};
const shown = (e) => e.checkVisibility && e.checkVisibility() && !e.closest(".hidden, .tip, option, script, style, .ribbon, svg");
const words = () => {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), out = [];
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    if (!node.textContent.trim() || !shown(node.parentElement)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const r of range.getClientRects()) if (r.width > 1) out.push({text: node.textContent.trim().slice(0, 40), left: r.left, right: r.right, top: r.top + r.height * 0.15, bottom: r.bottom - r.height * 0.15, wide: node.parentElement.closest(".scroll, div:has(> table)")});
  }
  return out;
};
const look = (when) => {
  for (const pair of overlaps(words())) found.errors.push(when + ": text on text: " + pair);
  for (const w of words()) if (!w.wide && (w.left < -1 || w.right > innerWidth + 1)) found.errors.push(when + ": outside of the window: " + w.text);
  for (const [canvas, list] of found.texts) {
    if (!canvas.isConnected || !canvas.clientWidth) continue;
    for (const pair of overlaps(list)) found.errors.push(when + ": text on text on " + (canvas.id || "a chart") + ": " + pair);
    for (const t of list) if (t.left < -1 || t.right > canvas.clientWidth + 1 || t.top < -1 || t.bottom > canvas.clientHeight + 1) found.errors.push(when + ": outside of " + (canvas.id || "a chart") + ": " + t.text);
  }
  if (document.documentElement.scrollWidth > innerWidth) found.errors.push(when + ": wider than the window: " + document.documentElement.scrollWidth);
};
const $ = (id) => document.getElementById(id), wait = (ms) => new Promise((done) => setTimeout(done, ms));
const drawn = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done))));
const press = (key, more) => (document.activeElement || document.body).dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true, ...more}));
const want = (holds, text) => holds || found.errors.push("wanted: " + text);
const act = async () => {
  const at = () => Number($("position").value), still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  await wait(900);
  look("at first");
  want(still ? at() === 0 : at() > 0, still ? "it waits where motion is not wanted" : "it plays by itself");
  press(" ");
  await drawn();
  const paused = at();
  press(" ");
  press(" ");
  await wait(600);
  if (!still) want(at() === paused, "the space bar pauses");
  $("position").value = 0;
  $("position").dispatchEvent(new Event("input"));
  await drawn();
  want(at() === 0, "the slider seeks");
  press("ArrowRight");
  press("ArrowRight", {shiftKey: true});
  await drawn();
  want(at() === 11, "arrows step: " + at());
  look("paused");
  press("End");
  await drawn();
  want(at() === Number($("position").max), "End goes to the end");
  look("at the end");
  const layer = $("layer").value, subtitle = $("subtitle").textContent;
  for (const option of $("layer").options) {
    $("layer").value = option.value;
    $("layer").dispatchEvent(new Event("change"));
    await drawn();
    look("layer " + option.value);
  }
  if ($("layer").options.length > 1) {
    press("[");
    await drawn();
    want($("subtitle").textContent !== "" && Number($("layer").value) === $("layer").options.length - 2, "a bracket changes the layer");
  }
  const theme = document.documentElement.dataset.theme;
  want(theme === THEME, "the theme is " + THEME + ": " + theme);
  $("theme").click();
  await drawn();
  want(document.documentElement.dataset.theme !== theme && ["light", "dark"].includes(theme), "the button changes the theme");
  look("other theme");
  $("sky").focus();
  press("ArrowDown");
  await drawn();
  want(!$("tip").hidden && $("tip").textContent.length > 5, "an arrow on the sky points at a bird");
  const tip = $("tip").getBoundingClientRect(), sky = $("sky").getBoundingClientRect();
  want(tip.left >= sky.left - 1 && tip.right <= sky.right + 1 && tip.top >= sky.top - 1 && tip.bottom <= sky.bottom + 1, "what it tells is on the sky");
  press("Escape");
  await drawn();
  want($("tip").hidden, "Escape lets it go");
  press("Home");
  $("speed").value = "32";
  $("speed").dispatchEvent(new Event("change"));
  $("play").click();
  await wait(500);
  want(at() > 8, "it plays as fast as it says: " + at());
  want([...document.querySelectorAll("button, select, input")].filter(shown).every((e) => (e.getAttribute("aria-label") || e.textContent).trim()), "controls have names");
};
try {
  await ($("controls") && !$("controls").hidden ? act() : (await wait(300), look("at rest")));
} catch (e) {
  found.errors.push("stopped: " + e.stack);
}
return JSON.stringify(found.errors);
})()"""


def dil(*args):
    done = subprocess.run([BINARY, *args], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        print(f"FAIL dil {' '.join(args)}: {done.stderr}")
        sys.exit(1)


class Browser:
    """A Chromium and one tab of it."""

    def __init__(self, path, folder):
        to_read, self.write = os.pipe()
        self.read, to_write = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_read, to_write)]

        def place_ends():
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self.process = subprocess.Popen([path, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={folder}/profile",
                                         "--remote-debugging-pipe", "about:blank"], pass_fds=(3, 4), preexec_fn=place_ends,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for end in (to_read, to_write, *ends):
            os.close(end)
        self.n, self.rest, self.events = 0, b"", []
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=LISTEN)

    def message(self, until):
        while b"\0" not in self.rest:
            if not select.select([self.read], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            got = os.read(self.read, 1 << 20)
            if not got:
                raise TimeoutError("the browser is gone")
            self.rest += got
        one, self.rest = self.rest.split(b"\0", 1)
        return json.loads(one)

    def call(self, method, timeout=60, **params):
        self.n += 1
        sent = {"id": self.n, "method": method, "params": params, **({"sessionId": self.session} if self.session else {})}
        os.write(self.write, json.dumps(sent).encode() + b"\0")
        until = time.monotonic() + timeout
        while True:
            got = self.message(until)
            if got.get("id") == self.n:
                if "error" in got:
                    raise RuntimeError(f"{method}: {got['error']}")
                return got["result"]
            self.events.append(got)

    def visit(self, page, width, height, still, dark, theme):
        """What the page's checks found, and what the browser saw of it."""
        features = [{"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
                    {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=features)
        self.events.clear()
        self.call("Page.navigate", url="file://" + page)
        until = time.monotonic() + 60
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self.message(until))
        result = self.call("Runtime.evaluate", timeout=120, expression=f"const THEME = '{theme}'; " + ACT, awaitPromise=True, returnByValue=True)
        found = json.loads(result["result"]["value"]) if "value" in result["result"] else [str(result)[:600]]
        for e in self.events:
            told = e.get("params", {})
            if e.get("method") == "Network.requestWillBeSent" and not told["request"]["url"].startswith(("file://" + page, "data:")):
                found.append("fetched " + told["request"]["url"])
            elif e.get("method") == "Runtime.exceptionThrown":
                found.append("exception: " + str(told["exceptionDetails"])[:300])
            elif e.get("method") in ("Runtime.consoleAPICalled", "Log.entryAdded"):
                found.append("console: " + str(told)[:300])
        return found

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=30)
        os.close(self.read)
        os.close(self.write)


def write_decision(path):
    """Candidates with long names, some of them near one another, and tasks."""
    rng = random.Random(5)
    names = [f"aday {i}: Iğdır'da çok uzun bir ad" if i % 4 == 0 else f"a{i}" for i in range(18)]
    rows = [[rng.gauss(i % 3, 0.4) for _ in range(6)] for i in range(18)]
    steps = [{"load": [rng.random() * 3 for _ in names], "price": [rng.random() for _ in names], "chosen": rng.sample(range(18), t % 4),
              "target": [rng.gauss(1, 1) for _ in range(6)], "text": f"görev {t}, "} for t in range(40)]
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"title": "Kararların <sürüsü>", "names": names, "positions": rows, "steps": steps,
                   "game": {"phi": [9, 7, 6.5, 6.4], "gap": [2, 1, 0.2, 0]}}, f)


def main():
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if not browser:
        print(f"needs a browser: one of {', '.join(BROWSERS)}")
        return 77
    if not os.path.exists(BINARY) or not os.path.exists(MODEL):
        print(f"needs {BINARY or 'DIL_BINARY'} and {MODEL}")
        return 77
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        page, decision, bare = (os.path.join(folder, name) for name in ("page.html", "decision.json", "bare.json"))
        write_decision(decision)
        with open(bare, "w", encoding="utf-8") as f:
            json.dump({"positions": [[0, 0], [1, 0], [0.4, 1]], "names": ["bir", "iki", "üç"]}, f)
        logs = [os.path.join(TRACES, f"sigircik-{name}.route") for name in ("en", "tr")]
        text = ["-f", os.path.join(TRACES, "held-out-en.txt")]
        cases = [  # name, arguments, size of the window, no motion, dark system
            ("flock, wide", ["flock", MODEL, logs[0], *text], (1320, 1000), False, True),
            ("flock, narrow, Turkish", ["flock", MODEL, logs[1], "--lang", "tr", "--theme", "dark"], (360, 780), False, False),
            ("flock, middle, no motion", ["flock", MODEL, logs[0], "--theme", "light", "--frames", "60"], (900, 900), True, True),
            ("decision, Turkish", ["flock", decision, "--lang", "tr"], (1100, 900), False, False),
            ("decision, narrow", ["flock", decision], (420, 900), True, False),
            ("without steps", ["flock", bare], (1000, 800), False, False),
            ("cache", ["cache", *logs], (1280, 900), False, False),
        ]
        chromium = Browser(browser, folder)
        try:
            for name, args, (width, height), still, dark in cases:
                dil("view", *args, "-o", page)
                theme = args[args.index("--theme") + 1] if "--theme" in args else "dark" if dark else "light"
                found = chromium.visit(page, width, height, still, dark, theme)
                print(f"{'FAIL' if found else 'ok  '} {name}")
                for line in found[:12]:
                    print(f"     {line}")
                failed += bool(found)
        finally:
            chromium.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
