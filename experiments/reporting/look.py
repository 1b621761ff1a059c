"""What a page looks like, and how its tables sort: one style sheet, one script, no address.

Both stand in a Python file because Flower bundles an app's Python files and leaves others out.
"""

__all__ = ["SCRIPT", "STYLE"]

STYLE = r"""
:root {
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Noto Sans", sans-serif;
  --paper: #ffffff; --ink: #1c2127; --muted: #59626e; --grid: #dde1e6;
  --shade-1: #f2f4f6; --shade-2: #e3e7ec; --warn-edge: #b26a00; --warn: #fdf6e9;
  --c-test: #0072b2; --c-retain: #007f5c; --c-forget: #c24e00; --c-backdoor: #98477f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --ink: #e7eaee; --muted: #a2abb6; --grid: #333a43;
    --shade-1: #1d2227; --shade-2: #2a3038; --warn-edge: #e0a243; --warn: #261f12;
    --c-test: #5cb3ea; --c-retain: #33c79b; --c-forget: #f4894a; --c-backdoor: #d58fc4;
  }
}
* { box-sizing: border-box; }
html { background: var(--paper); color: var(--ink); font: 16px/1.55 var(--font); }
body { max-width: 74rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 3rem 0 .6rem; padding-top: .9rem; border-top: 1px solid var(--grid); }
h3 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
p, ul, ol, dl { margin: 0 0 .8rem; }
p, li, dd { max-width: 46rem; }
.kicker { color: var(--muted); font-size: .85rem; margin: 0 0 .3rem; }
.lede { font-size: 1.1rem; max-width: 48rem; }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; font-size: .9rem; margin: 1.25rem 0 0; }
a { color: var(--c-test); text-underline-offset: .15em; }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 2px solid var(--c-test); outline-offset: 2px; }
.findings { list-style: none; padding: 0; margin: 1rem 0; }
.findings li { padding: .55rem 0 .55rem .9rem; border-left: 3px solid var(--grid); max-width: 52rem; }
.findings li + li { margin-top: .35rem; }
.warnings { background: var(--warn); border-left: 3px solid var(--warn-edge); padding: .8rem 1rem .8rem; margin: 1.5rem 0; }
.warnings h3 { margin: 0 0 .3rem; }
.warnings ul { margin: 0; padding-left: 1.1rem; }
.warnings li { max-width: 52rem; }
.scroll { overflow-x: auto; container-type: inline-size; margin: 1rem 0; position: relative; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums lining-nums; }
caption { text-align: left; color: var(--muted); padding: 0 0 .5rem; font-size: .875rem; }
caption span { position: sticky; left: 0; display: inline-block; max-width: 100cqw; }
th, td { padding: .45rem .6rem; vertical-align: top; text-align: left; border-bottom: 1px solid var(--grid); }
th:first-child { padding-left: 0; }
thead th { border-bottom: 1.5px solid var(--ink); vertical-align: bottom; font-weight: 600; line-height: 1.25; }
tbody th { font-weight: 600; white-space: nowrap; }
.wordy tbody th { white-space: normal; min-width: 8rem; }
.num { text-align: right; white-space: nowrap; }
thead .num { white-space: normal; }
.unit, .sd, .below, .guarantee { color: var(--muted); font-weight: 400; }
.unit, .below, .guarantee { font-size: .8rem; display: block; }
.sd { font-size: .8rem; }
tr.last-control > * { border-bottom: 1.5px solid var(--muted); }
tr.within > td { border-bottom-style: dotted; }
tr.total td { font-weight: 600; }
tr.total .sd { font-weight: 400; }
.none { color: var(--muted); cursor: help; }
.quiet-text { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.note { color: var(--muted); font-size: .85rem; }
p.note { margin-bottom: .2rem; }
ul.note { padding-left: 1.2rem; }
thead button { all: unset; cursor: pointer; display: inline; }
thead button:focus-visible { outline: 2px solid var(--c-test); outline-offset: 2px; }
thead button::before { content: "\2195\00a0"; color: var(--muted); font-weight: 400; }
th[aria-sort="ascending"] button::before { content: "\2191\00a0"; color: var(--ink); }
th[aria-sort="descending"] button::before { content: "\2193\00a0"; color: var(--ink); }
.interval { color: var(--muted); font-size: .8rem; display: block; white-space: nowrap; }
table.map { width: auto; font-size: .8rem; }
table.map th, table.map td { padding: .15rem .5rem; }
.within-margin { color: var(--c-retain); } .beyond-margin { color: var(--c-forget); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .8rem; padding: 0; list-style: none; }
.cards > li { border: 1px solid var(--grid); border-left: 3px solid var(--c-retain); padding: .6rem .8rem; font-size: .875rem; max-width: none; }
.cards > li.failed, .failed td, .failed th { color: var(--muted); }
.cards > li.failed { background: var(--shade-1); border-left: 3px dashed var(--muted); }
.cards h4 { margin: 0 0 .2rem; font-size: .9rem; }
.cards p { margin: 0 0 .3rem; }
.cards dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 .8rem; margin: 0; font-variant-numeric: tabular-nums; }
.cards dd { margin: 0; }
tbody th[scope="rowgroup"] { white-space: normal; }
figure { margin: 1rem 0 1.5rem; }
figure svg { display: block; width: 100%; min-width: 34rem; height: auto; }
figure .scroll { margin: 0; }
figcaption { color: var(--muted); font-size: .875rem; max-width: 52rem; margin-top: .4rem; }
dl.pairs { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; }
dl.pairs dt { font-weight: 600; }
dl.pairs dd { margin: 0; overflow-wrap: anywhere; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; font-size: .82rem; }
code { overflow-wrap: anywhere; }
td code { overflow-wrap: normal; white-space: nowrap; }
pre { background: var(--shade-1); padding: .8rem 1rem; overflow-x: auto; line-height: 1.45; }
summary { cursor: pointer; font-weight: 600; margin: .6rem 0; }
.facts { font-size: .8rem; min-width: 16rem; }
.prose td { min-width: 9rem; }
.prose td:last-child { min-width: 16rem; }
time { white-space: nowrap; }
.facts span { margin-right: .7rem; overflow-wrap: anywhere; }
.facts b { font-weight: 400; color: var(--muted); }
@media (max-width: 40rem) {
  body { padding: 1.25rem 1rem 3rem; }
  dl.pairs { grid-template-columns: 1fr; gap: 0; }
  dl.pairs dd { margin-bottom: .6rem; }
  /* A line of the leaderboard is a block of three: who, the five numbers, which run. */
  .board, .board thead, .board tbody { display: block; }
  .board tr { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); column-gap: .4rem; padding: .5rem 0; border-bottom: 1px solid var(--grid); }
  .board thead tr { border-color: var(--ink); align-items: end; }
  .board th, .board td { padding: .1rem 0; border: 0; }
  .board tr > :first-child { grid-column: 1 / 5; }
  .board tr > :last-child { grid-column: 1 / 6; overflow-wrap: anywhere; }
  .board td { font-size: .75rem; }
  .board thead .num, .board .num .unit { font-size: .66rem; }
  .board thead .num button::before { display: block; }
  .board .guarantee { display: inline; margin-left: .5rem; }
}
.requests tbody th { white-space: normal; }
.requests tbody th[scope="row"] { padding-left: .6rem; }
@media print {
  caption span { max-width: none; }
  @page { size: A4; margin: 14mm 13mm; }
  :root {
    --paper: #ffffff; --ink: #000000; --muted: #444c55; --grid: #c9ced4;
    --shade-1: #f2f4f6; --shade-2: #e3e7ec; --warn: #ffffff; --warn-edge: #000000;
    --c-test: #0072b2; --c-retain: #007f5c; --c-forget: #c24e00; --c-backdoor: #98477f;
  }
  html { font-size: 9.5pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { max-width: none; padding: 0; }
  nav { display: none; }
  thead button::before, th[aria-sort] button::before { content: none; }
  h2 { margin-top: 1.6rem; }
  h2, h3, caption, thead { break-after: avoid; }
  figure, tr, .warnings, .findings li { break-inside: avoid; }
  thead { display: table-header-group; }
  table { font-size: 7.6pt; }
  th, td { padding: .25rem .35rem; }
  .scroll { overflow: visible; container-type: normal; }
  .cost .sd { display: block; }
  tbody th { white-space: normal; }
  .unit, .sd, .below, .guarantee, .interval { font-size: 6.6pt; }
  .scores .interval { font-size: 5.9pt; }
  .scores th, .scores td { padding: .25rem .2rem; }
  .cards { grid-template-columns: repeat(3, 1fr); font-size: 7.6pt; }
  .cards > li { break-inside: avoid; }
  figure svg { min-width: 0; max-height: 122mm; }
  .findings li { padding: .3rem 0 .3rem .9rem; }
  .facts, .prose td, .prose td:last-child { min-width: 0; }
  pre { white-space: pre-wrap; }
  a { color: inherit; text-decoration: none; }
  details.aside { display: none; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""

# Headings become buttons: nothing to press where there is no script. The third press gives the
# order back that the table came in. What was not measured stays last either way.
SCRIPT = r"""
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], given = [...body.rows], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const turn = {ascending: "descending", descending: null}[head.ariaSort];
      const order = turn === undefined ? "ascending" : turn;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      if (order) head.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      const key = row => {
        const cell = row.cells[column];
        return "sort" in cell.dataset ? parseFloat(cell.dataset.sort) : cell.textContent.trim();
      };
      const compare = (left, right) => {
        const a = key(left), b = key(right);
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
        return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
      };
      body.append(...(order ? [...given].sort(compare) : given));
    });
  });
}
"""
