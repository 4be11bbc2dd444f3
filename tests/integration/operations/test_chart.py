"""The Helm chart without a cluster: rendered by Helm's own engine, held against Kubernetes' schemas, commands run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from orchestrator.api.metrics import ServerMetrics
from orchestrator.errors import SettingsError
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger
from orchestrator.runtime.broker import QUEUES
from orchestrator.secrets.keyfile import secrets
from orchestrator.settings import Settings, load_settings
from tests.unit.test_compose import OURS

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "helm" / "fpga"
KUBERNETES = ("1.29", "1.33")
VALUES: dict[str, dict[str, Any]] = {
    "plain": {},
    "ingress": {"api": {"ingress": {"enabled": True, "className": "nginx", "tlsSecret": "tls"}}},
    "keda by the api": {"keda": {"enabled": True, "apiKeySecret": "key"}},
    "keda by prometheus": {"keda": {"enabled": True, "source": "prometheus"}},
}
MOUNT = "/var/lib/fpga"

Manifest = dict[str, Any]


def rendered(values: dict[str, Any]) -> list[Manifest]:
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name="prod", namespace="studio")
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    return [one for text in texts for one in yaml.safe_load_all(text) if one]


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in manifests if "template" in one["spec"]}


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [one for one in manifests if one["kind"] == kind]


def with_spec(manifests: list[Manifest]) -> list[Manifest]:
    return [one for one in manifests if "spec" in one]


def test_lint_finds_nothing_to_mend() -> None:
    assert [found for found in helm.lint(str(CHART))["messages"] if found["severity"] > 1] == []


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("version", KUBERNETES)
def test_every_manifest_fits_the_schema_of_kubernetes(values: dict[str, Any], version: str) -> None:
    manifests = rendered(values)
    ours = [one for one in manifests if not one["apiVersion"].startswith("keda.sh/")]

    for manifest in ours:
        kubernetes_validate.validate(manifest, version, strict=True)

    assert len(ours) >= 11


def test_every_pod_meets_the_restricted_standard() -> None:
    for name, pod in pods(with_spec(rendered({}))).items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert {frozenset(volume) - {"name"} for volume in pod["volumes"]} == {frozenset({"emptyDir"})}, name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"], name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert "memory" in container["resources"]["limits"], name


def test_workers_serve_all_queues_and_have_time_to_drain() -> None:
    workers = {name: pod for name, pod in pods(with_spec(rendered({}))).items() if "-worker-" in name}
    served = [pod["containers"][0]["command"][-1].split(",") for pod in workers.values()]

    assert sorted(queue for queues in served for queue in queues) == sorted(QUEUES)
    for pod in workers.values():
        environment = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
        assert pod["terminationGracePeriodSeconds"] >= float(environment["FPGA_DRAIN_SECONDS"]) + 15


def test_processes_get_only_settings_that_exist_and_run_what_compose_runs() -> None:
    known = {str(spec.validation_alias or f"FPGA_{name}").upper() for name, spec in Settings.model_fields.items()}
    manifests = rendered({})
    names = set(of_kind(manifests, "ConfigMap")[0]["data"])
    for pod in pods(with_spec(manifests)).values():
        names |= {one["name"] for one in pod["containers"][0].get("env", [])}
    assert {name for name in names if name.startswith("FPGA_")} <= known
    commands = {str(pod["containers"][0]["command"]) for pod in pods(with_spec(manifests)).values()}
    assert {str(OURS[name]["command"]) for name in ("migrate", "sweeper", "api", "prefect-worker")} <= commands


@pytest.mark.parametrize("source", ["api", "prometheus"])
def test_keda_scales_each_worker_by_a_figure_that_the_ledger_gives(source: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    schema.upgrade(url)
    ledger = Ledger(url)
    given = {family.name for family in ServerMetrics(ledger, load_settings()).registry.collect()}
    ledger.dispose()
    manifests = rendered({"keda": {"enabled": True, "source": source, "apiKeySecret": "key"}})

    scaled = {one["spec"]["scaleTargetRef"]["name"]: one["spec"] for one in of_kind(manifests, "ScaledObject")}

    workers = {name for name in pods(with_spec(manifests)) if "-worker-" in name}
    assert scaled.keys() == workers
    for spec in scaled.values():
        (trigger,) = spec["triggers"]
        asked = trigger["metadata"]["valueLocation" if source == "api" else "query"]
        assert asked.removeprefix("max(").partition("{")[0] in given
    assert [one["spec"].get("replicas") for one in manifests if one["metadata"]["name"] in workers and "template" in one["spec"]] == [None] * len(workers)  # fmt: skip # noqa: E501 one sentence


def test_a_service_that_leaks_into_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FPGA_API_PORT", "tcp://10.0.0.1:80")

    with pytest.raises(SettingsError, match="enableServiceLinks"):
        load_settings()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play the kubelet that mounts a Secret")
def test_a_key_file_that_kubernetes_mounts_for_our_group_is_read() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        key = Path(folder) / "keys"
        key.write_text("one\n")
        os.chown(key, 0, 10001)
        key.chmod(0o440)
        settings = Settings(data_key_file=key)
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([10001])
                os.setgid(10001)
                os.setuid(10001)
                os._exit(0 if _key(settings) == ["one"] else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0


def _key(settings: Settings) -> list[str]:
    return secrets(settings, "data_keys", "data-key", b"", "")


@pytest.mark.slow
def test_each_container_runs_with_exactly_what_the_chart_gives_it(
    postgres_url: str, redis_url: str, moto_url: str, tmp_path: Path
) -> None:
    boto3.client("s3", endpoint_url=moto_url, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1").create_bucket(Bucket="fpga")  # fmt: skip # noqa: E501 one sentence
    manifests = rendered({"env": {"AWS_ENDPOINT_URL_S3": moto_url, "FPGA_STORE_URL": "s3://fpga"}})
    secret = {
        "DATABASE_URL": postgres_url,
        "CELERY_BROKER_URL": redis_url,
        "FPGA_DATA_KEYS": "b25seS1mb3ItdGVzdHMtb25seS1mb3ItdGVzdHMtMzI=",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }
    shared = of_kind(manifests, "ConfigMap")[0]["data"] | secret
    found = {name.removeprefix("prod-"): pod["containers"][0] for name, pod in pods(with_spec(manifests)).items()}

    with Pod(found["migrate"], shared, tmp_path / "migrate") as migrate:
        assert migrate.process.wait(180) == 0, migrate.said()
    ports = {"FPGA_API_PORT": "17861", "FPGA_METRICS_PORT": "19464", "FPGA_DEVICE": "cpu"}
    with (
        Pod(found["web"], shared, tmp_path / "web", ports) as web,
        Pod(found["sweeper"], shared, tmp_path / "sweeper") as sweeper,
        Pod(found["worker-generate"], shared, tmp_path / "worker", ports) as worker,
    ):
        web.answers("http://127.0.0.1:17861/health/live")
        web.answers("http://127.0.0.1:17861/health/ready")
        worker.answers("http://127.0.0.1:19464/health")
        assert sweeper.process.poll() is None, sweeper.said()


class Pod:
    """A container's command with the rendered environment and nothing else, and an emptyDir that anybody may enter."""

    def __init__(self, container: Manifest, shared: dict[str, str], folder: Path, changed: dict[str, str] | None = None) -> None:  # fmt: skip # noqa: E501
        folder.mkdir()
        folder.chmod(0o777)
        own = {one["name"]: one["value"] for one in container.get("env", [])}
        environment = {**shared, **own, **(changed or {})}
        environment = {name: value.replace(MOUNT, str(folder)) for name, value in environment.items()}
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._log = (folder / "said").open("wb+")
        program = shutil.which(container["command"][0], path=programs)
        assert program, container["command"]
        self.process = subprocess.Popen(
            [program, *container["command"][1:]],
            env={"PATH": programs, "PYTHONPATH": str(ROOT), **environment},
            cwd=ROOT,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Pod:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()[-3000:]

    def answers(self, url: str) -> None:
        until = time.monotonic() + 180
        while time.monotonic() < until:
            assert self.process.poll() is None, self.said()
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    assert answer.status == 200
                    return
            except OSError:
                time.sleep(0.5)
        raise AssertionError(f"{url} never answered: {self.said()}")


@pytest.fixture(autouse=True)
def _nothing_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FPGA_")]:
        monkeypatch.delenv(name)
