"""Live streams: every final state once, in order, also for who comes late or comes back."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections import Counter

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from orchestrator.access import keys
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.views.events import Place
from tests.memory import forget_peak, own_peak
from tests.unit.orchestrator.api.conftest import Client
from tests.unit.orchestrator.played import AddPerson, Played


def events(text: str) -> list[tuple[str | None, str, dict[str, object]]]:
    """Return (id, name, data) of each event in a stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
    return found


@pytest.fixture
def batch(client: Client, person: AddPerson) -> str:
    person("ada", "generate")
    rows = [{"custom_id": f"i{n}", "people": [{"identity": "ada"}]} for n in range(20)]
    made: str = client().post("/v1/batches", json={"items": rows}).json()["id"]
    return made


def test_a_stream_tells_every_item_once_and_ends_with_the_batch(client: Client, batch: str, worker: Played) -> None:
    threading.Timer(0.7, worker.work, kwargs={"failing": ["i3"]}).start()

    told = [one for one in events(client().get(f"/v1/batches/{batch}/events").text) if one[0]]

    ended = Counter(data["custom_id"] for _, name, data in told if name == "item.ended")
    assert ended == Counter(f"i{n}" for n in range(20))
    assert told[-1][1:] == ("batch.ended", told[-1][2])
    assert told[-1][2]["state"] == "completed_with_errors"


def test_a_picture_is_told_when_it_is_drawn_before_the_end_of_its_item(
    client: Client, batch: str, worker: Played
) -> None:
    worker.work(queues=["gpu.generate"])
    worker.work()

    told = [one for one in events(client().get(f"/v1/batches/{batch}/events").text) if one[0]]

    assert [name for _, name, _ in told] == ["item.drawn"] * 20 + ["item.ended"] * 20 + ["batch.ended"]
    assert all(data["output_id"] for _, name, data in told if name == "item.drawn")
    rest = client().get(f"/v1/batches/{batch}/events", headers={"Last-Event-ID": str(told[9][0])})
    assert [one[0] for one in events(rest.text) if one[0]] == [one[0] for one in told[10:]]


def test_the_last_counts_come_before_the_end_of_the_batch(client: Client, batch: str, worker: Played) -> None:
    threading.Timer(0.7, worker.work).start()

    told = events(client().get(f"/v1/batches/{batch}/events").text)

    ended = [name for _, name, _ in told].index("batch.ended")
    (*_, last) = [data for _, name, data in told[:ended] if name == "batch.progress"]
    assert (last["state"], last["counts"]["completed"]) == ("completed", 20)  # type: ignore[index]  # the last event has a body


def test_a_reader_who_comes_back_hears_only_what_it_missed(client: Client, batch: str, worker: Played) -> None:
    worker.work()
    api = client()
    whole = [one for one in events(api.get(f"/v1/batches/{batch}/events").text) if one[0]]

    for number in (0, 7, 19):
        rest = api.get(f"/v1/batches/{batch}/events", headers={"Last-Event-ID": str(whole[number][0])})
        assert [one[0] for one in events(rest.text) if one[0]] == [one[0] for one in whole[number + 1 :]]
    over = api.get(f"/v1/batches/{batch}/events", headers={"Last-Event-ID": str(whole[-1][0])})
    assert over.status_code == 204


def test_an_id_that_no_stream_gave_is_refused(client: Client, batch: str) -> None:
    api = client()
    for wrong in ("x", "-1.a", "99999999999999999999.a", "²3.a"):
        refused = api.get(f"/v1/batches/{batch}/events", headers={b"Last-Event-ID": wrong.encode()})
        assert (refused.status_code, refused.json()["code"]) == (422, "event_id_invalid")


def test_places_survive_being_written_and_read() -> None:
    place = Place.of("1790000000123457.itm_01")

    assert place is not None
    assert str(place) == "1790000000123457.itm_01"


def test_an_item_is_followed_until_it_has_ended(client: Client, batch: str, worker: Played) -> None:
    api = client()
    item = api.get(f"/v1/batches/{batch}/items?limit=1").json()["data"][0]["id"]
    threading.Timer(0.5, worker.work).start()

    told = events(api.get(f"/v1/items/{item}/events").text)

    assert told[0][2]["status"] == "queued"
    assert told[-1][2]["status"] == "completed"


def test_another_owner_cannot_listen(client: Client, batch: str) -> None:
    assert client("eve").get(f"/v1/batches/{batch}/events").status_code == 404


@pytest.mark.slow
def test_two_hundred_streams_of_a_thousand_items_each_see_every_end_once(
    app: FastAPI, ledger: Ledger, client: Client, person: AddPerson, worker: Played
) -> None:
    person("ada", "generate")
    rows = [{"custom_id": f"i{n}", "people": [{"identity": "ada"}]} for n in range(1000)]
    batch = client().post("/v1/batches", json={"items": rows}).json()["id"]
    secret, _ = keys.create(ledger, "local", name="watch")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        threading.Event().wait(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    forget_peak()
    before = own_peak()

    async def watch(http: httpx.AsyncClient, number: int) -> Counter[str]:
        seen: Counter[str] = Counter()
        last = ""
        while True:
            headers = {"Authorization": f"Bearer {secret}"} | ({"Last-Event-ID": last} if last else {})
            cut = 150 if number % 10 == 0 and sum(seen.values()) < 150 else 10**9  # every tenth loses its line once
            async with http.stream("GET", f"/v1/batches/{batch}/events", headers=headers, timeout=300) as stream:
                if stream.status_code == 204:
                    return seen
                async for line in stream.aiter_lines():
                    if line.startswith("id: "):
                        last = line[4:]
                        seen[last] += 1
                        if sum(seen.values()) >= cut:
                            break
                        if last.partition(".")[2].startswith("z"):
                            return seen

    async def all_of_them() -> list[Counter[str]]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, trust_env=False) as http:
            tasks = [asyncio.create_task(watch(http, number)) for number in range(200)]
            await asyncio.to_thread(worker.work)
            return await asyncio.gather(*tasks)

    try:
        seen = asyncio.run(all_of_them())
    finally:
        server.should_exit = True
        thread.join(20)

    assert {len(one) for one in seen} == {2001}, "each drawn, each ended, and the batch"
    assert {count for one in seen for count in one.values()} == {1}
    assert all(one.keys() == seen[0].keys() for one in seen)
    grown = own_peak() - before
    assert grown < 300_000_000, f"{grown} bytes more for 200 streams in one process with their readers"


def test_figures_know_streams_by_their_route(client: Client, batch: str, worker: Played, nobody: TestClient) -> None:
    worker.work()
    api = client()
    api.get(f"/v1/batches/{batch}/events")

    assert re.search(r'route="/v1/batches/{batch_id}/events",status="200"} 1', api.get("/metrics").text)
