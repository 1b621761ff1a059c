"""The page over many finished comparisons, as a Jinja template."""

from experiments.reporting.page import HEAD

__all__ = ["TEMPLATE"]

TEMPLATE = (
    HEAD
    + r"""<body>
<header>
<p class="kicker">Federated unlearning: {{ runs | length }} run{{ "s" if runs | length != 1 }}</p>
<h1>Leaderboard</h1>
<p class="lede">Distances to retraining without the data, the smaller the better; means over the seeds of a run. A distance of 0 is that of a model which never saw them.</p>
</header>
<main>
{% for title, lines in groups %}
<h2 id="group-{{ loop.index }}">{{ title }}</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="group-{{ loop.index }}">
<table class="sortable board">
<thead><tr><th scope="col">Strategy<span class="unit">claim</span></th><th scope="col" class="num">Seeds</th><th scope="col" class="num">Forget gap<span class="unit">accuracy on the forget set</span></th><th scope="col" class="num">Backdoor gap</th><th scope="col" class="num">Member&shy;ship gap<span class="unit">AUC</span></th><th scope="col" class="num">Utility gap<span class="unit">test accuracy</span></th><th scope="col" class="num">Cost<span class="unit">examples, share of retraining's</span></th><th scope="col">Made by</th></tr></thead>
<tbody>
{% for line in lines %}
<tr><th scope="row">{{ line.strategy }}<span class="guarantee">{{ line.guarantee }}</span></th><td class="num" data-sort="{{ line.seeds }}">{{ line.seeds }}</td>
{% for value in line.numbers %}
<td class="num" data-sort="{{ "NaN" if value is none else value }}">{% if value is none %}<span class="none" title="not measured">{{ dash }}</span>{% else %}<a href="#run-{{ line.run }}">{{ "%.3f" | format(value) }}</a>{% endif %}</td>
{% endfor %}
<td><a href="#run-{{ line.run }}">{{ runs[line.run].name }}</a></td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
<h2 id="commands">The runs</h2>
<dl class="pairs">
{% for run in runs %}
<dt id="run-{{ loop.index0 }}">{{ run.name }}</dt><dd>{% if run.command %}<code>{{ run.command }}</code>{% else %}its command was not kept{% endif %}</dd>
{% endfor %}
</dl>
<p class="note">Numbers of different runs rest on different data, models and budgets; a difference between two lines is shown only where an audit says so. What is called approximate is no deletion.</p>
</main>
<script>{{ script }}</script>
</body>
</html>
"""
)
