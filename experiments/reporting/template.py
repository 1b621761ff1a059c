"""The report as a Jinja template: one HTML page that asks for nothing from anywhere.

It stands in a Python file because Flower bundles an app's Python files and leaves templates out.
"""

from experiments.reporting.page import HEAD, WARNINGS
from experiments.reporting.sections import AUDIT, KINDS

__all__ = ["TEMPLATE"]

TEMPLATE = (
    r"""{% macro cell(c, head="") %}
{% if c.why %}<span class="none" title="{{ c.why }}"><span aria-hidden="true">{{ c.text }}</span><span class="quiet-text">not measured: {{ c.why }}</span></span>{% else %}{% set parts = c.text.split(" ± ") %}{{ parts[0] }}{% if parts | length > 1 %}<span class="sd"> ± {{ parts[1] }}</span>{% endif %}{% endif %}
{% endmacro %}
{% macro td(c) %}
<td class="num" data-sort="{{ '' if c.value is none else c.value }}">{{ cell(c) }}{% if c.interval %}<span class="interval">{{ c.interval }}</span>{% endif %}{% if c.below %}<span class="below {{ c.below.replace(' the ', '-') if c.below.startswith(('within', 'beyond')) else '' }}">{{ c.below }}</span>{% endif %}</td>
{% endmacro %}
{% macro reasons(list) %}
{% if list %}
<p class="note">{{ dash }} stands for a number that was not measured:</p>
<ul class="note">{% for reason in list %}<li>{{ reason }}.</li>{% endfor %}</ul>
{% endif %}
{% endmacro %}
"""
    + HEAD
    + r"""<body>
<header>
<p class="kicker">Federated unlearning report</p>
<h1>{{ title }}</h1>
<p class="lede">{{ summary }}</p>
<nav aria-label="Contents"><ul>
{% if rows %}<li><a href="#scorecard">Scorecard</a></li>{% endif %}
{% if asked %}<li><a href="#requests">Request by request</a></li>{% endif %}
{% if audit %}<li><a href="#audit">Audit</a></li>{% endif %}
{% if differences %}<li><a href="#differences">Differences to retraining</a></li>{% endif %}
{% if timeline %}<li><a href="#course">Course</a></li>{% endif %}
{% if rows %}<li><a href="#cost">Cost</a></li>{% endif %}
{% if attack %}<li><a href="#attack">Attack</a></li>{% endif %}
{% if changes %}<li><a href="#changes">Who gains, who loses</a></li>{% endif %}
{% if tasks %}<li><a href="#tasks">Tasks</a></li>{% endif %}
{% if features %}<li><a href="#features">Features</a></li>{% endif %}
{% if text %}<li><a href="#text">Text</a></li>{% endif %}
{% if sites %}<li><a href="#sites">By site</a></li>{% endif %}
{% if rows %}<li><a href="#claim">How far the claim goes</a></li>
<li><a href="#measures">What is measured</a></li>{% endif %}
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
"""
    + WARNINGS
    + r"""</section>

{% if rows %}
<section aria-labelledby="scorecard">
<h2 id="scorecard">Scorecard</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="scorecard">
<table class="scores sortable">
<caption><span>{% if num_seeds > 1 %}Mean over {{ num_seeds }} seeds, below it the 95&nbsp;% interval.{% else %}One seed.{% endif %} All numbers are fractions or distances, never percent.{% if has_reference %} Last in each cell: the difference to the retrained model{% if num_seeds > 1 %}, mean of the pairs of one seed{% endif %}. Good is what is close to retraining, not what is high or low.{% endif %} The controls come first.</span></caption>
<thead><tr>
<th scope="col">Strategy<span class="unit">guarantee</span></th>
{% for name in scorecard.titles %}<th scope="col" class="num">{{ name }}</th>
{% endfor %}
<th scope="col">Marker</th>
</tr></thead>
<tbody>
{% for line in scorecard.lines %}
<tr{% if line.control and not loop.last and not scorecard.lines[loop.index].control %} class="last-control"{% endif %}>
<th scope="row">{{ line.strategy }}<span class="guarantee">{{ line.guarantee }}{% if line.seeds %}, {{ line.seeds }}{% endif %}</span></th>
{% for c in line.cells %}{{ td(c) }}
{% endfor %}
<td>{{ cell(line.verdict) }}{% if line.verdict.below %}<span class="below">{{ line.verdict.below }}</span>{% endif %}</td>
</tr>
{% endfor %}
</tbody>
</table>
</div>
{{ reasons(scorecard.reasons) }}
</section>
{% endif %}

{% if asked %}
<section aria-labelledby="requests">
<h2 id="requests">Request by request</h2>
<p>Fulfilled says that the work was done and the data deleted. Whether the model forgot is the verdict beside it, by the margins declared before the run: forgotten, not forgotten, inconclusive, or not measured.</p>
<div class="scroll" tabindex="0" role="region" aria-labelledby="requests">
<table class="prose requests">
<caption><span>Each request by itself, on its own forget set and on the final models{% if num_seeds > 1 %}; mean and 95&nbsp;% interval over {{ num_seeds }} seeds{% endif %}; below, the retrained model's.</span></caption>
<thead><tr><th scope="col">Request<span class="unit">who asked</span></th><th scope="col">Strategy<span class="unit">claim</span></th><th scope="col">State</th><th scope="col">Verdict</th><th scope="col" class="num">Forget accuracy</th><th scope="col" class="num">MIA AUC</th><th scope="col">Residual risk</th></tr></thead>
{% for request in asked %}
<tbody>
{% for fate in request.fates %}
<tr{% if not loop.last %} class="within"{% endif %}>
{% if loop.first %}<th scope="rowgroup" rowspan="{{ request.fates | length }}">Forget {{ request.what }}<span class="guarantee">{{ request.who }}{% if request.id %}, <code title="{{ request.id }}">{{ request.id[:short] }}</code>{% endif %}</span></th>{% endif %}
<th scope="row">{{ fate.strategy }}<span class="guarantee">{{ fate.guarantee }}</span></th>
<td>{{ fate.state }}{% if fate.reason %}<span class="below">{{ fate.reason }}</span>{% endif %}</td>
<td><strong>{{ fate.verdict }}</strong>{% if fate.why %}<span class="below">{{ fate.why }}</span>{% endif %}</td>
{% for c in fate.cells %}{{ td(c) }}{% endfor %}
<td>{{ fate.risk }}</td>
</tr>
{% else %}
<tr><th scope="row">Forget {{ request.what }}<span class="guarantee">{{ request.who }}</span></th><td colspan="6">Not answered.</td></tr>
{% endfor %}
</tbody>
{% endfor %}
</table>
</div>
</section>
{% endif %}

"""
    + AUDIT
    + r"""{% if differences %}
<section aria-labelledby="differences">
<h2 id="differences">Differences to retraining</h2>
{% if differences.picture %}
<figure>
<div class="scroll">{{ picture(differences.picture, "differences") }}</div>
<figcaption>Each model less the retrained model of the same seed{% if num_seeds > 1 %}: mean and 95&nbsp;% interval over {{ num_seeds }} seeds{% endif %}. Equal to retraining may be called what lies in the shaded margin with its whole interval. Hollow squares are controls.</figcaption>
</figure>
{% endif %}
<div class="scroll" tabindex="0" role="region" aria-labelledby="differences">
<table class="sortable">
<caption><span>Paired by seed; below: the 95&nbsp;% interval, and where it lies beside the margin declared before the run.{% if num_seeds == 1 %} One seed has no interval, so everything is undecided.{% endif %}</span></caption>
<thead><tr><th scope="col">Strategy</th>{% for title in differences.titles %}<th scope="col" class="num">{{ title }}<span class="unit">margin {{ differences.margins[loop.index0] }}</span></th>{% endfor %}</tr></thead>
<tbody>
{% for line in differences.lines %}
<tr{% if line.control and not loop.last and not differences.lines[loop.index].control %} class="last-control"{% endif %}><th scope="row">{{ line.strategy }}</th>{% for c in line.cells %}{{ td(c) }}{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{{ reasons(differences.reasons) }}
</section>
{% endif %}

{% if timeline %}
<section aria-labelledby="course">
<h2 id="course">Course of learning, unlearning and recovery</h2>
<figure>
<div class="scroll">{{ picture(timeline, "timeline") }}</div>
<figcaption>Fractions after each round{% if num_seeds > 1 %}; lines are means over {{ num_seeds }} seeds, bands reach from the lowest to the highest seed{% endif %}. {% if num_strategies > 2 %}All strategies answer from the same learned model; how{% else %}How{% endif %} far a panel reaches to the right shows how many rounds its answer took.{% if has_reference %} Diamonds show where the retrained model ended: the place to arrive at.{% endif %} The owners delete for good, and the history is purged, between unlearning and recovery.</figcaption>
</figure>
</section>
{% endif %}

{% if rows %}
<section aria-labelledby="cost">
<h2 id="cost">Cost</h2>
{% if trade_off %}
<figure>
<div class="scroll">{{ picture(trade_off, "trade_off") }}</div>
<figcaption>How close to retraining, for how much work: down is closer, left is cheaper. Hollow squares are controls{% if num_seeds > 1 %}; whiskers are 95&nbsp;% intervals over seeds{% endif %}. Above or near the dashed line nothing was gained over the original model.</figcaption>
</figure>
{% endif %}
<div class="scroll" tabindex="0" role="region" aria-labelledby="cost">
<table class="cost">
<caption><span>What the answer to the request cost, evaluation excluded{% if num_seeds > 1 %}; mean ± standard deviation over {{ num_seeds }} seeds{% endif %}. The original model's line is what learning cost; to prepare is what learning paid for one strategy alone, and counts in its total. Speed-ups compare totals with retraining's; 1 MB = 1,000,000 bytes.</span></caption>
<thead><tr>
<th scope="col">Strategy</th><th scope="col">Phase</th>
{% for name, heading, unit in work %}<th scope="col" class="num">{{ heading }}{% if unit %}<span class="unit">{{ unit }}</span>{% endif %}</th>
{% endfor %}
<th scope="col" class="num">History<span class="unit">MB</span></th>
<th scope="col" class="num">Speed-up<span class="unit">wall time</span></th>
<th scope="col" class="num">Speed-up<span class="unit">examples</span></th>
</tr></thead>
{% for line in cost.lines %}
{% if line.span %}<tbody>{% endif %}
<tr class="{{ 'total' if line.phase == 'total' else 'within' if line.phase in ('prepare', 'unlearn', 'recover') else '' }}">
{% if line.span %}<th scope="rowgroup" rowspan="{{ line.span }}">{{ line.strategy }}</th>{% endif %}
<td>{{ line.phase }}</td>
{% for c in line.cells %}<td class="num">{{ cell(c) }}</td>
{% endfor %}
{% if line.cells | length == work | length %}<td colspan="3"></td>{% endif %}
</tr>
{% if loop.last or cost.lines[loop.index].span %}</tbody>{% endif %}
{% endfor %}
</table>
</div>
{{ reasons(cost.reasons) }}
</section>
{% endif %}

{% if attack %}
<section aria-labelledby="attack">
<h2 id="attack">Membership attack</h2>
{% if attack.picture %}
<figure>
<div class="scroll">{{ picture(attack.picture, "attack") }}</div>
<figcaption>How many of the forget set an attacker finds who calls members what has a low loss, for every share of false alarms among data of the same owners never trained on. In the shaded band lie 95&nbsp;% of curves of one seed, at each share taken alone, if there is nothing to find; it is exact for these set sizes ({{ attack.members[0] }}{% if attack.members[1] != attack.members[0] %} to {{ attack.members[1] }}{% endif %} members, {{ attack.non_members[0] }}{% if attack.non_members[1] != attack.non_members[0] %} to {{ attack.non_members[1] }}{% endif %} others).</figcaption>
</figure>
{% endif %}
<div class="scroll" tabindex="0" role="region" aria-labelledby="attack">
<table class="sortable">
<caption><span>Area under the curve{% if num_seeds > 1 %}, mean and 95&nbsp;% interval over seeds{% endif %}, beside where it lies for 95&nbsp;% of single seeds if there is nothing to find.</span></caption>
<thead><tr><th scope="col">Strategy</th><th scope="col" class="num">AUC</th><th scope="col" class="num">Nothing to find</th><th scope="col" class="num">Seeds within</th></tr></thead>
<tbody>
{% for line in attack.lines %}
<tr{% if line.control and not loop.last and not attack.lines[loop.index].control %} class="last-control"{% endif %}><th scope="row">{{ line.strategy }}</th>{% for c in line.cells %}{{ td(c) }}{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
</section>
{% endif %}

{% if changes %}
<section aria-labelledby="changes">
<h2 id="changes">Who gains, who loses</h2>
{% if changes.picture %}
<figure>
<div class="scroll">{{ picture(changes.picture, "changes") }}</div>
<figcaption>Change in accuracy from the original model to each strategy's{% if num_seeds > 1 %}, mean over {{ num_seeds }} seeds{% endif %}: on every remaining client's own training data that stay, {% if changes.columns | length > 1 %}per {{ changes.by }} and over all; last row: on the test data{% else %}over all of them (the map of every {{ changes.by }} would be too large){% endif %}. Empty: no example. Orange loses, violet gains.</figcaption>
</figure>
{% endif %}
{% if changes.lines %}
<div class="scroll" tabindex="0" role="region" aria-labelledby="changes">
<table class="sortable">
<caption><span>The remaining clients against the retrained model of the same seed, on their own data that stay{% if num_seeds > 1 %}; 95&nbsp;% intervals over seeds{% endif %}. A client loses if it is more than {{ changes.margin }} below retraining.</span></caption>
<thead><tr><th scope="col">Strategy</th>{% for title in changes.titles %}<th scope="col" class="num">{{ title }}</th>{% endfor %}</tr></thead>
<tbody>
{% for line in changes.lines %}
<tr{% if line.control and not loop.last and not changes.lines[loop.index].control %} class="last-control"{% endif %}><th scope="row">{{ line.strategy }}</th>{% for c in line.cells %}{{ td(c) }}{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{{ reasons(changes.reasons) }}
{% endif %}
<details class="aside"><summary>The map as numbers</summary>
{% set full = changes.in_full and changes.columns | length > 1 %}
{% if not full and changes.columns | length > 1 %}<p class="note">Over all of a client's data; report.json holds every {{ changes.by }}.</p>{% endif %}
{% for change in changes.changes %}
<div class="scroll" tabindex="0" role="region" aria-label="Change in accuracy, {{ change.strategy }}">
<table class="map">
<caption><span>{{ change.strategy }}: change in accuracy as a fraction, original model to this one.</span></caption>
<thead><tr><th scope="col">Client</th>{% if full %}{% for name in changes.columns %}<th scope="col" class="num">{{ name }}</th>{% endfor %}{% endif %}<th scope="col" class="num">all</th></tr></thead>
<tbody>
{% for cells in change.cells %}
<tr><th scope="row">{{ changes.clients[loop.index0] }}</th>{% if full %}{% for value in cells %}<td class="num">{{ "%+.2f" | format(value) if value is not none else "" }}</td>{% endfor %}{% endif %}<td class="num">{{ "%+.3f" | format(change.of_clients[loop.index0]) if change.of_clients[loop.index0] is not none else "" }}</td></tr>
{% endfor %}
{% if full %}<tr><th scope="row">test data</th>{% for value in change.on_test %}<td class="num">{{ "%+.2f" | format(value) if value is not none else "" }}</td>{% endfor %}<td></td></tr>{% endif %}
</tbody>
</table>
</div>
{% endfor %}
</details>
</section>
{% endif %}

"""
    + KINDS
    + r"""{% if rows %}
<section aria-labelledby="claim">
<h2 id="claim">How far the claim goes</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="claim">
<table class="prose sortable">
<caption><span>What each result claims, what remains at risk, and what was measured of it here.</span></caption>
<thead><tr><th scope="col">Strategy<span class="unit">guarantee</span></th><th scope="col">It means</th><th scope="col">Residual risk</th><th scope="col">Seen in this run</th></tr></thead>
<tbody>
{% for claim in claims %}
<tr{% if claim.control and not loop.last and not claims[loop.index].control %} class="last-control"{% endif %}><th scope="row">{{ claim.strategy }}<span class="guarantee">{{ claim.guarantee }}</span></th><td>{{ claim.meaning }}</td><td>{{ claim.risk }}</td><td>{{ claim.seen }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
<p>{{ always }}</p>
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
{% for name, words in measures.items() %}<dt>{{ name }}</dt><dd>{{ words }}</dd>
{% endfor %}
{% if distances %}<dt>Array distance</dt><dd>Length of the difference to the retrained model's parameters over their length; information only, since it proves no forgetting: {% for name, value in distances.items() %}{{ name }} {{ value }}{{ ", " if not loop.last else "." }}{% endfor %}</dd>{% endif %}
</dl>
</section>

{% endif %}

<section aria-labelledby="ledger">
<h2 id="ledger">Ledger of requests</h2>
{% if events %}
<p>{{ events | length }} events, each chained to the one before by its hash; the chain is sound.{% if ledger_head %} Head at the end of the run: <code>{{ ledger_head }}</code>{% endif %}</p>
<details{% if not fold_events %} open{% endif %}><summary>All events</summary>
<div class="scroll" tabindex="0" role="region" aria-labelledby="ledger">
<table>
<caption><span>In the order written; times in UTC.</span></caption>
<thead><tr><th scope="col" class="num">No.</th><th scope="col">Time</th><th scope="col">Request</th><th scope="col">Branch</th><th scope="col">Event</th><th scope="col">Facts</th></tr></thead>
<tbody>
{% for event in events %}
<tr><td class="num">{{ event.seq }}</td><td><time datetime="{{ event.utc }}">{{ event.utc[:19] | replace("T", " ") }}</time></td><td><code title="{{ event.request }}">{{ event.request[:short] }}</code></td><td>{% if event.branch %}{{ event.branch }}{% else %}<span class="none" title="all branches"><span aria-hidden="true">{{ dash }}</span><span class="quiet-text">all branches</span></span>{% endif %}</td><td>{{ event.event }}</td><td class="facts">{% for name, value in event.facts %}<span><b>{{ name }}</b> {% if value | length == 64 %}<code title="{{ value }}">{{ value[:short] }}…</code>{% else %}{{ value }}{% endif %}</span> {% endfor %}</td></tr>
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
{% if rows %}<dl class="pairs"><dt>Strategies that ran</dt><dd>{{ ran.strategies | join(", ") }}</dd><dt>Seeds that ran</dt><dd>{{ ran.seeds | join(", ") }}</dd></dl>
{% endif %}
{% if command %}<pre><code>{{ command }}</code></pre>{% endif %}
{% if versions %}<p>Made with {% for name, number in versions.items() %}{{ name }} {{ number }}{{ ", " if not loop.last else "." }}{% endfor %}</p>{% endif %}
{% if digests %}
<h3 id="digests">Digests</h3>
<div class="scroll" tabindex="0" role="region" aria-labelledby="digests">
<table>
<caption><span>The files that this page tells of.</span></caption>
<thead><tr><th scope="col">File</th><th scope="col">SHA-256</th></tr></thead>
<tbody>{% for name, value in digests.items() %}<tr><th scope="row">{{ name }}</th><td><code>{{ value }}</code></td></tr>{% endfor %}</tbody>
</table>
</div>
{% endif %}
{% if rows %}
<h3>Results by seed</h3>
<div class="scroll" tabindex="0" role="region" aria-label="Results by seed">
<table class="sortable">
<caption><span>The same configuration and seed give the same model digest.</span></caption>
<thead><tr><th scope="col">Strategy</th><th scope="col" class="num">Seed</th>{% for name in metric_titles %}<th scope="col" class="num">{{ name }}</th>{% endfor %}<th scope="col">Model<span class="unit">SHA-256</span></th></tr></thead>
<tbody>
{% for row in rows %}
<tr><th scope="row">{{ row.strategy }}</th><td class="num" data-sort="{{ row.seed }}">{{ row.seed }}</td>{% for value in row.metrics.values() %}<td class="num" data-sort="{{ '' if value is none else value }}">{% if value is none %}<span class="none" title="not measured; the scorecard says why">{{ dash }}</span>{% else %}{{ "%.3f" | format(value) }}{% endif %}</td>{% endfor %}<td>{% if row.model_digest %}<code title="{{ row.model_digest }}">{{ row.model_digest[:short] }}…</code>{% else %}<span class="none" title="no digest was recorded">{{ dash }}</span>{% endif %}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
<h3>Configuration</h3>
<pre><code>{{ config }}</code></pre>
</section>
</main>
<script>{{ script }}</script>
</body>
</html>
"""
)
