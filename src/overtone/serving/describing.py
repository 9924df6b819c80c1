"""The routes that say what is served: models, metrics, the schema as a page."""

import html
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse, Response

from overtone.serving.predicting import Service


def describing_routes(service: Service) -> APIRouter:
    """`/v1/models` and `/metrics`."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models", summary="The models, with their labels and figures")
    async def models() -> dict[str, Any]:
        limits = service.limits
        return {
            "models": [model.describe() for model in service.models.values()],
            "limits": {
                "max_bytes": limits.max_bytes,
                "max_files": limits.max_files,
                "max_pixels": limits.max_pixels,
            },
            "explain": service.explains,
        }

    @router.get("/metrics", summary="Figures for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def add_docs(app: FastAPI) -> None:
    """`/docs`: the OpenAPI schema as plain HTML, without a script and without anything from elsewhere."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))


def docs_page(schema: dict[str, Any]) -> str:
    """An OpenAPI schema as HTML."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>{html.escape(schema['info']['title'])}</title></head><body>"
        f"<h1>{html.escape(schema['info']['title'])}</h1>"
        f"<p>{html.escape(schema['info'].get('description', ''))}</p>"
        '<p>The schema itself: <a href="/openapi.json">/openapi.json</a></p>'
    ]
    for path, methods in schema["paths"].items():
        for method, about in methods.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(about.get('summary', ''))}</p>")
            rows = [_parameter(parameter) for parameter in about.get("parameters", ())]
            kinds = ", ".join(about.get("requestBody", {}).get("content", ()))
            if kinds:
                rows.append(f"<li>body: {html.escape(kinds)}</li>")
            if rows:
                parts.append(f"<ul>{''.join(rows)}</ul>")
    return "".join([*parts, "</body></html>"])


def _parameter(parameter: dict[str, Any]) -> str:
    schema = parameter.get("schema", {})
    values = schema.get("enum") or [schema.get("type") or "/".join(s.get("type", "") for s in schema.get("anyOf", ()))]
    default = f" = {schema['default']}" if schema.get("default") is not None else ""
    text = f"{parameter['in']}: {', '.join(map(str, values))}{default}. {parameter.get('description', '')}"
    return f"<li><code>{html.escape(parameter['name'])}</code> {html.escape(text)}</li>"
