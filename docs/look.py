"""Pictures of the built site on a wide screen and on a phone, and what sticks out there.

``python docs/look.py`` after ``make docs`` writes ``docs/_build/look/PAGE-WIDTH.png`` and lists
what is cut off: at any width whatever makes the page scroll sideways, at the larger one also tables
and code, which on a phone may scroll in boxes of their own. It needs Chromium or Chrome.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WIDTHS = (1400, 390)
HTML = Path(__file__).parent / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHUNK = 8  # pages per start of the browser

# The page is in a frame, because a window cannot be as narrow as a phone.
FRAME = """<!DOCTYPE html><title>look</title>
<style>body {{ margin: 0 }} iframe {{ border: 0 }}</style>
<iframe src="/{page}" width="{width}" height="{height}"></iframe>"""
MEASURE = """<!DOCTYPE html><title>look</title><pre id="found"></pre><script>
const asked = {asked}, PAGE = ".bd-article-container";
function name(e) {{
  const kind = e.getAttribute("class");
  return e.tagName.toLowerCase() + (kind ? "." + kind.trim().split(/\\s+/).join(".") : "");
}}
function boxed(e) {{
  for (let p = e.parentElement; p; p = p.parentElement) {{
    if (p.matches(PAGE)) return false;
    if (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(p).overflowX)) return true;
  }}
  return false;
}}
function measure(frame) {{
  const doc = frame.contentDocument, root = doc.documentElement, width = root.clientWidth;
  const outside = [], scrolled = [];
  const page = doc.querySelector(PAGE) || root;
  for (const e of page.querySelectorAll("*")) {{
    const box = e.getBoundingClientRect();
    if (box.width && box.right > width + 1 && !boxed(e)) outside.push(name(e));
    const flow = getComputedStyle(e).overflowX;
    const wider = e.clientWidth && e.scrollWidth > e.clientWidth + 1;
    if (wider && ["auto", "scroll", "hidden"].includes(flow))
      scrolled.push([name(e), e.scrollWidth, e.clientWidth]);
  }}
  const wide = Math.max(root.scrollWidth, width + page.scrollWidth - page.clientWidth);
  const images = [...doc.images], broken = images.filter(e => !e.naturalWidth).map(name);
  const sizes = {{height: root.scrollHeight, width: wide, outside, scrolled}};
  return {{...sizes, images: images.length, broken}};
}}
async function all() {{
  const found = [];
  for (const [page, width] of asked) {{
    const frame = document.createElement("iframe");
    frame.width = width; frame.height = 900; frame.src = "/" + page;
    const loaded = new Promise(resolve => frame.onload = resolve);
    document.body.append(frame);
    await loaded;
    await new Promise(resolve => setTimeout(resolve, 200));
    found.push(measure(frame));
    frame.remove();
  }}
  document.getElementById("found").textContent = "BEGIN" + JSON.stringify(found) + "END";
}}
all();
</script>"""


def find_browser() -> str | None:
    """Path of Chromium or Chrome, or None where there is none."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


class _Server(SimpleHTTPRequestHandler):
    """The site, and the frames around its pages."""

    frames: dict[str, str]

    def do_GET(self) -> None:
        if self.path in self.frames:
            content = self.frames[self.path].encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        else:
            super().do_GET()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def _run(browser: str, *options: str, tries: int = 3) -> str:
    """Output of one start of the browser, which on busy machines may hang, and is started again."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={profile}", "--virtual-time-budget=60000", *options]
        # what the pages load from elsewhere is not waited for
        command += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, start_new_session=True, **pipes)
        try:
            out, error = process.communicate(timeout=90)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # it has processes of its own
            process.communicate()
            if tries == 1:
                raise
            return _run(browser, *options, tries=tries - 1)
    if process.returncode:
        raise RuntimeError(f"{browser} ended with {process.returncode}: {error[-2000:]}")
    return out


def look(
    html: Path, pages: list[str], output: Path | None, browser: str, widths: tuple = WIDTHS
) -> dict[tuple[str, int], dict]:
    """Measure pages, and draw them where `output` is given.

    Parameters
    ----------
    html : Path
        The built site.
    pages : list of str
        Their files, relative to `html`.
    output : Path or None
        Where ``PAGE-WIDTH.png`` go.
    browser : str
    widths : tuple of int
        In pixels.

    Returns
    -------
    dict
        By (page, width): ``height`` and ``width`` of the whole page in pixels, ``outside`` the
        elements right of the screen, ``scrolled`` the boxes whose content is wider than they are,
        as (element, width of the content, width of the box), ``images`` the number of images, and
        ``broken`` those of them that are not there.
    """
    asked = [(page, width) for page in pages for width in widths]
    frames = {}
    handler = type("Server", (_Server,), {"frames": frames})
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=os.fspath(html))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    found = {}
    try:
        for start in range(0, len(asked), CHUNK):
            some = asked[start : start + CHUNK]
            frames["/look-measure"] = MEASURE.format(asked=json.dumps(some))
            dom = _run(browser, "--dump-dom", "--window-size=1600,1000", f"{address}/look-measure")
            (text,) = re.findall(r">BEGIN(.*?)END<", dom, flags=re.DOTALL)
            text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
            found |= dict(zip(some, json.loads(text), strict=True))
        for (page, width), measured in found.items() if output else ():
            output.mkdir(parents=True, exist_ok=True)
            height = min(max(measured["height"], 700), 12000)
            frames["/look-page"] = FRAME.format(page=page, width=width, height=height)
            file = output / f"{page.removesuffix('.html').replace('/', '.')}-{width}.png"
            size = f"--window-size={max(width, 500)},{height}"
            _run(browser, f"--screenshot={file}", size, f"{address}/look-page")
    finally:
        server.shutdown()
        server.server_close()
    return found


def main() -> None:
    """Look at the pages that are named, or at all."""
    made = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    made.add_argument("pages", nargs="*", help="such as speed or generated/v1tlearn.Trials")
    made.add_argument("--html", type=Path, default=HTML)
    made.add_argument("--output", type=Path, default=HTML.parent / "look")
    made.add_argument("--measure", action="store_true", help="draw nothing")
    args = made.parse_args()
    browser = find_browser()
    if browser is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is installed")
    pages = [f"{page}.html" for page in args.pages] or sorted(
        path.relative_to(args.html).as_posix()
        for path in args.html.rglob("*.html")
        if not path.is_relative_to(args.html / "_static")
    )
    if missing := [page for page in pages if not (args.html / page).exists()]:
        sys.exit(f"there is no {', no '.join(missing)} in {args.html}")
    found = look(args.html, pages, None if args.measure else args.output, browser)
    bad = 0
    for (page, width), measured in found.items():
        if measured["width"] > width:
            outside = ", ".join(dict.fromkeys(measured["outside"])) or "an unknown element"
            print(f"{page} at {width}: {measured['width']} pixels wide because of {outside}")
        cut = measured["scrolled"] if width == max(WIDTHS) else []
        for element, inner, outer in cut:
            print(f"{page} at {width}: {element} is cut off, {inner} in {outer} pixels")
        bad += measured["width"] > width or bool(cut)
    print(f"{bad} of {len(found)} views are cut off")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
