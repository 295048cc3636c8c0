"""The HTML around a report's charts."""

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ name }}: report of the fit</title>
{{ resources }}
<style>
  :root { --ink: #1d2329; --soft: #5b6670; --line: #dfe3e8; --paper: #f5f6f8; }
  * { box-sizing: border-box; }
  body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
         font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
  main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 60px; }
  h1 { font-size: 26px; margin: 0 0 6px; overflow-wrap: anywhere; }
  h2 { font-size: 19px; margin: 38px 0 12px; }
  h3 { font-size: 15px; margin: 0 0 2px; }
  p { margin: 0 0 8px; }
  .lead { font-size: 17px; max-width: 900px; }
  .note { color: var(--soft); font-size: 13px; min-height: 2.9em; }
  .grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)); gap: 16px; }
  .card { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; min-width: 0; }
  .wide { grid-column: 1 / -1; } .wide .note { min-height: 0; }
  .finding { background: #fff; border: 1px solid var(--line); border-left: 6px solid var(--mark); border-radius: 6px;
             padding: 12px 16px; margin-bottom: 10px; max-width: 1000px; }
  .finding b { color: var(--mark); margin-right: 6px; }
  .serious { --mark: #a63c00; } .warning { --mark: #9a6a00; } .hint { --mark: #0072b2; } .good { --mark: #00724f; }
  .try { margin: 4px 0 0; } .finding code { white-space: nowrap; }
  table { border-collapse: collapse; width: 100%; font-size: 14px; }
  th, td { text-align: left; padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top;
           overflow-wrap: anywhere; }
  thead th { font-size: 13px; }
  tr:last-child > * { border-bottom: 0; }
  th { font-weight: 600; }
  td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
  tbody th { font-weight: 400; color: var(--soft); width: 46%; }
  details { margin-top: 10px; font-size: 14px; }
  summary { cursor: pointer; color: #0072b2; }
  code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 0.93em; }
</style>
</head>
<body>
<main>
<h1>{{ name }}</h1>
<p class="lead">{{ verdict }}</p>

<h2>Diagnosis</h2>
{% for finding in findings %}
<section class="finding {{ finding.severity }}">
  <h3><b>{{ marks[finding.severity] }}</b>{{ finding.what }}</h3>
  <p>{{ code(finding.evidence) }}</p>
  <p class="try"><strong>Try next:</strong> {{ code(finding.try_next) }}</p>
</section>
{% endfor %}

<h2>What was made</h2>
<div class="grid">
  <section class="card">
    <h3>The fit</h3>
    <table><tbody>
    {% for label, value in facts.items() %}<tr><th scope="row">{{ label }}</th><td>{{ value }}</td></tr>
    {% endfor %}</tbody></table>
  </section>
  <section class="card">
    <h3>Quality on held-back data</h3>
    <table>
      <thead><tr><th>Steps ahead</th><th class="number">Error / last value's</th>
        <th class="number">Coverage of the 90% interval</th></tr></thead>
      <tbody>{% for ahead, error, coverage in quality %}
      <tr><td>{{ ahead }}</td><td class="number">{{ "%.3f" % error }}</td>
        <td class="number">{{ "%.1f" % (100 * coverage) }}%</td></tr>{% endfor %}</tbody>
    </table>
    <p class="note">Error: mean absolute error of the median forecast divided by that of repeating the last value, below
      1 is better; geometric mean over the series.</p>
    <h3>{{ recipe_title }}</h3>
    {% if changed %}<table><tbody>
    {% for label, value in changed.items() %}<tr><th scope="row"><code>{{ label }}</code></th>
      <td><code>{{ value }}</code></td></tr>
    {% endfor %}</tbody></table>{% else %}<p>Every setting has its default.</p>{% endif %}
    <details><summary>All settings</summary><table><tbody>
    {% for label, value in settings.items() %}<tr><th scope="row"><code>{{ label }}</code></th>
      <td><code>{{ value }}</code></td></tr>
    {% endfor %}</tbody></table></details>
  </section>
</div>

{% for title, panels in sections %}
<h2>{{ title }}</h2>
<div class="grid">
  {% for panel, chart in panels %}
  <section class="card{{ ' wide' if panel.wide }}">
    <h3>{{ panel.title }}</h3>
    <p class="note">{{ panel.note }}</p>
    {{ chart }}
  </section>
  {% endfor %}
</div>
{% endfor %}
</main>
{{ script }}
</body>
</html>
"""
