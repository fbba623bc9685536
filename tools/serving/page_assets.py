"""Style sheet and script of the page."""

from __future__ import annotations

CSS = """
.gradio-container { max-width: 1480px !important; margin: 0 auto; }
footer { display: none !important; }
#photos a { pointer-events: none; color: inherit; text-decoration: none; }
.ec-head h1 { margin: .2rem 0 0; font-size: 1.75rem; letter-spacing: -.02em; }
.ec-head p { margin: .15rem 0 .2rem; color: var(--body-text-color-subdued); }
.ec-head a { color: inherit; }
.ec-bar-top { display: flex; align-items: center; gap: .8rem; min-height: 2rem;
  color: var(--body-text-color-subdued); }
.ec-bar-top .ec-message { flex: 1; }
.ec-failed, .ec-bar-top .ec-failed { color: #b42318; }
.dark .ec-failed, .dark .ec-bar-top .ec-failed { color: #fda29b; }
.ec-results { display: flex; flex-direction: column; gap: 1rem; }
.ec-empty { display: grid; place-content: center; gap: .3rem; min-height: 22rem; padding: 2rem;
  text-align: center; color: var(--body-text-color-subdued); border-radius: 14px;
  border: 1px dashed var(--border-color-primary); }
.ec-empty strong { font-size: 1.1rem; color: var(--body-text-color); }
.ec-card { display: grid; grid-template-columns: minmax(0, 19rem) minmax(0, 1fr); gap: 1.25rem;
  padding: 1rem; border-radius: 14px; background: var(--background-fill-primary);
  border: 1px solid var(--border-color-primary); }
.ec-card:has(section + section) { grid-template-columns: minmax(0, 14rem) minmax(0, 1fr); }
.ec-card:has(section + section) .ec-bar { display: none; }
.ec-error { display: flex; flex-direction: column; gap: .2rem; border-left: 4px solid #d92d20; }
.ec-error span { color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
.ec-photo { margin: 0; min-width: 0; }
.ec-frame { position: relative; overflow: hidden; border-radius: 10px; line-height: 0; }
.ec-frame img { width: 100%; height: auto; margin: 0; border-radius: 10px; }
.ec-frame .ec-heat { position: absolute; inset: 0; width: 100%; height: 100%; opacity: 0;
  transition: opacity .15s; pointer-events: none; }
.ec-frame.ec-on .ec-heat { opacity: 1; }
.ec-frame img:first-child { transition: filter .15s; }
.ec-frame.ec-on img:first-child { filter: grayscale(.6) brightness(.75); }
.ec-photo figcaption { margin-top: .45rem; font-size: .75rem; overflow-wrap: anywhere;
  color: var(--body-text-color-subdued); }
.ec-columns { display: grid;
  grid-template-columns: repeat(auto-fit, minmax(min(11.5rem, 100%), 1fr));
  gap: 1.25rem; align-content: start; min-width: 0; }
.ec-columns h3 { margin: 0 0 .5rem; font-size: .75rem; font-weight: 600; overflow-wrap: anywhere;
  color: var(--body-text-color-subdued); }
.ec-caption p { margin: 0; overflow-wrap: anywhere; text-wrap: pretty; }
.ec-best p { font-size: 1.2rem; line-height: 1.45; }
.ec-word { border-radius: 5px; padding: .05em .1em; margin: 0 -.1em; cursor: default;
  transition: background .15s; }
.ec-word.ec-hot { background: #ffb35c; color: #1c1200; }
.ec-meta { display: flex; align-items: center; flex-wrap: wrap; gap: .3rem .6rem; margin-top: .3rem;
  font-size: .75rem; color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
.ec-bar { width: 3.5rem; height: .35rem; border-radius: 1rem; overflow: hidden;
  background: var(--border-color-primary); }
.ec-bar i { display: block; height: 100%; background: var(--color-accent); }
.ec-columns ol { margin: .9rem 0 0; padding-left: 1.4rem; color: var(--body-text-color-subdued); }
.ec-columns li { margin-top: .55rem; }
.ec-copy, .ec-csv { padding: .15rem .6rem; border-radius: 6px; font-size: .75rem; cursor: pointer;
  color: var(--body-text-color); background: var(--button-secondary-background-fill);
  border: 1px solid var(--border-color-primary); }
.ec-csv { padding: .35rem .8rem; font-size: .85rem; }
.ec-copy:hover, .ec-csv:hover { border-color: var(--color-accent); }
@media (max-width: 760px) {
  .ec-card, .ec-card:has(section + section) { grid-template-columns: minmax(0, 1fr); }
  .ec-frame { max-width: 26rem; margin: 0 auto; }
}
"""

# One listener for all cards, because the cards are replaced while captions arrive.
HEAD = """
<meta name="color-scheme" content="light dark">
<script>
(() => {
  const show = (word) => {
    document.querySelectorAll(".ec-hot").forEach((w) => w.classList.remove("ec-hot"));
    document.querySelectorAll(".ec-on").forEach((f) => f.classList.remove("ec-on"));
    if (!word) return;
    word.classList.add("ec-hot");
    const maps = document.querySelector(`[data-maps="${word.dataset.key}"]`);
    if (!maps) return;  // not computed yet
    const frame = word.closest(".ec-card").querySelector(".ec-frame");
    frame.querySelector(".ec-heat").src = JSON.parse(maps.dataset.addresses)[word.dataset.number];
    frame.classList.add("ec-on");
  };
  const wordAt = (event) => event.target.closest?.(".ec-word") ?? null;
  document.addEventListener("mouseover", (event) => show(wordAt(event)));
  document.addEventListener("touchstart", (event) => show(wordAt(event)), { passive: true });

  const copy = async (text) => {
    try {
      return await navigator.clipboard.writeText(text);
    } catch {}  // pages of other machines have no clipboard without TLS
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  };
  const quoted = (value) => `"${String(value).replaceAll('"', '""')}"`;
  const download = () => {
    const rows = [["photo", "preset", "sampler", "rank", "caption", "score", "confidence"]];
    for (const card of document.querySelectorAll(".ec-card[data-rows]"))
      rows.push(...JSON.parse(card.dataset.rows));
    const text = rows.map((row) => row.map(quoted).join(",") + "\\r\\n").join("");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    link.download = "captions.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.(".ec-copy");
    if (button) {
      await copy(button.dataset.text);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1200);
    }
    if (event.target.closest?.(".ec-csv")) download();
  });
})();
</script>
"""
