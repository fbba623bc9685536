"""Writes captions whose words show where the captioner looked as one self-contained HTML page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from string import Template

from effcap.attention.drawing import NOTE, Sheet
from effcap.display import image_url


def attention_page(sheets: Sequence[Sheet]) -> str:
    """Returns a page of photos with captions; pointing at a word draws its map over the photo.

    The page holds all pictures, contains no scripts and loads nothing. It follows the reader's
    light or dark color scheme, and words can be reached by keyboard.
    """
    most = max(len(sheet.tiles) for sheet in sheets)
    rules = "\n".join(
        f".photo:has(.w{i}:hover) .m{i}, .photo:has(.w{i}:focus) .m{i} {{ opacity: 1; }}"
        for i in range(most)
    )
    figures = "\n".join(_figure(sheet) for sheet in sheets)
    return PAGE.substitute(rules=rules, figures=figures, note=html.escape(NOTE))


def _figure(sheet: Sheet) -> str:
    """Returns the HTML of a photo, its maps and its caption."""
    pictures = [f'<img class="base" src="{image_url(sheet.photo)}" alt="The photo">']
    words = []
    for i, (word, peak, image) in enumerate(sheet.tiles):
        text, address = html.escape(word), image_url(image)
        alt = f'alt="Where the captioner looked for {text}"'
        pictures.append(f'<img class="map m{i}" src="{address}" {alt}>')
        words.append(f'<span class="w w{i}" tabindex="0" title="{peak}">{text}</span>')
    width, height = sheet.photo.size
    return (
        f'<figure class="photo"><div class="stack" style="aspect-ratio: {width} / {height}">'
        f"{''.join(pictures)}</div>"
        f'<figcaption><p class="words" dir="auto">{" ".join(words)}</p>'
        f'<p class="quiet">{html.escape(sheet.description)}</p></figcaption></figure>'
    )


PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Where the captioner looked</title>
<style>
:root { --page: #f6f5f2; --card: #fff; --line: #e2dfd8; --text: #1e1d1a; --quiet: #6b675f;
  --mark: #fbe3b0; }
@media (prefers-color-scheme: dark) {
  :root { --page: #161614; --card: #1f1f1c; --line: #33322d; --text: #ebe9e3; --quiet: #a09b90;
    --mark: #5a4310; }
}
* { box-sizing: border-box; margin: 0; }
body { max-width: 1500px; margin: 0 auto; padding: clamp(1rem, 4vw, 3rem);
  background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
header { margin-bottom: 1.5rem; }
h1 { font-size: 1.6rem; line-height: 1.2; letter-spacing: -.02em; }
.quiet { color: var(--quiet); font-size: .8125rem; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr));
  gap: 1.5rem; align-items: start; }
.photo { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  overflow: hidden; break-inside: avoid; }
.stack { position: relative; max-height: 75vh; margin: 0 auto; }
.stack img { position: absolute; inset: 0; width: 100%; height: 100%; }
.map { opacity: 0; transition: opacity .12s; }
figcaption { padding: .8rem 1.1rem; }
.words { font-size: 1.15rem; margin-bottom: .3rem; }
.w { padding: .1em .15em; border-radius: 5px; cursor: default; }
.w:hover, .w:focus { background: var(--mark); outline: none; }
$rules
</style>
</head>
<body>
<header><h1>Where the captioner looked</h1>
<p class="quiet">Point at a word, or reach it with the Tab key. Colors are relative to the highest
value of each word. $note</p></header>
<main>
$figures
</main>
</body>
</html>
""")
