"""Every route against every scope, and pages against ids of another owner. A route without its line here fails."""

from __future__ import annotations

import re

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from orchestrator.access import keys
from orchestrator.api.app import ROUTERS
from tests.unit.orchestrator.api.conftest import Client
from tests.unit.orchestrator.played import AddPerson, Played

OPEN = "-"
TABLE = """
DELETE /v1/identities/{identity_id} people
DELETE /v1/identities/{identity_id}/consents/{scope} people
DELETE /v1/people/{who} people
DELETE /v1/schedules/{name} write
DELETE /v1/uploads/{upload_id} write
DELETE /v1/webhooks/{webhook_id} write
GET / read
GET /batches read
GET /batches/{batch_id} read
GET /batches/{batch_id}/review read
GET /batches/{batch_id}/sheet read
GET /batches/{batch_id}/tiles read
GET /faces people
GET /faces/unsorted people
GET /faces/{face_id}/picture people
GET /faces/{who} people
GET /health/live -
GET /health/ready -
GET /health/work -
GET /help read
GET /items/{item_id} read
GET /items/{item_id}/preview read
GET /login -
GET /metrics admin
GET /models read
GET /models/compare read
GET /models/{model_id} read
GET /new people
GET /notices write
GET /people people
GET /people/added/{batch_id} people
GET /people/{identity_id} people
GET /people/{identity_id}/face people
GET /people/{identity_id}/references/{reference_id} people
GET /pictures/{output_id}/{size} read
GET /restore people
GET /schedules read
GET /static/{name} -
GET /training read
GET /training/{run_id} read
GET /training/{run_id}/samples/{step} read
GET /v1/artifacts/{artifact_id}/link read
GET /v1/batches read
GET /v1/batches/{batch_id} read
GET /v1/batches/{batch_id}/errors read
GET /v1/batches/{batch_id}/events read
GET /v1/batches/{batch_id}/files read
GET /v1/batches/{batch_id}/items read
GET /v1/batches/{batch_id}/pictures read
GET /v1/batches/{batch_id}/progress read
GET /v1/batches/{batch_id}/results read
GET /v1/batches/{batch_id}/results.csv read
GET /v1/datasets read
GET /v1/datasets/diff read
GET /v1/datasets/{version} read
GET /v1/evaluations read
GET /v1/events read
GET /v1/files/{token} -
GET /v1/identities people
GET /v1/identities/{identity_id} people
GET /v1/identities/{identity_id}/references/{reference_id}/picture people
GET /v1/items/{item_id} read
GET /v1/items/{item_id}/events read
GET /v1/models read
GET /v1/models/compare read
GET /v1/models/diff read
GET /v1/models/{model_id} read
GET /v1/models/{model_id}/lineage read
GET /v1/people people
GET /v1/people/faces/{face_id}/picture people
GET /v1/people/report people
GET /v1/people/unsorted people
GET /v1/people/{who} people
GET /v1/queue read
GET /v1/schedules read
GET /v1/training-runs read
GET /v1/training-runs/{run_id} read
GET /v1/training-runs/{run_id}/events read
GET /v1/training-runs/{run_id}/records read
GET /v1/uploads/{upload_id} read
GET /v1/webhooks write
GET /v1/webhooks/{webhook_id} write
HEAD /v1/uploads/{upload_id} read
PATCH /v1/people/{who} people
PATCH /v1/uploads/{upload_id} write
POST /batches/{batch_id}/order write
POST /batches/{batch_id}/download read
POST /batches/{batch_id}/reject write
POST /batches/{batch_id}/release write
POST /batches/{batch_id}/retry write
POST /batches/{batch_id}/selected write
POST /batches/{batch_id}/{action} write
POST /faces/unsorted people
POST /faces/{who}/consents people
POST /faces/{who}/faces people
POST /faces/{who}/forget people
POST /faces/{who}/merge people
POST /faces/{who}/name people
POST /items/{item_id}/redo write
POST /items/{item_id}/reject write
POST /items/{item_id}/release write
POST /items/{item_id}/reproduce write
POST /items/{item_id}/review write
POST /login -
POST /logout -
POST /models/rollback models
POST /models/{model_id}/measure models
POST /models/{model_id}/promote models
POST /notices write
POST /notices/{webhook_id}/remove write
POST /notices/{webhook_id}/test write
POST /people people
POST /people/examples people
POST /people/{identity_id}/consents people
POST /people/{identity_id}/consents/{scope}/revoke people
POST /people/{identity_id}/erase people
POST /people/{identity_id}/references people
POST /schedules write
POST /schedules/training models
POST /schedules/training/{name}/remove models
POST /schedules/training/{name}/run models
POST /schedules/{name}/remove write
POST /schedules/{name}/run write
POST /training models
POST /training/{run_id}/{move} models
POST /v1/batches write
POST /v1/batches/dry-run read
POST /v1/batches/{batch_id}/cancel write
POST /v1/batches/{batch_id}/close write
POST /v1/batches/{batch_id}/items write
POST /v1/batches/{batch_id}/order write
POST /v1/batches/{batch_id}/pause write
POST /v1/batches/{batch_id}/photos write
POST /v1/batches/{batch_id}/reject write
POST /v1/batches/{batch_id}/release write
POST /v1/batches/{batch_id}/resume write
POST /v1/batches/{batch_id}/retry write
POST /v1/batches/{batch_id}/reviews write
POST /v1/datasets models
POST /v1/evaluations models
POST /v1/identities people
POST /v1/identities/{identity_id}/consents people
POST /v1/items/{item_id}/redo write
POST /v1/items/{item_id}/reject write
POST /v1/items/{item_id}/release write
POST /v1/models/{model_id}/promote models
POST /v1/models/{preset}/rollback models
POST /v1/people/refuse people
POST /v1/people/scans people
POST /v1/people/split people
POST /v1/people/{who}/consents people
POST /v1/people/{who}/faces people
POST /v1/people/{who}/merge people
POST /v1/restorations write
POST /v1/schedules write
POST /v1/schedules/{name}/run write
POST /v1/training-runs models
POST /v1/training-runs/{run_id}/{move} models
POST /v1/uploads write
POST /v1/uploads/{upload_id}/complete write
POST /v1/uploads/{upload_id}/parts write
POST /v1/webhooks write
POST /v1/webhooks/{webhook_id}/ping write
POST /v1/webhooks/{webhook_id}/replay write
PUT /v1/batches/by-key/{client_id} write
"""
"""METHOD path, and the one scope that lets in; `-` needs no key."""
LINES = dict(line.rsplit(" ", 1) for line in TABLE.split("\n") if line.strip())
STREAMS = re.compile("/events$")


def routes() -> dict[str, str]:
    """Return the scope of every route of the application, pages too, as its dependencies have it."""
    found = {}
    for route in (route for router in ROUTERS for route in router.routes):
        if isinstance(route, APIRoute):
            scopes = [scope for one in route.dependant.dependencies for scope in one.own_oauth_scopes or ()]
            for method in route.methods:
                found[f"{method} {route.path}"] = scopes[0] if scopes else OPEN
    return found


def test_every_route_stands_in_the_table_with_its_scope() -> None:
    assert routes() == LINES


def test_a_route_lets_in_its_own_scope_alone(client: Client, nobody: TestClient) -> None:
    bearers = {scope: client(scopes=[scope]) for scope in keys.SCOPES}
    wrong = []

    for line, wanted in LINES.items():
        method, path = line.split(" ")
        place = re.sub(r"{[^}]*}", "none", path)
        unknown = nobody.request(method, place).status_code
        if (unknown == 401) != (wanted != OPEN):
            wrong.append((line, "no key", unknown))
        for scope, api in bearers.items():
            if wanted == OPEN or (scope == wanted and STREAMS.search(path)):
                continue  # a stream ends with its listener
            with api.stream(method, place, follow_redirects=False) as answer:
                said = answer.read()
            refused = answer.status_code == 403 and (method == "HEAD" or b"needs a key with the scope" in said)
            if refused != (scope != wanted):
                wrong.append((line, scope, answer.status_code))

    assert wrong == []


def test_pages_show_nothing_of_another_owner(app: FastAPI, client: Client, person: AddPerson, worker: Played) -> None:
    ada = person("ada", "generate")
    rows = [{"custom_id": "secretword", "people": [{"identity": "ada"}]}]
    batch = client().post("/v1/batches", json={"name": "secretname", "items": rows}).json()["id"]
    worker.work()
    (item,) = client().get(f"/v1/batches/{batch}/items").json()["data"]
    whole = client().get(f"/v1/items/{item['id']}").json()
    ids = {
        "batch_id": batch,
        "item_id": item["id"],
        "identity_id": ada,
        "person_id": ada,
        "output_id": whole["output"]["id"],
        "who": ada,
    }
    eve = client(owner="eve")

    for line in sorted(LINES):
        method, path = line.split(" ")
        parts = re.findall(r"{([^}:]*)", path)
        if method != "GET" or path.startswith("/v1") or not parts or parts[0] not in ids or STREAMS.search(path):
            continue
        place = path
        for part in parts:
            place = place.replace(f"{{{part}}}", ids.get(part, "small"))
        answer = eve.get(place)
        assert answer.status_code in (404, 422), (place, answer.status_code)
        assert "secret" not in answer.text, place
