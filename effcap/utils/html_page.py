"""Self-contained HTML pages, which contain no scripts and load nothing.

They follow the reader's light or dark color scheme and can be printed.
"""

from __future__ import annotations

import html
from pathlib import Path
from string import Template

from effcap.utils.files import write_bytes_atomically


def html_page(title: str, note: str, body: str, style: str = "") -> str:
    """Returns a page.

    Args:
        title: title, as text.
        note: line below the title, as text.
        body: HTML of the page below its header.
        style: CSS to add to that of all pages.
    """
    return PAGE.substitute(
        title=html.escape(title), note=html.escape(note), style=STYLE + style, body=body
    )


def write_html(path: Path, page: str) -> None:
    """Writes a page; missing folders are created.

    An existing file is replaced once the new one is on disk. Surrogates, which come from file names
    that are not UTF-8, are replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(path, page.encode("utf-8", errors="replace"))


STYLE = """\
:root {
  --page: #f6f5f2; --card: #fff; --mat: #eceae5; --line: #e2dfd8;
  --text: #1e1d1a; --quiet: #6b675f; --warn: #a3402a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #161614; --card: #1f1f1c; --mat: #121210; --line: #33322d;
    --text: #ebe9e3; --quiet: #a09b90; --warn: #f0937b;
  }
}
* { box-sizing: border-box; margin: 0; }
body {
  max-width: 1680px; margin: 0 auto; padding: clamp(1rem, 4vw, 3.5rem);
  background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
header { margin-bottom: 2rem; }
h1 { font-size: clamp(1.5rem, 3vw, 2.1rem); line-height: 1.2; letter-spacing: -.02em;
  overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; line-height: 1.2; }
header p { margin-top: .4rem; color: var(--quiet); overflow-wrap: anywhere; }
@media print { body { padding: 0; background: none; } }
"""

PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<header><h1>$title</h1><p>$note</p></header>
<main>
$body
</main>
</body>
</html>
""")
