"""The page of a receipt, as a Jinja template; autoescaping is on."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Receipt of request {{ said.request }}</title>
<style>
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.fate { border: 1px solid var(--line); border-left-width: .4rem; padding: .6rem 1rem; }
.fulfilled { border-left-color: #1a7f37; } .open { border-left-color: #bf5700; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); }
th { width: 13rem; font-weight: 600; } code { overflow-wrap: anywhere; font-size: .85em; }
details { background: var(--soft); padding: .5rem 1rem; margin-top: .5rem; }
@media (max-width: 30rem) { th, td { display: block; width: auto; border: 0; padding: 0; } tr { display: block; border-bottom: 1px solid var(--line); padding: .4rem 0; } }
</style>
</head>
<body>
<h1>Receipt: forget {{ said.forget }}</h1>
<p>Request <code>{{ said.request }}</code>, made {{ receipt.made }}</p>
<p class="fate {{ 'fulfilled' if said.state == 'fulfilled' else 'open' }}"><strong>{{ fate }}</strong>{% if said.reason %}: {{ said.reason }}{% endif %}</p>

<h2>The request</h2>
<table>
<tr><th>Asked by</th><td>{{ said.asked_by }}</td></tr>
<tr><th>Scope</th><td>{{ said.scope }}</td></tr>
<tr><th>Received</th><td>{{ said.received }}</td></tr>
<tr><th>Due</th><td>{{ said.due or "not recorded" }}{% for why in said.extended_because %}; extended: {{ why }}{% endfor %}</td></tr>
<tr><th>Done</th><td>{{ said.done or "not yet" }}</td></tr>
</table>

{% if said.strategy %}
<h2>What was done</h2>
<table>
<tr><th>Strategy</th><td>{{ said.strategy }} <code>{{ said.options }}</code></td></tr>
<tr><th>Its claim</th><td>{{ said.claim }}{% if said.claim_in_words %}: {{ said.claim_in_words }}{% endif %}</td></tr>
<tr><th>Model before</th><td><code>{{ said.model_before or "-" }}</code></td></tr>
<tr><th>Model after</th><td><code>{{ said.model_after or "-" }}</code></td></tr>
{% if said.deleted %}<tr><th>Deleted from the history</th><td>{{ said.deleted.files }} file(s), {{ said.deleted.bytes }} bytes; root over their digests before <code>{{ said.deleted.root }}</code></td></tr>{% endif %}
<tr><th>Owners who confirmed the deletion</th><td>{% if said.owners_confirmed %}client {% endif %}{{ said.owners_confirmed | join(", ") or "none" }}</td></tr>
<tr><th>Owners who did not</th><td>{% if said.owners_not_confirmed %}client {% endif %}{{ said.owners_not_confirmed | join(", ") or "none" }}</td></tr>
</table>
{% if said.deleted and said.deleted.first %}<details><summary>Deleted files with their digests before{% if said.deleted.files > said.deleted.first | length %} (the first {{ said.deleted.first | length }}){% endif %}</summary>
{% for line in said.deleted.first %}<code>{{ line }}</code><br>{% endfor %}</details>{% endif %}

<h2>Evidence</h2>
<p>Verdict against a model retrained without the data: <strong>{{ said.verdict }}</strong>.</p>
<table>
{% for name, value in said.measures | dictsort %}<tr><th>{{ name | replace("_", " ") }}</th><td>{{ value }}</td></tr>
{% endfor %}{% for name in said.not_measured %}<tr><th>{{ name | replace("_", " ") }}</th><td>not measured</td></tr>
{% endfor %}</table>
{% endif %}

<h2>What remains open</h2>
<ul>
{% for risk in risks %}<li>{{ risk }}</li>
{% endfor %}{% if said.model_after and said.model_after == said.model_before and said.claim not in ("exact", "certified") %}<li>no weight was changed for it: what learning on without the data takes away is all</li>
{% endif %}{% if said.owners_not_confirmed %}<li>client {{ said.owners_not_confirmed | join(", ") }} has not confirmed the deletion of its own copy</li>
{% endif %}</ul>
<p>A receipt cannot prove:</p>
<ul>{% for limit in receipt.cannot_prove %}<li>{{ limit }}</li>
{% endfor %}</ul>

<h2>How to check it</h2>
<p><code>fedunlearn receipt check receipt.json --key ledger.pub</code> works with nothing but this file and the operator's public key. The key that signed has the fingerprint <code>{{ fingerprint }}</code>; the ledger had {{ receipt.head.size }} events, its root is <code>{{ receipt.head.root }}</code>.{% if receipt.anchor is defined %} A file outside the run folder, the ledger's anchor: {{ receipt.anchor }}.{% endif %}</p>
<script type="application/json" id="receipt">{{ embedded | safe }}</script>
</body>
</html>
"""
