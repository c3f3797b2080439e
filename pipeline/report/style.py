"""The report's style sheet: light and dark after the reader's system, and plain on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fff; --ink: #1b1f24; --muted: #59626e; --line: #dfe3e8; --soft: #f5f7f9; --track: #e9edf1; --grid: #fff;
  --accent: #2b7a92; --accent-soft: #b5d8e2; --bar: #72b4c8; --heat: 29,120,150; --edge: rgba(0,0,0,.28);
  --good: #18703f; --good-soft: #e3f4ea; --warn: #8a4f00; --warn-soft: #fdf0d9; --bad: #ad2115;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #15181c; --ink: #e6e9ed; --muted: #a0a9b4; --line: #2d333a; --soft: #1c2025; --track: #272d34;
    --grid: #15181c; --accent: #5fb2cb; --accent-soft: #2f6374; --bar: #3b849b; --heat: 70,170,205;
    --edge: rgba(255,255,255,.4); --good: #71d09a; --good-soft: #17301f; --warn: #f0b75c; --warn-soft: #35280f;
    --bad: #ff8d80;
  }
}
* { box-sizing: border-box }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums lining-nums; -webkit-text-size-adjust: 100%;
}
main { max-width: 1080px; margin: 0 auto; padding: 40px 32px 56px }
h1 {
  font-size: 30px; line-height: 1.2; font-weight: 650; letter-spacing: -.015em; margin: 4px 0 8px;
  text-wrap: balance;
}
h2 { font-size: 18px; font-weight: 650; letter-spacing: -.005em; margin: 0 0 10px }
h2:has(+ .note) { margin-bottom: 4px }
h3 { font-size: 14px; font-weight: 650; margin: 20px 0 6px }
p { margin: 0 0 10px; max-width: 76ch }
a { color: inherit; text-decoration-color: var(--muted); text-underline-offset: 3px }
section { margin-top: 44px }
.brand { color: var(--muted); font-size: 13px; letter-spacing: .02em }
.note, .muted { color: var(--muted) }
.note { font-size: 13.5px; margin-bottom: 14px }
.status {
  display: inline-block; border-radius: 99px; padding: 1px 10px; font-size: 13px; font-weight: 600;
  margin-right: 8px;
}
.status.good { background: var(--good-soft); color: var(--good) }
.status.warn { background: var(--warn-soft); color: var(--warn) }
.facts {
  display: flex; flex-wrap: wrap; gap: 18px 34px; margin: 26px 0 0; padding: 18px 0 0;
  border-top: 1px solid var(--line);
}
.facts dt { color: var(--muted); font-size: 13px; white-space: nowrap }
.facts dd { margin: 0; font-size: 21px; font-weight: 600; white-space: nowrap; letter-spacing: -.01em }
.facts dd small {
  display: block; font-size: 12.5px; font-weight: 400; color: var(--muted); letter-spacing: 0; line-height: 1.35;
}
.facts .bad { color: var(--bad) }
.wide { overflow-x: auto; margin: 0 -4px; padding: 0 4px }
table { border-collapse: collapse; width: 100%; font-size: 14px }
th { font-weight: 500; color: var(--muted); font-size: 13px; text-align: left; vertical-align: bottom }
th, td { padding: 7px 18px 7px 0; border-bottom: 1px solid var(--line); vertical-align: middle }
th:last-child, td:last-child { padding-right: 0 }
tbody th { color: var(--ink); font-size: 14px; vertical-align: middle; overflow-wrap: anywhere }
.n { text-align: right; white-space: nowrap }
td small, th small { color: var(--muted); font-size: 12.5px; font-weight: 400 }
td.n small { display: block; line-height: 1.3 }
.name { min-width: 140px; max-width: 280px }
.draw { width: 22%; min-width: 120px }
.draw.half { width: 40% }
.metric { min-width: 190px; max-width: 440px }
.metric small { display: block; line-height: 1.4 }
svg { display: block; overflow: visible }
.swatch { display: inline-block; vertical-align: -1px; margin-right: 8px }
.swatch rect { stroke: var(--edge); stroke-width: 1 }
.track { fill: var(--track) }
.grid { stroke: var(--grid); stroke-width: 1 }
.bar { fill: var(--bar) }
.whisker { stroke: var(--ink); stroke-width: 1.5 }
.range { stroke: var(--muted); stroke-width: 1.25 }
.middle { fill: var(--accent-soft); stroke: var(--accent); stroke-width: 1 }
.median { stroke: var(--ink); stroke-width: 2 }
.stack { margin-bottom: 10px }
td .stack { margin: 0 }
.part { stroke: var(--page); stroke-width: 1.5 }
.axis { display: flex; justify-content: space-between; color: var(--muted); font-size: 12px; font-weight: 400 }
.legend {
  display: flex; flex-wrap: wrap; gap: 4px 22px; margin: 10px 0 0; padding: 0; list-style: none; font-size: 13.5px;
}
.matrix { width: auto }
.matrix td {
  padding: 8px 14px; text-align: right; white-space: nowrap; border: 2px solid var(--page); border-radius: 4px;
  background: rgba(var(--heat),var(--t)); print-color-adjust: exact; -webkit-print-color-adjust: exact;
}
.matrix th { border: 0; padding: 4px 14px 4px 0 }
.matrix thead th { text-align: right; padding: 4px 14px 6px; color: var(--ink) }
.matrix thead th.corner { text-align: left; padding-left: 0; color: var(--muted) }
.matrix td small { display: block; color: inherit; opacity: .85 }
.dense { font-size: 12px }
.dense td { padding: 3px 4px; min-width: 25px; border-width: 1px }
.dense tbody th { font-size: 12.5px; padding: 2px 10px 2px 0; white-space: nowrap }
.dense thead th { padding: 0 4px 6px; vertical-align: bottom; text-align: left }
.dense thead th span {
  writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; font-size: 12.5px; line-height: 1.1;
}
.pictures { display: grid; grid-template-columns: repeat(auto-fill,minmax(min(420px,100%),1fr)); gap: 24px }
figure { margin: 0 }
figure img { width: 100%; display: block; border-radius: 4px; background: var(--soft) }
figcaption { font-size: 13px; margin-top: 6px; overflow-wrap: anywhere }
figcaption small { display: block; color: var(--muted); font-size: 12.5px }
.failures { table-layout: fixed }
.failures td { font-size: 13.5px; vertical-align: top; overflow-wrap: anywhere }
.failures small { display: block }
.pairs { width: auto; font-size: 13.5px }
.pairs th { white-space: nowrap; font-size: 13.5px; font-weight: 400; color: var(--muted); vertical-align: top }
.pairs td { overflow-wrap: anywhere; vertical-align: top }
.pairs th, .pairs td { padding: 4px 28px 4px 0 }
.columns { display: grid; grid-template-columns: repeat(auto-fit,minmax(300px,1fr)); gap: 0 48px }
footer {
  margin-top: 48px; padding-top: 14px; border-top: 1px solid var(--line); color: var(--muted); font-size: 13px;
}
@media (max-width:640px) {
  main { padding: 24px 16px 40px }
  h1 { font-size: 25px }
  .facts dd { font-size: 19px }
}
@media print {
  @page { margin: 16mm 14mm }
  main { max-width: none; padding: 0 }
  .facts { gap: 12px 22px }
  .pictures { grid-template-columns: 1fr 1fr; gap: 16px }
  body { font-size: 10.5pt }
  section { margin-top: 26px }
  h2, h3 { break-after: avoid }
  tr, figure, .facts, .pairs { break-inside: avoid }
  thead { display: table-header-group }
  .wide { overflow: visible }
  .dense { font-size: 6.5pt }
  .dense td { padding: 2px 3px }
  .dense tbody th, .dense thead th span { font-size: 7pt }
  table { font-size: 9.5pt }
  th, td { padding-right: 10px }
}
"""
