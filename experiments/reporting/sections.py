"""Sections of the report that not every run has: the audit; tasks, features and text."""

__all__ = ["AUDIT", "KINDS"]

AUDIT = r"""{% if audit %}
<section aria-labelledby="audit">
<h2 id="audit">Audit</h2>
<p>{% if audit.models_per_side %}{{ audit.models_per_side }} models on every side, each from a federation of its own: {% endif %}retrained ones say what each measure shows when there is nothing to find, original ones what it shows when nothing was forgotten. A measure that fails either is greyed and decides nothing.{% if audit.exploratory %} <strong>So few models allow a first look only.</strong>{% endif %}</p>
<h3 id="audit-verdicts">Verdicts</h3>
<div class="scroll" tabindex="0" role="region" aria-labelledby="audit-verdicts">
<table class="prose sortable">
<caption><span>Drawn only from measures whose card passes{% if audit.margins %}; a difference within the margin counts as none ({% for name, margin in audit.margins %}{{ name }}: {{ margin }}{{ ", " if not loop.last else ")" }}{% endfor %}{% endif %}.</span></caption>
<thead><tr><th scope="col">Strategy<span class="unit">guarantee</span></th><th scope="col">Verdict</th><th scope="col" class="num">More seeds needed</th><th scope="col">What it rests on</th></tr></thead>
<tbody>
{% for row in audit.rows %}
<tr{% if row.control and not loop.last and not audit.rows[loop.index].control %} class="last-control"{% endif %}><th scope="row">{{ row.strategy }}<span class="guarantee">{{ row.guarantee }}</span></th><td>{{ cell(row.verdict) }}</td>{{ td(row.more_seeds) }}<td>{{ row.why }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
<h3 id="audit-cards">Validity cards</h3>
<p>Measured in this very scenario: how often a measure raises an alarm between two retrained models, how well it tells original from retrained, and whether it grows with the share of the forget set still trained on.</p>
<ul class="cards" aria-labelledby="audit-cards">
{% for card in audit.cards %}
<li{% if not card.passes %} class="failed"{% endif %}>
<h4>{{ card.id }} {{ card.title }}</h4>
<p>{{ card.verdict }}</p>
<dl>
<dt>False alarms</dt><dd>{{ cell(card.false_alarms) }}{% if card.false_alarms.interval %}<span class="interval">{{ card.false_alarms.interval }}</span>{% endif %}</dd>
<dt>Separation, AUC</dt><dd>{{ cell(card.separation) }}</dd>
<dt>Dose, Spearman</dt><dd>{{ cell(card.dose) }}{% if card.dose.below %}<span class="below">{{ card.dose.below }}</span>{% endif %}</dd>
{% if card.perfect %}<dt>Perfect</dt><dd>{{ card.perfect }}{% if card.unit %} ({{ card.unit }}){% endif %}</dd>{% endif %}
{% if card.source %}<dt>Source</dt><dd>{{ card.source }}</dd>{% endif %}
</dl>
</li>
{% endfor %}
</ul>
{% if audit.picture %}
<h3 id="audit-roc">Likelihood-ratio attack (U-LiRA)</h3>
<figure>
<div class="scroll">{{ picture(audit.picture, "audit") }}</div>
<figcaption>Telling unlearned from retrained models by the likelihood ratio of their confidence on the forget set. The band lies between two curves whose areas are the ends of the 95&nbsp;% range of the area if there is nothing to find. Along the diagonal: indistinguishable from retraining.</figcaption>
</figure>
{% endif %}
<h3 id="audit-measures">Every measure</h3>
{% for part in audit.metrics %}
{% if part.lines %}
<details{% if part.card.passes and part.card.decides %} open{% endif %}><summary>{{ part.card.id }} {{ part.card.title }}{% if not part.card.passes %} ({{ "card failed" if part.card.was_tried else "not applicable" }}){% endif %}</summary>
<div class="scroll" tabindex="0" role="region" aria-label="{{ part.card.id }} {{ part.card.title }}">
<table class="sortable{% if not part.card.passes %} failed{% endif %}">
<caption><span>{{ part.card.title }}{% if part.card.unit %}, {{ part.card.unit }}{% endif %}; 95&nbsp;% intervals below. Calibrated: 0 is retraining, 1 is the original model.{% if not part.card.passes %} {{ part.card.verdict }}{% endif %}</span></caption>
<thead><tr><th scope="col">Strategy</th><th scope="col" class="num">Value</th><th scope="col" class="num">Calibrated</th><th scope="col" class="num">p, Holm</th><th scope="col">Equal within the margin</th></tr></thead>
<tbody>
{% for strategy, control, cells in part.lines %}
<tr{% if control and not loop.last and not part.lines[loop.index][1] %} class="last-control"{% endif %}><th scope="row">{{ strategy }}</th>{% for c in cells[:-1] %}{{ td(c) }}{% endfor %}<td>{{ cell(cells[-1]) }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
</details>
{% endif %}
{% endfor %}
<h3>How it was made</h3>
{% if audit.command %}<pre><code>{{ audit.command }}</code></pre>{% endif %}
<dl class="pairs">{% for name, value in audit.facts %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
</section>
{% endif %}

"""

KINDS = r"""{% if tasks %}
<section aria-labelledby="tasks">
<h2 id="tasks">Tasks</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="tasks">
<table class="sortable">
<caption><span>What was measured of each task{% if num_seeds > 1 %}: mean and 95&nbsp;% interval over seeds{% endif %}.</span></caption>
<thead><tr><th scope="col">Measure</th><th scope="col">Task</th>{% for name in tasks.strategies %}<th scope="col" class="num">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for line in tasks.lines %}
<tr><th scope="row">{{ line.measure }}</th><td>{{ line.task }}</td>{% for c in line.cells %}{{ td(c) }}{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{{ reasons(tasks.reasons) }}
</section>
{% endif %}

{% if features %}
<section aria-labelledby="features">
<h2 id="features">Features</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="features">
<table class="sortable wordy">
<caption><span>How each model still reacts to the features that were withdrawn{% if num_seeds > 1 %}: mean and 95&nbsp;% interval over seeds{% endif %}. To be as retraining's; a sensitivity of 0 is not the goal, because clients that did not withdraw them go on teaching them.</span></caption>
<thead><tr><th scope="col">Measure</th>{% for name in features.strategies %}<th scope="col" class="num">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for line in features.lines %}
<tr><th scope="row">{{ line.measure }}</th>{% for c in line.cells %}{{ td(c) }}{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
<p>Sensitivity: mean change of the logits per unit of noise on the features. Attribute inference: the attacker knows a row but for them, tries a low and a high value and takes the one that the model's loss likes better; on rows never trained on it finds what the population gives away by itself.</p>
{{ reasons(features.reasons) }}
</section>
{% endif %}

{% if sites %}
<section aria-labelledby="sites">
<h2 id="sites">By site</h2>
<p>The data are the sites' own: each told how many examples it has in a split and how many the model got right, and nothing of a split with fewer than 10. The numbers above are sums over what was told; where nobody could tell, there is none. A site that was to be forgotten told of the forget split before it deleted, and of nothing afterwards.</p>
<div class="scroll" tabindex="0" role="region" aria-labelledby="sites">
<table>
<caption><span>Accuracy of models on the sites' own data, as the sites told.</span></caption>
<thead><tr><th scope="col">Model</th><th scope="col">Client</th>{% for name in sites.splits %}<th scope="col" class="num">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for line in sites.lines %}
<tr><th scope="row">{{ line.strategy }}</th><td class="num">{{ line.client }}</td>{% for c in line.cells %}{{ td(c) }}{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{{ reasons(sites.reasons) }}
</section>
{% endif %}

{% if text %}
<section aria-labelledby="text">
<h2 id="text">Text</h2>
<p>What a number is where there is nothing to remember, the retrained model shows: perplexity of the forget set that of any text like it, and nothing of it completed that could not be guessed. {{ text.note }}</p>
<div class="scroll" tabindex="0" role="region" aria-labelledby="text">
<table class="wordy">
<caption><span>What models still say of the text{% if num_seeds > 1 %}: mean and 95&nbsp;% interval over seeds{% endif %}.</span></caption>
<thead><tr><th scope="col">Measure</th>{% for name in text.strategies %}<th scope="col" class="num">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for line in text.lines %}
<tr><th scope="row">{{ line.measure }}</th>{% for c in line.cells %}{{ td(c) }}{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{{ reasons(text.reasons) }}
</section>
{% endif %}

"""
