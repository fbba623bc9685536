"""The page /docs: the endpoint with examples, made from its OpenAPI description."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

from effcap.tools.docstrings import field_docs, first_sentence
from effcap.tools.serving.caption_service import CaptionService
from effcap.tools.serving.sampler_settings import (
    MAX_PHRASE_CHARACTERS,
    MAX_PHRASES,
    MAX_ROWS,
    MAX_SUPPRESSED,
)
from effcap.tools.serving.serve_options import LIMITS, ServeOptions
from effcap.tools.serving.served_captioners import MAX_PREFIX


def docs_page(openapi: Mapping[str, Any], service: CaptionService) -> str:
    """Returns the page as HTML that loads nothing.

    Args:
        openapi: OpenAPI description of the endpoints.
        service: captions the photos.
    """
    operation = openapi["paths"]["/caption"]["post"]
    body = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    rows = [(name, value_text(schema), described(schema)) for name, schema in body.items()]
    answers = [(name, value_text(schema), described(schema)) for name, schema in answer.items()]
    errors = [
        (status, response["description"])
        for status, response in operation["responses"].items()
        if status != "200"
    ]
    return PAGE.substitute(
        version=html.escape(openapi["info"]["version"]),
        presets=html.escape(", ".join(service.captioners.names)),
        settings=table(rows),
        limits=table(limits(service.options)),
        answer=table(answers),
        errors=table(errors),
    )


def limits(options: ServeOptions) -> list[tuple[str, str, str]]:
    """Returns the limits in force, each with its value and its meaning."""
    docs = field_docs(ServeOptions)
    return [
        (name, f"{getattr(options, name):g}", first_sentence(docs[name])) for name in LIMITS
    ] + [
        ("num_beams, num_captions", f"{MAX_ROWS}", "captions or beams per photo"),
        ("prefix", f"{MAX_PREFIX}", "characters"),
        ("include, exclude", f"{MAX_PHRASES}", f"phrases, {MAX_PHRASE_CHARACTERS} characters"),
        ("suppress_tokens", f"{MAX_SUPPRESSED}", "tokens"),
    ]


def described(schema: Mapping[str, Any]) -> str:
    """Returns the description of a value, with its default."""
    text = schema.get("description", "")
    return f"{text} Default {schema['default']}." if "default" in schema else text


def value_text(schema: Mapping[str, Any]) -> str:
    """Returns the type of a value in words."""
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        items = schema.get("items", {})
        kind = "file" if items.get("format") == "binary" else items.get("type", "value")
        return f"list of {kind}s"
    return schema.get("type", "")


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Returns rows as the body of an HTML table, the first column as code."""
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in others)
        lines.append(f"<tr><th><code>{html.escape(first)}</code></th>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>EffCap: POST /caption</title>
<style>
body { max-width: 62rem; margin: 0 auto; padding: clamp(1rem, 4vw, 3rem);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; letter-spacing: -.02em; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
code, pre { font: .875rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { padding: .9rem 1.1rem; border-radius: 10px; overflow-x: auto;
  background: color-mix(in srgb, currentColor 7%, transparent); }
table { width: 100%; border-collapse: collapse; font-size: .9375rem; }
th, td { padding: .45rem .8rem .45rem 0; text-align: left; vertical-align: top;
  border-top: 1px solid color-mix(in srgb, currentColor 15%, transparent); }
th { font-weight: 400; white-space: nowrap; }
p.quiet { opacity: .7; margin: 0; }
@media (max-width: 40rem) { tr { display: block; padding: .4rem 0;
  border-top: 1px solid color-mix(in srgb, currentColor 15%, transparent); }
  th, td { display: block; border: 0; padding: .1rem 0; } }
</style>
</head>
<body>
<h1>POST /caption</h1>
<p class="quiet">EffCap $version · presets: $presets · <a href="openapi.json">openapi.json</a> ·
<a href="health">health</a> · <a href="./">page</a></p>
<h2>Examples</h2>
<pre>curl -F photos=@dog.jpg <span class="address">http://127.0.0.1:7860</span>/caption
curl -F photos=@dog.jpg -F photos=@cat.png -F sampler=beam -F num_beams=5 -F num_captions=3 \
<span class="address">http://127.0.0.1:7860</span>/caption</pre>
<pre>import base64, json, urllib.request

photo = base64.b64encode(open("dog.jpg", "rb").read()).decode()
body = {"photos": [{"name": "dog.jpg", "data": photo}], "sampler": "nucleus", "seed": 1}
request = urllib.request.Request(
    "<span class="address">http://127.0.0.1:7860</span>/caption",
    json.dumps(body).encode(),
    {"Content-Type": "application/json"},
)
print(json.load(urllib.request.urlopen(request))["captions"])</pre>
<h2>Fields of the request</h2>
<p>A multipart form, or a JSON object with photos in base64. Paths and URLs are never opened.</p>
$settings
<h2>Limits</h2>
$limits
<h2>Answer</h2>
$answer
<h2>Errors</h2>
<p>JSON with <code>error</code>, and <code>photos</code> with the name and the error of each photo
that is wrong.</p>
$errors
<script>for (const span of document.querySelectorAll(".address"))
  span.textContent = location.origin;</script>
</body>
</html>
""")
