"""How the page of a report looks: light and dark, on a phone, on paper."""

from __future__ import annotations

STYLE = """
:root {
  --ground: #fbfaf8; --card: #ffffff; --ink: #1d1d1f; --soft: #5d5d66; --line: #e2e0db;
  --heat: 214 84 32; --protected: #c2410c; --clean: #2563a8;
  --good: #1c7c4a; --warn: #a16207; --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #131417; --card: #1b1d21; --ink: #ececee; --soft: #a5a6ae; --line: #34363d;
    --heat: 240 110 50; --protected: #fb923c; --clean: #7db4f0;
    --good: #57c98a; --warn: #e3b341; --bad: #f47067;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
header { margin-bottom: 1.5rem; }
h1 {
  font-size: clamp(1.5rem, 5vw, 2.25rem); line-height: 1.15; margin: 0; overflow-wrap: anywhere;
}
h2 { font-size: 1.2rem; line-height: 1.3; margin: 2.75rem 0 .4rem; }
p { max-width: 46rem; margin: .4rem 0 .9rem; }
.kicker { text-transform: uppercase; letter-spacing: .08em; font-size: .75rem; margin: 0 0 .3rem; }
.kicker, .meta { color: var(--soft); }
.meta { margin: .5rem 0 0; }
.verdict {
  --accent: var(--soft); background: var(--card); border: 1px solid var(--line);
  border-left: 6px solid var(--accent); border-radius: 10px; padding: 1.25rem 1.4rem;
}
.verdict.holds { --accent: var(--good); }
.verdict.weakened { --accent: var(--warn); }
.verdict.broken { --accent: var(--bad); }
.badge { color: var(--accent); font-weight: 700; margin: 0; }
.lead { font-size: 1.15rem; line-height: 1.5; margin: .3rem 0 1.1rem; }
.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1rem; margin:
  0;
}
.tiles dt { color: var(--soft); font-size: .85rem; }
.tiles dd { margin: 0; }
.tiles strong {
  display: block; font-size: 1.9rem; line-height: 1.25; font-variant-numeric: tabular-nums;
}
.tiles dd > span:last-child { color: var(--soft); font-size: .85rem; overflow-wrap: anywhere; }
.bar { display: block; height: 4px; border-radius: 2px; background: var(--line); margin: .2rem 0; }
.bar i { display: block; height: 100%; border-radius: 2px; background: rgb(var(--heat)); }
.scroll {
  overflow-x: auto; border: 1px solid var(--line); border-radius: 10px; background: var(--card);
}
.scroll:focus-visible { outline: 3px solid var(--clean); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th, td {
  padding: .5rem .8rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align:
  top;
}
tbody tr:last-child > * { border-bottom: 0; }
thead th { color: var(--soft); font-weight: 600; font-size: .82rem; white-space: nowrap; }
tbody th { font-weight: 600; white-space: nowrap; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.heat { background: rgb(var(--heat) / calc(var(--share) * .42)); min-width: 7rem; }
td.heat .bar { background: rgb(128 128 128 / .25); margin-bottom: 0; }
.clean .bar i { background: var(--clean); }
td.clean { min-width: 7rem; }
td.clean .bar { margin-bottom: 0; }
.scroll tbody th { position: sticky; left: 0; background: var(--card); }
tr.worst > * { box-shadow: inset 0 2px var(--bad), inset 0 -2px var(--bad); }
.mark {
  display: block; width: fit-content; border: 1px solid var(--bad); color: var(--bad);
  border-radius: 99px; padding: 0 .5rem; font-size: .75rem; font-weight: 600; white-space: nowrap;
}
.charts {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); gap:
  1rem;
}
figure {
  margin: 0; padding: .7rem .7rem .5rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; break-inside: avoid;
}
figcaption { font-weight: 600; font-size: .9rem; padding-left: .3rem; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; }
svg .grid { stroke: var(--line); }
svg .chance { stroke: var(--soft); stroke-dasharray: 1 4; stroke-linecap: round; stroke-width: 2; }
svg .tick { fill: var(--soft); font-size: 11px; }
svg .curve { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
svg .curve.protected { stroke: var(--protected); }
svg .curve.clean { stroke: var(--clean); stroke-dasharray: 6 4; stroke-width: 2; }
svg .dot.protected { fill: var(--protected); }
svg .dot.clean { fill: none; stroke: var(--clean); stroke-width: 2; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; font-size: .9rem; }
.key::before {
  content: ""; display: inline-block; width: 1.9rem; vertical-align: .28em; margin-right: .5rem;
  border-top: 3px solid var(--protected);
}
.key.clean::before { border-top: 2px dashed var(--clean); }
.key.chance::before { border-top: 2px dotted var(--soft); }
.pictures { width: auto; }
.pictures th, .pictures td {
  text-align: center; padding: .3rem .4rem; border: 0; font-size: .85rem;
}
.pictures tbody th {
  text-align: right; white-space: nowrap; vertical-align: middle; color: var(--soft);
}
.pictures td { font-variant-numeric: tabular-nums; white-space: nowrap; }
.pictures thead th { max-width: 6rem; overflow: hidden; text-overflow: ellipsis; }
.pictures img {
  display: block; width: 5.6rem; height: 5.6rem; object-fit: contain; border-radius: 4px;
  image-rendering: pixelated;
}
.facts { margin: 0; border-top: 1px solid var(--line); }
.facts div {
  display: grid; grid-template-columns: 11rem 1fr; gap: .2rem 1rem; padding: .45rem 0;
  border-bottom: 1px solid var(--line); break-inside: avoid;
}
.facts dt { color: var(--soft); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 36rem) {
  main { padding: 1.5rem 1rem 3rem; }
  .facts div { grid-template-columns: 1fr; }
  .tiles strong { font-size: 1.6rem; }
  .scroll tbody th { white-space: normal; max-width: 8rem; }
}
@media print {
  :root {
    --ground: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #ccc;
    --heat: 214 84 32; --protected: #c2410c; --clean: #2563a8;
    --good: #1c7c4a; --warn: #a16207; --bad: #b3261e;
  }
  @page { margin: 15mm; }
  body { font-size: 10.5pt; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  .scroll { overflow: visible; }
  h2 { break-after: avoid; }
  tr, .verdict { break-inside: avoid; }
  .charts { grid-template-columns: repeat(3, 1fr); }
  .pictures img { width: 4rem; height: 4rem; }
}
"""
