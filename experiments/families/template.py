"""The pages over several runs as one Jinja template, in the look of a single run's report.

It stands in a Python file because Flower bundles an app's Python files and leaves templates out.
"""

from experiments.reporting.page import HEAD, WARNINGS

__all__ = ["STYLE", "TEMPLATE"]

STYLE = r"""
body { max-width: 84rem; }
table.scores { font-size: .82rem; }
table.overview { font-size: .8rem; }
table.overview .below { font-size: .74rem; }
table.scores th, table.scores td, table.overview th, table.overview td { padding-left: .3rem; padding-right: .3rem; }
table.scores th:first-child, table.scores td.first, table.overview th:first-child { padding-left: 0; }
svg.spark { display: block; margin-top: .2rem; margin-left: auto; }
td.course svg.spark { margin: 0; }
.s-shade { fill: var(--shade-2); }
.s-level { stroke: var(--muted); stroke-width: 1; stroke-dasharray: 3 2; }
.s-line { fill: none; stroke: var(--c-test); stroke-width: 1.6; stroke-linejoin: round; }
.s-before { fill: var(--paper); stroke: var(--ink); stroke-width: 1.2; }
.s-low { fill: var(--c-forget); }
.s-axis { stroke: var(--grid); stroke-width: 1; }
.s-mark { stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: 2 2; }
.s-range { stroke: var(--c-test); stroke-width: 2.4; }
.s-dot { fill: var(--c-test); }
.verdict { font-weight: 600; white-space: nowrap; }
.verdict.confirmed::before { content: "\2713\00a0"; color: var(--c-retain); }
.verdict.contradicted::before { content: "\2715\00a0"; color: var(--c-forget); }
.verdict.inconclusive::before, .verdict.not::before { content: "?\00a0"; color: var(--muted); }
.claims tbody > tr > * { border-bottom: 0; }
.claims tbody tr:first-child > * { border-top: 1px solid var(--muted); }
.claims tbody tr + tr > td { border-top: 1px dotted var(--grid); }
.claims tbody th { white-space: normal; min-width: 15rem; max-width: 22rem; }
.claims tbody th p { font-weight: 400; margin: .2rem 0 0; }
.claims .source { color: var(--muted); font-size: .8rem; }
.claims td { min-width: 6rem; }
.claims td.looked { min-width: 14rem; }
.needs td { min-width: 11rem; }
.needs tbody th { white-space: normal; min-width: 11rem; }
.needs ol { margin: 0; padding-left: 1.1rem; }
.needs li { margin-bottom: .15rem; }
.exceptions { color: var(--muted); font-size: .8rem; display: block; margin-top: .2rem; }
tr.new-family > * { border-top: 1.5px solid var(--muted); }
td.first { padding-left: 0; white-space: nowrap; }
.wrapped { white-space: normal; max-width: 16rem; }
@media print {
  .claims tbody, .needs tr { break-inside: avoid; }
  .claims tbody th { min-width: 36mm; }
  .claims td.looked, .needs td, .needs tbody th { min-width: 0; }
  td svg.spark { max-width: 18mm; height: auto; }
  table.scores, table.overview { font-size: 6.8pt; }
  .num { white-space: normal; }
}
"""

TEMPLATE = (
    r"""{% macro cell(c) %}
{% if c.why %}<span class="none" title="{{ c.why }}"><span aria-hidden="true">{{ c.text }}</span><span class="quiet-text">{{ c.why }}</span></span>{% else %}{{ c.text }}{% endif %}{% if c.below %}<span class="below">{{ c.below }}</span>{% endif %}{{ c.picture }}
{% endmacro %}
"""
    + HEAD
    + r"""<body>
<header>
<p class="kicker">Federated unlearning: {{ "comparison of the families" if is_comparison else "several runs" }}</p>
<h1>{{ title }}</h1>
<p class="lede">{{ summary }}</p>
<nav aria-label="Contents"><ul>
{% if needs %}<li><a href="#needs">Which strategy for which need</a></li>{% endif %}
{% if judgements %}<li><a href="#claims">What the surveys say</a></li>{% endif %}
{% if by_family %}<li><a href="#families">Family by family</a></li>{% endif %}
<li><a href="#overview">All at one glance</a></li>
<li><a href="#scenarios">Scenario by scenario</a></li>
{% if served %}<li><a href="#served">What each serves and demands</a></li>{% endif %}
<li><a href="#measures">What is measured</a></li>
{% if command %}<li><a href="#again">Do it again</a></li>{% endif %}
</ul></nav>
</header>
<main>
"""
    + WARNINGS
    + r"""{% if needs %}

<section aria-labelledby="needs">
<h2 id="needs">Which strategy for which need</h2>
<p>Named are strategies that forget: exact by construction, or closer to retraining than fine-tuning alone with the whole 95&nbsp;% interval; not merely suppressed, and not caught by the planted marker. Retraining always qualifies and is left out. The best by the need's own rule first, at most {{ choices }}. Numbers are means over the scenarios of the scope.</p>
{% for table in needs %}
<h3 id="needs-{{ loop.index }}">{{ table.title }}</h3>
<div class="scroll" tabindex="0" role="region" aria-labelledby="needs-{{ loop.index }}">
<table class="needs">
<thead><tr><th scope="col">Need<span class="unit">rule</span></th>{% for scope in table.scopes %}<th scope="col">A {{ scope }} is to be forgotten</th>{% endfor %}</tr></thead>
<tbody>
{% for need in table.rows %}
<tr><th scope="row">{{ need.name }}<span class="guarantee">{{ need.rule }}</span></th>
{% for c in need.cells %}
<td>{% if c.named %}<ol>{% for name, words in c.named %}<li><strong>{{ name }}</strong><span class="below">{{ words }}</span></li>{% endfor %}</ol>{% elif c.nearest %}<span class="none">none shown to forget</span><span class="below">next: {{ c.nearest | join(", ") }}</span>{% else %}<span class="none">nobody</span>{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
</section>
{% endif %}
{% if judgements %}

<section aria-labelledby="claims">
<h2 id="claims">What the surveys say, and what was found</h2>
<p>{{ judgements | length }} claims: {{ tally }}. A part holds where the whole 95&nbsp;% interval of the differences, paired by seed and averaged over the scenarios and strategies that it speaks of, lies on its side of the boundary (dashed). A claim is confirmed if all parts hold, contradicted if the interval of one, widened for their number, lies on the other side, inconclusive otherwise. There is no correction across claims. The claims are worded by this package, beside each the survey or paper that it follows. Exceptions are strategies whose own interval lies on the other side.</p>
<div class="scroll" tabindex="0" role="region" aria-labelledby="claims">
<table class="claims">
<thead><tr><th scope="col">Claim</th><th scope="col">Verdict</th><th scope="col">What was looked at</th><th scope="col">The claim needs</th><th scope="col" class="num">Found<span class="unit">95 % interval over seeds</span></th><th scope="col">Part</th></tr></thead>
{% for claim in judgements %}
<tbody>
{% for part in claim.parts %}
<tr{% if not loop.last %} class="within"{% endif %}>
{% if loop.first %}<th scope="rowgroup" rowspan="{{ claim.parts | length }}">{{ claim.text }}<p class="source">{{ claim.source }}</p>{% if claim.note %}<p class="source">{{ claim.note }}</p>{% endif %}</th>
<td rowspan="{{ claim.parts | length }}"><span class="verdict {{ claim.verdict }}">{{ claim.verdict }}</span></td>{% endif %}
<td class="looked">{{ part.text }}{% if part.exceptions %}<span class="exceptions">Exceptions: {{ part.exceptions | join("; ") }}.</span>{% endif %}</td>
<td>{{ part.needs }}</td>
<td class="num">{{ cell(part.cell) }}</td>
<td>{{ part.verdict }}{% if part.n %}<span class="below">{{ part.n }} seed{{ "s" if part.n > 1 }}</span>{% endif %}</td>
</tr>
{% endfor %}
</tbody>
{% endfor %}
</table>
</div>
</section>
{% endif %}

{% if by_family %}
<section aria-labelledby="families">
<h2 id="families">Family by family</h2>
<p>Means over the strategies and scenarios of a family, seed by seed, with their 95&nbsp;% interval over the seeds. Retraining itself is the measure and left out. Families of one scope may have been measured on different models, the traditional ones always.</p>
<div class="scroll" tabindex="0" role="region" aria-labelledby="families">
<table class="scores">
<thead><tr><th scope="col">Forgotten</th><th scope="col">Family<span class="unit">strategies</span></th>{% for _, heading, unit in columns %}<th scope="col" class="num">{{ heading }}<span class="unit">{{ unit }}</span></th>{% endfor %}</tr></thead>
<tbody>
{% for row in by_family %}
<tr{% if not loop.first and by_family[loop.index0 - 1].scope != row.scope %} class="new-family"{% endif %}><td class="first">{% if loop.first or by_family[loop.index0 - 1].scope != row.scope %}<strong>a {{ row.scope }}</strong>{% endif %}</td><th scope="row">{{ row.title }}<span class="guarantee wrapped">{{ row.names | join(", ") }}; {{ row.scenarios }} scenario{{ "s" if row.scenarios != 1 }}</span></th>
{% for c in row.cells %}<td class="num">{{ cell(c) }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
</section>
{% endif %}

<section aria-labelledby="overview">
<h2 id="overview">All at one glance</h2>
<p>Average gap to the retrained model of the same seed, mean and 95&nbsp;% interval; 0 is retraining itself. Only numbers of one scenario share data and model.</p>
{% for table in overviews %}
<h3 id="overview-{{ loop.index }}">{{ table.title }}</h3>
<div class="scroll" tabindex="0" role="region" aria-labelledby="overview-{{ loop.index }}">
<table class="overview">
<thead><tr><th scope="col">Strategy<span class="unit">family</span></th>{% for name in table.runs %}<th scope="col" class="num"><a href="#{{ name }}">{{ name }}</a></th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr{% if not loop.first and table.rows[loop.index0 - 1].family != row.family %} class="new-family"{% endif %}><th scope="row">{{ row.name }}<span class="guarantee">{{ row.family }}</span></th>{% for c in row.cells %}<td class="num">{{ cell(c) }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
</section>

<section aria-labelledby="scenarios">
<h2 id="scenarios">Scenario by scenario</h2>
{% for s in scenarios %}
<h3 id="{{ s.name }}">{{ s.name }}</h3>
<p>{{ s.clients }} clients share {{ s.data }} ({{ s.partition }}) and learn a model of kind {{ s.model }}; {{ s.asked or "something" }} is to be forgotten. Test accuracy before the request {{ s.original or dash }}, of the model retrained without it {{ s.retrained or dash }}; {{ s.seeds }} seed{{ "s" if s.seeds != 1 }}.</p>
<div class="scroll" tabindex="0" role="region" aria-labelledby="{{ s.name }}">
<table class="scores sortable">
<thead><tr><th scope="col">Strategy<span class="unit">family, guarantee</span></th><th scope="col">Course<span class="unit">test accuracy, 0 to 1</span></th>{% for _, heading, unit in columns %}<th scope="col" class="num">{{ heading }}<span class="unit">{{ unit }}</span></th>{% endfor %}<th scope="col">Marker<span class="unit">backdoor</span></th></tr></thead>
<tbody>
{% for line in s.lines %}
<tr{% if line.control and not loop.last and not s.lines[loop.index].control %} class="last-control"{% endif %}><th scope="row">{{ line.strategy }}<span class="guarantee">{{ line.family }}, {{ line.guarantee }}</span></th>
<td class="course">{{ line.course }}</td>
{% for c in line.cells %}<td class="num" data-sort="{{ '' if c.value is none else c.value }}">{{ cell(c) }}</td>
{% endfor %}
<td>{{ cell(line.marker) }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% if s.refused %}<details><summary>{{ s.refused | length }} did not answer</summary><dl class="pairs">{% for name, why in s.refused %}<dt>{{ name }}</dt><dd>{{ why }}</dd>{% endfor %}</dl></details>{% endif %}
{% endfor %}
</section>
{% if served %}

<section aria-labelledby="served">
<h2 id="served">What each serves and demands</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="served">
<table class="sortable">
<caption><span>As the strategies declare it; those in bold were measured here.</span></caption>
<thead><tr><th scope="col">Strategy<span class="unit">family</span></th><th scope="col">Scopes</th><th scope="col">Models</th><th scope="col">Guarantee</th><th scope="col">Kept while learning</th><th scope="col">Leaver helps</th></tr></thead>
<tbody>
{% for row in served %}
<tr{% if not loop.first and served[loop.index0 - 1].family != row.family %} class="new-family"{% endif %}><th scope="row">{% if row.measured %}{{ row.name }}{% else %}<span class="unit" style="display:inline">{{ row.name }}</span>{% endif %}<span class="guarantee">{{ row.title }}</span></th><td>{{ row.scopes | join(", ") }}</td><td>{{ row.models }}</td><td>{{ row.guarantee }}</td><td>{{ row.needs }}</td><td>{{ "yes" if row.asks else "no" }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
</section>
{% endif %}

<section aria-labelledby="measures">
<h2 id="measures">What is measured</h2>
<dl class="pairs">
<dt>Course</dt><dd>Mean test accuracy over the rounds since the request: the hollow dot is the model before it, the filled dot the lowest point, shaded rounds unlearn, the others recover; dashed is the level to be back at. All pictures of a scenario have one scale.</dd>
<dt>Drop</dt><dd>Test accuracy before the request less the lowest after it, over models at the end of rounds, and the unlearned model itself where no round was needed. For a forgotten class a part of it is owed: its test examples are still counted.</dd>
<dt>Back after</dt><dd>Rounds of unlearning and recovery from the request until test accuracy is within {{ margin }} of the level: the lower one of the model before the request and the retrained model's end. After “of” stands how many rounds were looked at; a model that was not back within them, or not with every seed, is said to be so.</dd>
<dt>Average gap</dt><dd>Mean absolute difference to the retrained model of the same seed over retain, forget and test accuracy, the membership attack's AUC and, if measured, backdoor success.</dd>
<dt>Examples, wall time, traffic</dt><dd>Of unlearning and recovery together, divided by retraining's at the same seed; evaluation is not counted. Examples are forward and backward passes over single examples.</dd>
<dt>Clients asked</dt><dd>Answers asked of clients for the unlearning itself, one per client and round, recovery left out.</dd>
<dt>History read</dt><dd>Bytes of what training left behind that the strategy read; it must have been kept for every client beforehand. 1 MB = 1,000,000 bytes.</dd>
<dt>Marker</dt><dd>“Forgotten”: the whole 95&nbsp;% interval of backdoor success, less the retrained model's, lies below 0.1; “not forgotten”: above. A dash: none was planted, or the original does not show it.</dd>
</dl>
</section>
{% if command %}

<section aria-labelledby="again">
<h2 id="again">Do it again</h2>
<pre><code>{{ command }}</code></pre>
{% if versions %}<p>Made with {% for name, number in versions.items() %}{{ name }} {{ number }}{{ ", " if not loop.last else "." }}{% endfor %}</p>{% endif %}
</section>
{% endif %}
</main>
<script>{{ script }}</script>
</body>
</html>
"""
)
