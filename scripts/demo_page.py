#!/usr/bin/env python3
"""One page of everything the demos told and drew. usage: demo_page.py FOLDER; FOLDER has NAME-c/ and NAME-python/, each with story.txt and
pictures; FOLDER/index.html is written. The page needs no other file and no network.

A story is plain text: "# title", "## part", paragraphs, tables (two spaces in front, two or more between cells; a row of dashes is below
the heads), "> " before what a model said, "picture: FILE: caption" (FILE.svg may have a twin FILE-dark.svg for dark screens).
"""

import base64
import html
import pathlib
import re
import sys

DEMOS = ("nash_suru_moe", "kuantizasyon", "cpu_optimizer", "tam_sistem")
LANGUAGES = {"c": ("en", "English · C"), "python": ("tr", "Türkçe · Python")}
PICTURE = re.compile(r"picture: ([^\s:/]+): (.*)")

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1f26; --faint: #5b6472; --line: #dfe3e8; --panel: #f6f7f9; --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171c; --ink: #e6e8ec; --faint: #9aa3b0; --line: #2c323b; --panel: #1b1f26; --accent: #56b4e9; }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 4rem; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.6 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
header, main { max-width: 76rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 3rem; }
h1 { font-size: 2.2rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.02em; }
.lead { color: var(--faint); max-width: 46rem; margin: 0 0 1.5rem; }
nav { position: sticky; top: 0; z-index: 1; background: var(--paper); border-bottom: 1px solid var(--line); }
nav div { max-width: 76rem; margin: 0 auto; padding: .6rem 1.5rem; display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; align-items: center; }
nav a { color: var(--ink); text-decoration: none; }
nav a:hover, nav a:focus-visible { color: var(--accent); }
nav b { font-weight: 500; }
nav span { margin-left: auto; display: flex; border: 1px solid var(--line); border-radius: .5rem; overflow: hidden; }
nav button { border: 0; padding: .3rem .9rem; background: none; color: var(--faint); font: inherit; font-size: .9rem; cursor: pointer; }
nav button[aria-pressed=true] { background: var(--accent); color: var(--paper); }
article { padding: 2.5rem 0; border-bottom: 1px solid var(--line); }
h2 { font-size: 1.7rem; margin: 0; letter-spacing: -.01em; }
h3 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
article > p { max-width: 46rem; margin: .5rem 0; }
article > .command { color: var(--faint); font: .85rem ui-monospace, "DejaVu Sans Mono", monospace; margin: .2rem 0 0; }
.wide { overflow-x: auto; margin: .8rem 0 1.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { text-align: left; padding: .3rem 1.6rem .3rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
td:last-child, th:last-child { padding-right: 0; }
table.pairs td { white-space: normal; }
td:first-child { color: var(--faint); }
table.pairs td:last-child { font-weight: 600; }
.number { text-align: right; }
th { font-weight: 600; font-size: .85rem; color: var(--faint); }
blockquote { margin: 1rem 0; padding: .8rem 1.2rem; max-width: 46rem; background: var(--panel); border-left: 3px solid var(--accent);
  border-radius: 0 .5rem .5rem 0; white-space: pre-line; }
figure { margin: 1.4rem 0; }
figure img { display: block; width: 100%; height: auto; border: 1px solid var(--line); border-radius: .6rem; }
iframe { display: block; width: 100%; height: 62rem; border: 1px solid var(--line); border-radius: .6rem; background: var(--paper); }
figcaption { color: var(--faint); font-size: .9rem; margin-top: .5rem; }
body[data-show=c] article:not([lang=en]), body[data-show=python] article:not([lang=tr]) { display: none; }
body:not([data-show]) nav span, body[data-show=c] .tr, body[data-show=python] .en { display: none; }
"""

SCRIPT = """
const buttons = document.querySelectorAll('nav button');
function show(which) {
  document.body.dataset.show = which;
  document.documentElement.lang = which === 'c' ? 'en' : 'tr';
  buttons.forEach(b => b.setAttribute('aria-pressed', b.value === which));
  document.querySelectorAll('nav a').forEach(a => a.hash = a.dataset.to + '-' + which);
}
buttons.forEach(b => b.addEventListener('click', () => show(b.value)));
/* Pages within the page become as high as what they show. */
document.querySelectorAll('iframe').forEach(frame => frame.addEventListener('load', () => {
  const inner = frame.contentDocument && frame.contentDocument.querySelector('main');
  if (inner) new ResizeObserver(() => { if (inner.offsetHeight) frame.style.height = inner.offsetHeight + 2 + 'px'; }).observe(inner);
}));
const told = [...buttons].map(b => b.value), asked = location.hash.split('-').pop();
if (told.length > 1) show(told.includes(asked) ? asked : navigator.language.startsWith('tr') ? 'python' : 'c');
"""


def data(path):
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def picture(folder, name, caption):
    path = folder / name
    about = html.escape(caption)
    if not path.is_file():
        body = f"<p>{html.escape(name)}: not there</p>"
    elif path.suffix == ".html":
        page = html.escape(path.read_text(encoding="utf-8"))
        body = f'<iframe title="{about}" srcdoc="{page}"></iframe>'
    else:
        dark = path.with_name(f"{path.stem}-dark.svg")
        source = f'<source media="(prefers-color-scheme: dark)" srcset="{data(dark)}">' if dark.is_file() else ""
        body = f'<picture>{source}<img alt="{about}" src="{data(path)}"></picture>'
    return f"<figure>{body}<figcaption>{about}</figcaption></figure>"


def cells_of(lines):
    """Rows of cells. Where a row of dashes says how wide the columns are, they are cut there; else at two or more spaces."""
    rule = next((ln for ln in lines if re.fullmatch(r"[ -]+", ln)), None)
    if rule is None:
        return None, [re.split(r" {2,}", ln.strip(), maxsplit=1) for ln in lines]
    starts = [m.start() for m in re.finditer(r"-+", rule)]
    rows = [
        [ln[a:b].strip() for a, b in zip(starts, [*starts[1:], None])] for ln in lines if ln is not rule
    ]
    return rows[0], rows[1:]


def table(lines):
    heads, rows = cells_of(lines)
    numbers = [
        all(re.match(r"[-+%]?\d|-$|$", row[k]) for row in rows) for k in range(len(heads or ()))
    ]

    def row(cells, tag):
        marks = [' class="number"' if k < len(numbers) and numbers[k] and k else "" for k in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{m}>{html.escape(c)}</{tag}>" for c, m in zip(cells, marks)) + "</tr>"

    head = f"<thead>{row(heads, 'th')}</thead>" if heads else ""
    kind = "" if heads else ' class="pairs"'
    return f'<div class="wide"><table{kind}>{head}<tbody>{"".join(row(r, "td") for r in rows)}</tbody></table></div>'


def said(lines):
    """What a model said: its bold words are the only markup that is shown."""
    text = html.escape("\n".join(ln[1:].removeprefix(" ") for ln in lines)).strip()
    return "<blockquote>" + re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text) + "</blockquote>"


def block(lines, folder):
    first = lines[0]
    found = PICTURE.fullmatch(first)
    if found:
        return picture(folder, *found.groups())
    if first.startswith("## "):
        return f"<h3>{html.escape(first[3:])}</h3>" + (block(lines[1:], folder) if lines[1:] else "")
    if first.startswith("# "):
        return f"<h2>{html.escape(first[2:])}</h2>"
    if first.startswith("  "):
        return table(lines)
    if first.startswith(">"):
        return said(lines)
    return f"<p>{html.escape(' '.join(lines))}</p>"


def article(folder, demo, language):
    text = (folder / "story.txt").read_text(encoding="utf-8")
    blocks = [b.splitlines() for b in re.split(r"\n{2,}", text.strip("\n")) if b.strip()]
    body = [block(b, folder) for b in blocks]
    source = f"examples/{demo}.{'c' if language == 'c' else 'py'}"
    body.insert(1, f'<p class="command">{source}</p>')
    return f'<article id="{demo}-{language}" lang="{LANGUAGES[language][0]}">{"".join(body)}</article>'


def title_of(folder):
    first = (folder / "story.txt").read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("# ") or folder.name


def page(out):
    there = {
        (demo, language): out / f"{demo}-{language}"
        for demo in DEMOS
        for language in LANGUAGES
        if (out / f"{demo}-{language}" / "story.txt").is_file()
    }
    if not there:
        sys.exit(f"demo_page: {out}: wanted folders like nash_suru_moe-c with a story.txt, found none")
    links = []
    for demo in DEMOS:
        titles = "".join(
            f'<b class="{LANGUAGES[k][0]}">{html.escape(title_of(there[demo, k]))}</b>'
            for k in LANGUAGES
            if (demo, k) in there
        )
        first = next((k for k in LANGUAGES if (demo, k) in there), None)
        if first:
            links.append(f'<a data-to="{demo}" href="#{demo}-{first}">{titles}</a>')
    languages = [k for k in LANGUAGES if any(key[1] == k for key in there)]
    buttons = "".join(f'<button value="{k}" aria-pressed="false">{LANGUAGES[k][1]}</button>' for k in languages)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>DilModeli: the demos</title><style>{STYLE}</style></head><body>
<header><h1>DilModeli</h1>
<p class="lead en" lang="en">Four demos of the Nash-Swarm theorem at work, as they ran on this machine. Every figure was measured in that run.</p>
<p class="lead tr" lang="tr">Nash-Sürü teoremi iş başında: dört gösteri, bu makinede çalıştıkları gibi. Her sayı o koşuda ölçüldü.</p></header>
<nav><div>{"".join(links)}<span>{buttons}</span></div></nav>
<main>{"".join(article(folder, *key) for key, folder in there.items())}</main>
<script>{SCRIPT}</script></body></html>
"""


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    path = out / "index.html"
    path.write_text(page(out), encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
