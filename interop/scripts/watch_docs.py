"""Holds docs/operators/watch.md, alerts.yml, alerts.test.yml and grafana.json to what a relay exposes and logs.

Every metric and label value that they name is there, and every family that is exposed and every event that is logged is explained. The
relay has to have everything switched on that brings metrics of its own.
"""

import glob
import json
import os
import re
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OPERATORS = os.path.join(ROOT, "docs", "operators")
ALERT = re.compile(r"^ *- alert: (\w+)\n(.*?)(?=^ *- alert:|\Z)", re.MULTILINE | re.DOTALL)
ANNOTATIONS = ("for:", "severity:", "summary:", "description:")
# What Prometheus and Grafana write themselves, or the operator.
FREE_LABELS = {"job", "instance"}
NAME = re.compile(r"\bmillrace_\w+")


def read(name):
    with open(os.path.join(OPERATORS, name), encoding="utf-8") as file:
        return file.read()


class Exposed:
    """What the text format of Prometheus tells."""

    def __init__(self, text):
        self.families = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
        self.names = set()
        self.labels = {}
        for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", text, re.MULTILINE):
            self.names.add(name)
            for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels):
                self.labels.setdefault((name, label), set()).add(value)

    def problems(self, expression):
        """What an expression asks for in vain."""
        for name in sorted(set(NAME.findall(expression)) - self.names - self.families):
            yield f"{name} is not exposed"
        for name, selectors in re.findall(r"\b(millrace_\w+)\{([^}]*)\}", expression):
            for label, values in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', selectors):
                known = self.labels.get((name, label), set())
                if label not in FREE_LABELS and not set(values.split("|")) <= known:
                    yield f"{name} has no {label}={values!r}, but {sorted(known)}"


def expressions(node):
    """Of a dashboard, those of its panels and variables, as Grafana would send them."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "definition") and isinstance(value, str):
                yield value.replace("$__rate_interval", "5m").replace("$instance", ".*")
            else:
                yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


def sources():
    """The code that logs, and what it logs the errors of, with string literals on one line each."""
    for folder in ("relay/*/src", "pagecache/src"):
        for path in sorted(glob.glob(os.path.join(ROOT, folder, "**", "*.rs"), recursive=True)):
            with open(path, encoding="utf-8") as file:
                yield re.sub(r"\\\n\s*", "", file.read())


def events(code):
    """The fixed parts of each message that is logged by default. One without, as "{error}", tells nothing here."""
    for call in re.finditer(r"tracing::(?:info|warn|error)!\(", code):
        depth, literals, at = 1, [], call.end()
        while depth:
            literal = re.compile(r'"((?:[^"\\]|\\.)*)"').match(code, at)
            literals += [literal.group(1)] if literal else []
            depth += {"(": 1, ")": -1}.get(code[at], 0)
            at = literal.end() if literal else at + 1
        parts = [part.strip(" :;,") for part in re.split(r"\{[^}]*\}", literals[0] if literals else "")]
        if any(len(part) > 3 for part in parts):
            yield parts


def told(watch):
    """The fixed parts of each event that watch.md explains: what is in backticks in the first column, with … for the rest."""
    for cell in re.findall(r"^\| (.*?) \|", watch[watch.index("## Log events"):], re.MULTILINE):
        for text in re.findall(r"`([^`]+)`", cell):
            yield cell.startswith("`"), [part.strip(" :;,") for part in text.split("…") if len(part) > 3]


def check_events(watch):
    code = "\n".join(sources())
    explained = [part for _, parts in told(watch) for part in parts]
    for event in events(code):
        if not any(part == fixed or len(part) > 12 and fixed.startswith(part) for part in explained for fixed in event):
            yield f"watch.md does not explain the event {' … '.join(event)!r}"
    for is_literal, parts in told(watch):
        yield from (f"watch.md: no event says {part!r}" for part in parts if is_literal and part not in code)


def check_watch(exposed, watch):
    named = set(NAME.findall(watch))
    yield from (f"watch.md: {name} is not exposed" for name in sorted(named - exposed.families))
    yield from (f"watch.md does not explain {name}" for name in sorted(exposed.families - named))
    for (name, label), values in sorted(exposed.labels.items()):
        if (name, label) == ("millrace_closed_total", "reason"):
            yield from (f"watch.md does not explain {label} {value}" for value in sorted(values) if f"`{value}`" not in watch)
    yield from check_events(watch)


def check_alerts(exposed, alerts, tests):
    yield from (f"alerts.yml: {problem}" for problem in exposed.problems(alerts))
    yield from (f"alerts.test.yml: {problem}" for problem in exposed.problems(re.sub(r',?(job|instance)="\w+",?', "", tests)))
    for name, body in ALERT.findall(alerts):
        yield from (f"alerts.yml: {name} has no {key}" for key in ANNOTATIONS if key not in body)
        if f'alertname="{name}"' not in tests:
            yield f"alerts.test.yml: {name} is never seen to fire"


def check_dashboard(exposed, dashboard):
    found = list(expressions(dashboard))
    if not found:
        yield "grafana.json has no expressions"
    for expression in found:
        yield from (f"grafana.json: {problem}" for problem in exposed.problems(expression))
    rules = [{"record": "panel", "labels": {"n": str(n)}, "expr": one} for n, one in enumerate(found) if "label_values" not in one]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
        file.flush()
        yield from promtool("check", "rules", file.name)


def promtool(*arguments):
    ran = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    if ran.returncode != 0:
        yield f"promtool {' '.join(arguments)}: {(ran.stdout + ran.stderr).strip()}"


def problems(metrics):
    """Everything that is wrong, given the answer of /metrics."""
    exposed = Exposed(metrics)
    yield from check_watch(exposed, read("watch.md"))
    yield from check_alerts(exposed, read("alerts.yml"), read("alerts.test.yml"))
    yield from check_dashboard(exposed, json.loads(read("grafana.json")))
    yield from promtool("check", "rules", os.path.join(OPERATORS, "alerts.yml"))
    yield from promtool("test", "rules", os.path.join(OPERATORS, "alerts.test.yml"))
