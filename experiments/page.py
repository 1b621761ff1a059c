"""The report as a Jinja template: one HTML page that asks for nothing from anywhere.

It stands in a Python file because Flower bundles an app's Python files and leaves templates out.
"""

TEMPLATE = r"""{% macro cell(c, head="") %}
{% if c.why %}<span class="none" title="{{ c.why }}"><span aria-hidden="true">{{ c.text }}</span><span class="quiet-text">not measured: {{ c.why }}</span></span>{% else %}{% set parts = c.text.split(" ± ") %}{{ parts[0] }}{% if parts | length > 1 %}<span class="sd"> ± {{ parts[1] }}</span>{% endif %}{% endif %}
{% endmacro %}
{% macro reasons(list) %}
{% if list %}
<p class="note">{{ dash }} stands for a number that was not measured:</p>
<ul class="note">{% for reason in list %}<li>{{ reason }}.</li>{% endfor %}</ul>
{% endif %}
{% endmacro %}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }} – unlearning report</title>
<link rel="icon" href="data:,">
<style>
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
.scroll { overflow-x: auto; margin: 1rem 0; position: relative; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums lining-nums; }
caption { text-align: left; color: var(--muted); padding: 0 0 .5rem; font-size: .875rem; }
th, td { padding: .45rem .6rem; vertical-align: top; text-align: left; border-bottom: 1px solid var(--grid); }
th:first-child { padding-left: 0; }
thead th { border-bottom: 1.5px solid var(--ink); vertical-align: bottom; font-weight: 600; line-height: 1.25; }
tbody th { font-weight: 600; white-space: nowrap; }
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
figure { margin: 1rem 0 1.5rem; }
figure svg { display: block; width: 100%; min-width: 34rem; height: auto; }
figure .scroll { margin: 0; }
figcaption { color: var(--muted); font-size: .875rem; max-width: 52rem; margin-top: .4rem; }
dl.pairs { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; }
dl.pairs dt { font-weight: 600; }
dl.pairs dd { margin: 0; }
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
}
@media print {
  @page { size: A4; margin: 14mm 13mm; }
  :root {
    --paper: #ffffff; --ink: #000000; --muted: #444c55; --grid: #c9ced4;
    --shade-1: #f2f4f6; --shade-2: #e3e7ec; --warn: #ffffff; --warn-edge: #000000;
    --c-test: #0072b2; --c-retain: #007f5c; --c-forget: #c24e00; --c-backdoor: #98477f;
  }
  html { font-size: 9.5pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { max-width: none; padding: 0; }
  nav { display: none; }
  h2 { margin-top: 1.6rem; }
  h2, h3, caption, thead { break-after: avoid; }
  figure, tr, .scores, .warnings, .findings li { break-inside: avoid; }
  thead { display: table-header-group; }
  table { font-size: 7.6pt; }
  th, td { padding: .25rem .35rem; }
  .scroll { overflow: visible; }
  .cost .sd { display: block; }
  tbody th { white-space: normal; }
  .unit, .sd, .below, .guarantee { font-size: 6.8pt; }
  figure svg { min-width: 0; max-height: 122mm; }
  .findings li { padding: .3rem 0 .3rem .9rem; }
  .facts, .prose td, .prose td:last-child { min-width: 0; }
  pre { white-space: pre-wrap; }
  a { color: inherit; text-decoration: none; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
</style>
</head>
<body>
<header>
<p class="kicker">Federated unlearning report</p>
<h1>{{ title }}</h1>
<p class="lede">{{ summary }}</p>
<nav aria-label="Contents"><ul>
<li><a href="#scorecard">Scorecard</a></li>
{% if timeline %}<li><a href="#course">Course</a></li>{% endif %}
<li><a href="#cost">Cost</a></li>
<li><a href="#claim">How far the claim goes</a></li>
<li><a href="#measures">What is measured</a></li>
<li><a href="#ledger">Ledger</a></li>
<li><a href="#again">Do it again</a></li>
</ul></nav>
</header>
<main>

<section aria-labelledby="findings">
<h2 id="findings">What was found</h2>
<ul class="findings">
{% for finding in findings %}<li><strong>{{ finding.lead }}:</strong> {{ finding.text }}</li>
{% else %}<li>No number was measured that could be told here.</li>
{% endfor %}
</ul>
{% if warnings %}
<div class="warnings" role="note" aria-labelledby="limits">
<h3 id="limits">Read with care</h3>
<ul>
{% for warning in warnings %}<li>{{ warning }}</li>
{% endfor %}
</ul>
</div>
{% endif %}
</section>

<section aria-labelledby="scorecard">
<h2 id="scorecard">Scorecard</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="scorecard">
<table class="scores">
<caption>{% if num_seeds > 1 %}Mean ± standard deviation over {{ num_seeds }} seeds.{% else %}One seed.{% endif %} All numbers are fractions or distances, never percent.{% if has_reference %} Below each number: its difference to the retrained model{% if num_seeds > 1 %}, mean of the pairs of one seed{% endif %}. Good is what is close to retraining, not what is high or low.{% endif %}</caption>
<thead><tr>
<th scope="col">Strategy<span class="unit">guarantee</span></th>
{% for name in metric_titles %}<th scope="col" class="num">{{ name }}</th>
{% endfor %}
<th scope="col" class="num">Average gap</th>
<th scope="col">Marker</th>
</tr></thead>
<tbody>
{% for line in scorecard %}
<tr{% if line.control and not loop.last and not scorecard[loop.index].control %} class="last-control"{% endif %}>
<th scope="row">{{ line.strategy }}<span class="guarantee">{{ line.guarantee }}{% if line.seeds %}, {{ line.seeds }}{% endif %}</span></th>
{% for c in line.cells %}<td class="num">{{ cell(c) }}{% if c.below %}<span class="below">{{ c.below }}</span>{% endif %}</td>
{% endfor %}
<td>{{ cell(line.verdict) }}{% if line.verdict.below %}<span class="below">{{ line.verdict.below }}</span>{% endif %}</td>
</tr>
{% endfor %}
</tbody>
</table>
</div>
{{ reasons(scorecard_reasons) }}
</section>

{% if timeline %}
<section aria-labelledby="course">
<h2 id="course">Course of learning, unlearning and recovery</h2>
<figure>
<div class="scroll">{{ timeline }}</div>
<figcaption>Fractions after each round{% if num_seeds > 1 %}; lines are means over {{ num_seeds }} seeds, bands reach from the lowest to the highest seed{% endif %}. {% if num_strategies > 2 %}All strategies answer from the same learned model; how{% else %}How{% endif %} far a panel reaches to the right shows how many rounds its answer took.{% if has_reference %} Diamonds show where the retrained model ended: the place to arrive at.{% endif %}</figcaption>
</figure>
</section>
{% endif %}

<section aria-labelledby="cost">
<h2 id="cost">Cost</h2>
{% if trade_off %}
<figure>
<div class="scroll">{{ trade_off }}</div>
<figcaption>How close to retraining, for how much work: down is closer, left is cheaper. Hollow squares are controls{% if num_seeds > 1 %}; whiskers are one standard deviation over seeds{% endif %}. Above or near the dashed line nothing was gained over the original model.</figcaption>
</figure>
{% endif %}
<div class="scroll" tabindex="0" role="region" aria-labelledby="cost">
<table class="cost">
<caption>What the answer to the request cost, evaluation excluded{% if num_seeds > 1 %}; mean ± standard deviation over {{ num_seeds }} seeds{% endif %}. The original model's line is what learning cost. Speed-ups compare totals with retraining's; 1 MB = 1,000,000 bytes.</caption>
<thead><tr>
<th scope="col">Strategy</th><th scope="col">Phase</th>
{% for name, heading, unit in work %}<th scope="col" class="num">{{ heading }}{% if unit %}<span class="unit">{{ unit }}</span>{% endif %}</th>
{% endfor %}
<th scope="col" class="num">History<span class="unit">MB</span></th>
<th scope="col" class="num">Speed-up<span class="unit">wall time</span></th>
<th scope="col" class="num">Speed-up<span class="unit">examples</span></th>
</tr></thead>
{% for line in cost %}
{% if line.span %}<tbody>{% endif %}
<tr class="{{ 'total' if line.phase == 'total' else 'within' if line.phase in ('unlearn', 'recover') else '' }}">
{% if line.span %}<th scope="rowgroup" rowspan="{{ line.span }}">{{ line.strategy }}</th>{% endif %}
<td>{{ line.phase }}</td>
{% for c in line.cells %}<td class="num">{{ cell(c) }}</td>
{% endfor %}
{% if line.cells | length == work | length %}<td colspan="3"></td>{% endif %}
</tr>
{% if loop.last or cost[loop.index].span %}</tbody>{% endif %}
{% endfor %}
</table>
</div>
{{ reasons(cost_reasons) }}
</section>

<section aria-labelledby="claim">
<h2 id="claim">How far the claim goes</h2>
{% set meaning = {
  "exact": ("Distributed as a model retrained without the data.",
    "None from training itself, provided that the owners and all stores have deleted. Copies of the data at other clients, and models published before the request, still hold what they learned from them."),
  "certified": ("Within the stated epsilon and delta of retraining.",
    "What an attacker can gain is bounded by epsilon and delta, as long as the assumptions of the proof hold: convex loss, clipped updates, noise really drawn. Beyond them nothing is promised."),
  "approximate": ("No proof: what is known is what was measured above.",
    "Traces may remain that these measures do not see; a stronger attack may find them. This is not a deletion, and must not be called one."),
  "suppressed": ("Hidden by an adapter; the base model still holds the data.",
    "Whoever removes the adapter has all of its influence back."),
  "none": ("Nothing was forgotten.", "All of it: this is the model as it was before the request."),
} %}
<div class="scroll" tabindex="0" role="region" aria-labelledby="claim">
<table class="prose">
<caption>What each result claims, and what remains at risk.</caption>
<thead><tr><th scope="col">Guarantee</th><th scope="col">Strategies</th><th scope="col">It means</th><th scope="col">Residual risk</th></tr></thead>
<tbody>
{% for guarantee, names in guarantees.items() %}
{% set words = meaning.get(guarantee, ("A guarantee of the strategy's own.", "See the strategy's documentation.")) %}
<tr><th scope="row">{{ guarantee }}</th><td>{{ names | join(", ") }}</td><td>{{ words[0] }}</td><td>{{ words[1] }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
<p>For every strategy: whoever sees the model both before and after the request can learn from the difference what left. A marker that is gone does not prove that ordinary data are gone; a few rounds of fine-tuning erase many markers.</p>
{% if refused %}
<h3>Strategies that did not answer</h3>
<dl class="pairs">{% for item in refused %}<dt>{{ item.strategy }}</dt><dd>{{ item.reason }}</dd>{% endfor %}</dl>
{% endif %}
{% if notes %}
<h3>Notes from the run</h3>
<ul>{% for strategy, seed, note in notes %}<li>{{ strategy }}, seed {{ seed }}: {{ note }}</li>{% endfor %}</ul>
{% endif %}
</section>

<section aria-labelledby="measures">
<h2 id="measures">What is measured</h2>
<dl class="pairs">
<dt>Retain, forget, test accuracy</dt><dd>Share of examples whose most probable class is their label, 0 to 1, on the training data that stay, on the data to be forgotten, and on the test split. A retrained model is about as good on honestly labelled forgotten data as on test data, so a low forget accuracy is no aim of itself.</dd>
<dt>MIA AUC</dt><dd>Area under the curve of a membership attack that calls an example trained on when its loss is low: forget set against data of the same owners never trained on. 0.5 means indistinguishable; below 0.5, forgotten data look less familiar than fresh data.</dd>
<dt>Backdoor success</dt><dd>Share of test examples with the trigger, whose true label is another, that the model takes for the attacker's label, 0 to 1. The aim is the retrained model's value, which need not be 0.</dd>
<dt>Prediction distance</dt><dd>Mean Euclidean distance between the softmax outputs of this and the retrained model on the forget set, 0 to 1.414.</dd>
<dt>Average gap</dt><dd>Mean absolute difference to the retrained model of the same seed, over the accuracies, the MIA AUC and, if measured, backdoor success. 0 is retraining itself.</dd>
<dt>Marker</dt><dd>“Marker forgotten”: the whole 95&nbsp;% interval of backdoor success, less the retrained model's, lies below {{ margin }}. “Not forgotten”: it lies above. Otherwise inconclusive, and with one seed always.</dd>
{% if distances %}<dt>Array distance</dt><dd>Length of the difference to the retrained model's parameters over their length; information only, since it proves no forgetting: {% for name, value in distances.items() %}{{ name }} {{ value }}{{ ", " if not loop.last else "." }}{% endfor %}</dd>{% endif %}
</dl>
</section>

<section aria-labelledby="ledger">
<h2 id="ledger">Ledger of requests</h2>
{% if events %}
<p>{{ events | length }} events, each chained to the one before by its hash; the chain is sound.{% if ledger_head %} Head at the end of the run: <code>{{ ledger_head }}</code>{% endif %}</p>
<details{% if not fold_events %} open{% endif %}><summary>All events</summary>
<div class="scroll" tabindex="0" role="region" aria-labelledby="ledger">
<table>
<caption>In the order written; times in UTC.</caption>
<thead><tr><th scope="col" class="num">No.</th><th scope="col">Time</th><th scope="col">Request</th><th scope="col">Branch</th><th scope="col">Event</th><th scope="col">Facts</th></tr></thead>
<tbody>
{% for event in events %}
<tr><td class="num">{{ event.seq }}</td><td><time datetime="{{ event.utc }}">{{ event.utc[:19] | replace("T", " ") }}</time></td><td><code>{{ event.request }}</code></td><td>{% if event.branch %}{{ event.branch }}{% else %}<span class="none" title="all branches"><span aria-hidden="true">{{ dash }}</span><span class="quiet-text">all branches</span></span>{% endif %}</td><td>{{ event.event }}</td><td class="facts">{% for name, value in event.facts %}<span><b>{{ name }}</b> {% if value | length == 64 %}<code title="{{ value }}">{{ value[:short] }}…</code>{% else %}{{ value }}{% endif %}</span> {% endfor %}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
</details>
{% else %}<p>{{ ledger_broken or "The ledger holds no event." }}</p>
{% endif %}
</section>

<section aria-labelledby="again">
<h2 id="again">Do it again</h2>
{% if command %}<pre><code>{{ command }}</code></pre>{% endif %}
{% if versions %}<p>Made with {% for name, number in versions.items() %}{{ name }} {{ number }}{{ ", " if not loop.last else "." }}{% endfor %}</p>{% endif %}
<h3>Results by seed</h3>
<div class="scroll" tabindex="0" role="region" aria-label="Results by seed">
<table>
<caption>The same configuration and seed give the same model digest.</caption>
<thead><tr><th scope="col">Strategy</th><th scope="col" class="num">Seed</th>{% for name in metric_titles %}<th scope="col" class="num">{{ name }}</th>{% endfor %}<th scope="col">Model<span class="unit">SHA-256</span></th></tr></thead>
<tbody>
{% for row in rows %}
<tr><th scope="row">{{ row.strategy }}</th><td class="num">{{ row.seed }}</td>{% for value in row.metrics.values() %}<td class="num">{% if value is none %}<span class="none" title="not measured; the scorecard says why">{{ dash }}</span>{% else %}{{ "%.3f" | format(value) }}{% endif %}</td>{% endfor %}<td>{% if row.model_digest %}<code title="{{ row.model_digest }}">{{ row.model_digest[:short] }}…</code>{% else %}<span class="none" title="no digest was recorded">{{ dash }}</span>{% endif %}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
<h3>Configuration</h3>
<pre><code>{{ config }}</code></pre>
</section>
</main>
</body>
</html>
"""
