"""A real Elasticsearch of one node, 8.19 or 9.2: plain HTTP, or with TLS, passwords and API keys.

It is the server with its core modules only (the zip that Elastic makes for integration tests): no data streams,
ILM, ingest processors, scripts or ES|QL, and `GET /` answers 405.
"""

import base64
import json
import os
import pwd
import secrets
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.services.errors import MissingTool, ServiceError
from tests.services.fetch import ELASTICSEARCH_9, elasticsearch_home, fetch_elasticsearch, java_for_elasticsearch
from tests.services.instance import Instance
from tests.services.java import extra_options
from tests.services.process import ServerProcess, choose_ports, require_free

START_WAIT_S_MAX = 180.0
USER = "logweir-es"


class Elasticsearch(Instance):
    """Elasticsearch in a folder.

    version      "9.2.4" (needs Java 21) or "8.19.5" (needs Java 17).
    security     TLS with a certificate of its own (`ca_file`), `username` and `password`, `api_key()`.
    properties   more lines of elasticsearch.yml: {"cluster.max_shards_per_node": 50}.
    port_wanted  this port, or the next that is free; otherwise any.

    Started as root it runs as the user logweir-es, who must be able to reach the folder: see scratch_directory().
    """

    username = "elastic"

    def __init__(
        self,
        directory: Path | str,
        version: str = ELASTICSEARCH_9,
        *,
        security: bool = False,
        heap_mb: int = 512,
        properties: Mapping[str, Any] | None = None,
        port_wanted: int | None = None,
        dies_with_parent: bool = True,
    ) -> None:
        super().__init__(directory, dies_with_parent=dies_with_parent)
        self.version = version
        self.security = security
        self._heap_mb = heap_mb
        self._properties = dict(properties or {})
        chosen = self._remembered(lambda: _choose(port_wanted))
        self._ports: list[int] = chosen["ports"]
        self.password: str = chosen["password"]
        self._config = self.directory / "config"
        self.processes = [ServerProcess("elasticsearch", self.directory)]

    @property
    def url(self) -> str:
        return f"{'https' if self.security else 'http'}://127.0.0.1:{self._ports[0]}"

    @property
    def ca_file(self) -> Path:
        """The certificate to trust, PEM; only with security."""
        return self.directory / "ca.pem"

    def start(self) -> None:
        """Start it unless it runs; return when its indices can be searched. Raises MissingTool, ServiceError."""
        if self.running():
            return
        java = java_for_elasticsearch(self.version)
        home = fetch_elasticsearch(self.version)
        require_free(self._ports, name="elasticsearch")
        user = _server_user()
        self._require_reachable(user, home)
        environment = {
            "ES_JAVA_HOME": str(java.home),
            "ES_PATH_CONF": str(self._config),
            "ES_TMPDIR": str(self.directory / "tmp"),
            "HOME": str(self.directory),
        }
        if not self._config.is_dir():
            self._prepare(home, environment)
        self._write_settings()
        _own(self.directory, user)
        (process,) = self.processes
        process.launch(
            [str(home / "bin" / "elasticsearch")],
            environment=environment,
            user=user,
            dies_with_parent=self.dies_with_parent,
        )
        process.wait_until(self._ready, wait_s_max=START_WAIT_S_MAX)

    def request(self, method: str, path: str, body: object = None, *, wait_s_max: float = 30.0) -> Any:
        """Send one request with the password of `elastic`; return the decoded JSON.

        Raises urllib.error.HTTPError for 4xx and 5xx.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"}, method=method)
        context = None
        if self.security:
            credentials = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            request.add_header("Authorization", f"Basic {credentials}")
            context = ssl.create_default_context(cafile=str(self.ca_file))
        with urllib.request.urlopen(request, timeout=wait_s_max, context=context) as answer:
            return json.loads(answer.read() or b"null")

    def api_key(self, name: str = "tests", role_descriptors: Mapping[str, Any] | None = None) -> str:
        """Create an API key; return it encoded, as `Authorization: ApiKey ...` and the client's api_key want it."""
        body = {"name": name, "role_descriptors": dict(role_descriptors or {})}
        encoded: str = self.request("POST", "/_security/api_key", body)["encoded"]
        return encoded

    def _ready(self) -> bool:
        try:
            health = self.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=2s", wait_s_max=5.0)
        except (OSError, ValueError):  # refused, 401 and 503 while it starts, half an answer
            return False
        return health["status"] in ("yellow", "green")

    def _prepare(self, home: Path, environment: dict[str, str]) -> None:
        """Make the instance's own folders; the installed program stays as it is, shared by all instances."""
        for name in ("data", "logs", "tmp", "snapshots"):
            (self.directory / name).mkdir(exist_ok=True)
        partial = self.directory / "config.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(home / "config", partial)
        heap = [f"-Xms{self._heap_mb}m", f"-Xmx{self._heap_mb}m", "-XX:-UsePerfData", "-XX:-HeapDumpOnOutOfMemoryError"]
        (partial / "jvm.options.d").mkdir(exist_ok=True)
        (partial / "jvm.options.d" / "logweir.options").write_text("\n".join([*heap, *extra_options(), ""]))
        if self.security:
            self._make_certificate(partial, environment)
            self._make_keystore(home, partial, environment)
        partial.rename(self._config)

    def _make_certificate(self, config: Path, environment: dict[str, str]) -> None:
        """Make one certificate for 127.0.0.1 and localhost that is its own authority, with Java's keytool."""
        store = ["-keystore", str(config / "http.p12"), "-storetype", "PKCS12", "-storepass", self.password]
        keytool = [f"{environment['ES_JAVA_HOME']}/bin/keytool"]
        key = ["-genkeypair", "-alias", "http", "-keyalg", "EC", "-groupname", "secp256r1", "-validity", "3650"]
        name = ["-dname", "CN=logweir tests", "-ext", "san=ip:127.0.0.1,dns:localhost"]
        authority = ["-ext", "bc:critical=ca:true", "-ext", "ku:critical=keyCertSign,digitalSignature"]
        _run([*keytool, *key, *name, *authority, *store])
        _run([*keytool, "-exportcert", "-rfc", "-alias", "http", "-file", str(self.ca_file), *store])

    def _make_keystore(self, home: Path, config: Path, environment: dict[str, str]) -> None:
        """Put the two passwords where the server wants them: that of `elastic`, and that of the certificate's file."""
        tool = str(home / "bin" / "elasticsearch-keystore")
        environment = {**environment, "ES_PATH_CONF": str(config)}
        names = ["bootstrap.password", "xpack.security.http.ssl.keystore.secure_password"]
        _run([tool, "create"], environment=environment)
        _run([tool, "add", "-x", *names], environment=environment, stdin=f"{self.password}\n{self.password}\n")

    def _write_settings(self) -> None:
        http, transport = self._ports
        settings: dict[str, Any] = {
            "cluster.name": "logweir-tests",
            "node.name": "one",
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": http,
            "transport.port": transport,
            "path.data": str(self.directory / "data"),
            "path.logs": str(self.directory / "logs"),
            "path.repo": [str(self.directory / "snapshots")],
            # Build machines are often more than 90 % full: with the watermarks no index would be allocated there.
            "cluster.routing.allocation.disk.threshold_enabled": False,
            "xpack.security.enabled": self.security,
        }
        if self.security:
            settings |= {"xpack.security.enrollment.enabled": False, "xpack.security.http.ssl.enabled": True}
            settings["xpack.security.http.ssl.keystore.path"] = "http.p12"
        lines = [f"{name}: {json.dumps(value)}\n" for name, value in {**settings, **self._properties}.items()]
        (self._config / "elasticsearch.yml").write_text("".join(lines))

    def _require_reachable(self, user: tuple[int, int] | None, home: Path) -> None:
        if user is None:
            return
        for path in (self.directory, home):
            if closed := [folder for folder in path.parents if not folder.stat().st_mode & 0o001]:
                raise ServiceError(
                    f"Elasticsearch runs as {USER}, not as root, "
                    f"and that user can't enter {closed[-1]} on the way to {path}. "
                    "Use a folder that everybody can reach (scratch_directory(), LOGWEIR_CACHE_DIR)."
                )


def is_fetched(version: str) -> bool:
    return elasticsearch_home(version).is_dir()


def _choose(port_wanted: int | None) -> dict[str, Any]:
    return {"ports": choose_ports(2, first_wanted=port_wanted), "password": secrets.token_urlsafe(18)}


def _server_user() -> tuple[int, int] | None:
    """Return who the server runs as: None for ourselves; for root, whom it refuses, a user made for it."""
    if os.geteuid() != 0:
        return None
    try:
        found = pwd.getpwnam(USER)
    except KeyError:
        useradd = shutil.which("useradd") or "/usr/sbin/useradd"
        if not Path(useradd).exists():
            raise MissingTool(f"Elasticsearch refuses root, and there is no useradd to make the user {USER}") from None
        _run([useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "--user-group", USER])
        found = pwd.getpwnam(USER)
    return found.pw_uid, found.pw_gid


def _own(folder: Path, user: tuple[int, int] | None) -> None:
    if user is not None:
        for path in (folder, *folder.rglob("*")):
            os.lchown(path, *user)


def _run(command: list[str], *, environment: dict[str, str] | None = None, stdin: str = "") -> None:
    everything = {**os.environ, **(environment or {})}
    done = subprocess.run(command, env=everything, input=stdin, capture_output=True, text=True)
    if done.returncode != 0:
        said = f"{done.stdout[-1500:]}{done.stderr[-1500:]}"
        raise ServiceError(f"{Path(command[0]).name} ended with {done.returncode}: {said}")
