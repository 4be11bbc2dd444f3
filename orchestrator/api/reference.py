"""Writes the reference of the HTTP API: `python -m orchestrator.api.reference > docs/api-reference.md`.

It knows the OpenAPI document alone; what there is to say about an operation is said where the operation is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from jinja2 import Environment, StrictUndefined

from orchestrator.api.openapi import document

Schema = dict[str, Any]
TEMPLATE = """\
# API reference

Made from [openapi.json](openapi.json) by `python -m orchestrator.api.reference`; [api.md](api.md) is the guide. Every \
operation may also answer {{ problems | join(", ") }} with a problem (`application/problem+json`). A star marks what \
must be given.
{% for tag in tags %}

## {{ tag | capitalize }}

| operation | | scope |
| --- | --- | --- |
{% for one in operations if one.tag == tag -%}
| [`{{ one.method }} {{ one.path }}`](#{{ one.name }}) | {{ one.first | cell }} | {{ one.scope }} |
{% endfor %}
{%- for one in operations if one.tag == tag %}
<a id="{{ one.name }}"></a>
### `{{ one.method }} {{ one.path }}`

`{{ one.name }}` · {{ one.text }}
{% if one.fields %}
| field | in | type | |
| --- | --- | --- | --- |
{% for field in one.fields -%}
| `{{ field.name }}`{{ field.star }} | {{ field.place }} | {{ field.type | cell }} | {{ field.text | cell }} |
{% endfor %}
{%- endif %}
{%- if one.bodies %}
Body: {{ one.bodies | join(", ") }}.
{% endif %}
Answers: {{ one.answers | join("; ") }}.
{% endfor %}
{%- endfor %}"""


def reference(spec: Schema) -> str:
    """Return the reference as Markdown."""
    made = Environment(undefined=StrictUndefined, autoescape=False)
    made.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    operations = list(_operations(spec))
    tags = list(dict.fromkeys(one["tag"] for one in operations))
    found = made.from_string(TEMPLATE).render(operations=operations, tags=tags, problems=_problems(spec))
    return found.rstrip() + "\n"


def _problems(spec: Schema) -> list[str]:
    every = [set(said["responses"]) for methods in spec["paths"].values() for said in methods.values()]
    return [f"{status}" for status in sorted(set.intersection(*every)) if status >= "400"]


def _operations(spec: Schema) -> Iterator[dict[str, Any]]:
    usual = _problems(spec)
    for path, methods in spec["paths"].items():
        for method, said in methods.items():
            content = said.get("requestBody", {}).get("content", {})
            text = said.get("description") or said["summary"]
            security = said.get("security")
            yield {
                "tag": said["tags"][-1],
                "method": method.upper(),
                "path": path,
                "name": said["operationId"],
                "text": text,
                "first": text.partition("\n")[0],
                "scope": ", ".join(next(iter(security[0].values()))) if security else "no key",
                "fields": [*_parameters(said, spec), *_body(content, spec)],
                "bodies": [f"`{kind}`" for kind in content],
                "answers": [
                    _answer(status, answer) for status, answer in said["responses"].items() if status not in usual
                ],
            }


def _answer(status: str, said: Schema) -> str:
    text = said["description"].removeprefix("Successful Response").rstrip(".")
    kinds = ", ".join(f"`{kind}`" for kind in said.get("content", {}))
    return " ".join(part for part in (status, text, kinds and f"({kinds})") if part)


def _parameters(said: Schema, spec: Schema) -> Iterator[dict[str, Any]]:
    for one in said.get("parameters", []):
        yield _field(one["name"], one["in"], one["schema"], one.get("required", False), one.get("description"), spec)


def _body(content: Schema, spec: Schema) -> Iterator[dict[str, Any]]:
    for kind in ("application/json", "multipart/form-data", "application/x-www-form-urlencoded"):
        if kind in content:
            schema = _whole(content[kind]["schema"], spec)
            known = spec | schema  # a body that stands here whole brings its own $defs
            for name, field in schema.get("properties", {}).items():
                yield _field(name, "body", field, name in schema.get("required", []), None, known)
            return


def _field(name: str, place: str, schema: Schema, required: bool, text: str | None, spec: Schema) -> dict[str, Any]:
    default = schema.get("default")
    shown = "" if required or default in (None, [], ()) else f"default `{json.dumps(default)}`"
    said = [text or schema.get("description") or "", shown]
    return {
        "name": name,
        "place": place,
        "type": _type(schema, spec),
        "star": "*" if required else "",
        "text": ". ".join(part.rstrip(".") for part in said if part),
    }


def _whole(schema: Schema, spec: Schema) -> Schema:
    """Return what a schema says, a reference followed; alternatives with null count as the other one."""
    if "$ref" in schema:
        found: Any = spec
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return _whole(found, spec)
    others = [one for one in schema.get("anyOf", []) if one.get("type") != "null"]
    return _whole(others[0], spec) if len(others) == 1 else schema


def _type(schema: Schema, spec: Schema) -> str:
    found = _whole(schema, spec)
    if "enum" in found or "const" in found:
        return " or ".join(f"`{word}`" for word in found.get("enum", [found.get("const")]))
    if found.get("type") == "array":
        inner = _type(found["items"], spec) if "items" in found else "anything"
        return f"list of {inner}"
    if "properties" in found:
        names = ", ".join(f"`{name}`" for name in found["properties"])
        return f"object of {names}"
    return f"{found.get('type', 'any')}{_bounds(found)}"


def _bounds(found: Schema) -> str:
    low, high = found.get("minimum", found.get("minLength")), found.get("maximum", found.get("maxLength"))
    if found.get("format"):
        return f" ({found['format']})"
    if low is None and high is None:
        return ""
    unit = " characters" if found["type"] == "string" else ""
    if low is None or high is None:
        return f" (at least {low}{unit})" if high is None else f" (at most {high}{unit})"
    return f" ({low} to {high}{unit})"


if __name__ == "__main__":
    sys.stdout.write(reference(json.loads(document())))
