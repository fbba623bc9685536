"""CSS of the pages about runs, in addition to that of all pages."""

REPORT_STYLE = """\
main > * + * { margin-top: 2.75rem; }
section > h2 { margin-bottom: 1rem; }
.hint { margin: -.6rem 0 1rem; color: var(--quiet); font-size: .875rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 1px;
  overflow: hidden; background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.tiles > .tile { margin: 0; padding: 1rem 1.1rem; border: 0; box-shadow: 0 0 0 1px var(--line); }
.tile dd { font-size: 1.6rem; line-height: 1.3; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.tile small { display: block; min-height: 1.5em; color: var(--quiet); font-size: .75rem;
  letter-spacing: 0; }
.histories { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(34rem, 100%), 1fr)); }
.history { display: flex; overflow: hidden; break-inside: avoid; background: var(--card);
  border: 1px solid var(--line); border-radius: 12px; }
.history > img, .history > .unreadable { flex: none; width: 13rem; align-self: flex-start;
  aspect-ratio: 6 / 5; border: 0; }
.words { flex: 1; min-width: 0; padding: .9rem 1.1rem; }
.words ol, .words ul { padding: 0; list-style: none; }
.words ol > li { display: flex; gap: .75rem; padding: .3rem 0; }
.words ol > li + li { border-top: 1px solid var(--line); }
.epoch { flex: none; width: 3.6rem; padding-top: .12rem; color: var(--quiet); font-size: .8125rem;
  font-variant-numeric: tabular-nums; }
.epoch b { margin-left: .25rem; color: var(--series-1); font-weight: 400; }
.text { flex: 1; min-width: 0; overflow-wrap: anywhere; }
.words ol:first-of-type > li:first-child .text { font-weight: 600; }
details { margin-top: .6rem; }
summary { color: var(--quiet); font-size: .8125rem; cursor: pointer; }
details li { padding: .15rem 0; overflow-wrap: anywhere; }
.references li { color: var(--quiet); font-size: .875rem; }
pre { margin-bottom: 1rem; padding: .9rem 1.1rem; overflow-wrap: anywhere; white-space: pre-wrap;
  background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  font: .8125rem/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.columns { columns: 20rem; column-gap: 1rem; }
.settings { display: inline-block; width: 100%; margin-bottom: 1rem; padding: .9rem 1.1rem;
  break-inside: avoid; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; }
h3 { margin-bottom: .4rem; font-size: .875rem; }
table { width: 100%; border-collapse: collapse; font-size: .875rem;
  font-variant-numeric: tabular-nums; }
th { color: var(--quiet); font-weight: 400; text-align: left; }
th, td { padding: .28rem .9rem .28rem 0; vertical-align: top; overflow-wrap: anywhere; }
tr + tr > *, thead + tbody > tr:first-child > * { border-top: 1px solid var(--line); }
td:last-child { padding-right: 0; }
td small { color: var(--quiet); white-space: nowrap; }
.settings th { white-space: nowrap; }
.settings td { text-align: right; }
.changed th, .changed td { color: var(--text); font-weight: 600; }
.changed th::before { content: "● "; color: var(--series-1); font-size: .6rem;
  vertical-align: .15rem; }
.notes { padding-left: 1.1rem; color: var(--warn); }
.wide th, .wide td { min-width: 6.5rem; }
.scores th, .scores td { min-width: 0; white-space: nowrap; }
.wide .key { color: var(--text); }
.changed small { font-weight: 400; }
.wide { padding: .6rem 1.1rem; overflow-x: auto; background: var(--card);
  border: 1px solid var(--line); border-radius: 12px; }
@media (max-width: 34rem) {
  .history { flex-direction: column; }
  .history > img, .history > .unreadable { width: 100%; aspect-ratio: 3 / 2; }
}
@media print { html { font-size: 75%; } body { font-size: 1rem; }
  main > * + * { margin-top: 1.5rem; } .columns { columns: 3; }
  .histories { grid-template-columns: 1fr; } }
"""
