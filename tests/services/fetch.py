"""Brings the servers' own programs to this machine: from Maven Central by `mvn`, unpacked once into a cache.

rsyslog with omhttp, which Debian does not build, is built from Debian's source; syslog-ng is unpacked from Debian's
packages, not installed: that would take away the syslog daemon that the machine has.

The cache is $LOGWEIR_CACHE_DIR, or ~/.cache/logweir; for root /var/cache/logweir, since the user that Elasticsearch
runs as can't look into root's home. Two programs may fetch at once: one of them waits for the other.
"""

import contextlib
import fcntl
import glob
import os
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.services.errors import MissingTool, ServiceError
from tests.services.java import Java, find_java

KAFKA_VERSION = "4.3.1"
ELASTICSEARCH_8 = "8.19.5"
ELASTICSEARCH_9 = "9.2.4"
ELASTICSEARCH_VERSIONS = (ELASTICSEARCH_8, ELASTICSEARCH_9)

# curl is what users post with; amtool, nginx, promtool and systemd-analyze check the files in deploy/ (tests/deploy);
# prometheus is asked all that dashboards and alerts ask (tests/flow); rsyslog sends as hosts do (tests/senders).
DEBIAN_PACKAGES = (
    "curl",
    "default-jre-headless",
    "maven",
    "nginx",
    "openssl",
    "prometheus",
    "prometheus-alertmanager",
    "rsyslog",
    "rsyslog-elasticsearch",
    "systemd",
)
COMMANDS = ("amtool", "curl", "mvn", "nginx", "openssl", "prometheus", "promtool", "rsyslogd", "systemd-analyze")
# Of packages that bring no command: where Debian puts them, on whatever machine.
PLUGINS = ("/usr/lib/*/rsyslog/omelasticsearch.so",)
MAVEN_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
ECJ_VERSION = "3.40.0"

RSYSLOG_LIBRARIES = ("libestr", "libfastjson", "libcurl", "zlib")
RSYSLOG_BUILD_PACKAGES = (
    "dpkg-dev",
    "gcc",
    "libc6-dev",
    "libcurl4-openssl-dev",
    "libestr-dev",
    "libfastjson-dev",
    "make",
    "pkg-config",
    "zlib1g-dev",
)
RSYSLOG_OPTIONS = (
    "--prefix=/usr",
    "--enable-omhttp",
    "--disable-generate-man-pages",
    "--disable-klog",
    "--disable-libgcrypt",
    "--disable-uuid",
)
SYSLOG_NG_PACKAGES = ("syslog-ng-core", "syslog-ng-mod-http")
# Else apt-get warns that its own user may not write where root downloads to.
_APT_AS_ROOT = ("-o", "APT::Sandbox::User=root")

PLUGIN_DESCRIPTOR = """\
name=logweir-security-index
description=What the index .security-7 needs, so that API keys can be made
version=1
classname=logweir.SecurityIndexAnalysis
java.version=17
elasticsearch.version={version}
"""


def cache_directory() -> Path:
    if given := os.environ.get("LOGWEIR_CACHE_DIR"):
        return Path(given).expanduser().resolve()
    return Path("/var/cache/logweir") if os.geteuid() == 0 else Path.home() / ".cache" / "logweir"


def kafka_home() -> Path:
    """The folder with Kafka's jars; it exists once fetched."""
    return cache_directory() / f"kafka-{KAFKA_VERSION}"


def elasticsearch_home(version: str) -> Path:
    # The last number goes up when what we add to the zip changes, so that no old copy in a cache is used.
    return cache_directory() / f"elasticsearch-{version}-1"


def rsyslog_home() -> Path:
    """The folder with rsyslogd and its modules, below the paths that they were built for."""
    return cache_directory() / "rsyslog-omhttp-1"


def syslog_ng_home() -> Path:
    """The folder with syslog-ng and the libraries that this machine may lack, each below its path of Debian."""
    return cache_directory() / "syslog-ng-1"


def java_for_kafka() -> Java:
    return _required_java(17)


def java_for_elasticsearch(version: str) -> Java:
    """Return the Java to run it with. Raises MissingTool: 8.19 needs 17 or newer, 9.x needs 21 or newer."""
    return _required_java(21 if version.startswith("9.") else 17)


def missing_for_elasticsearch(version: str) -> str:
    """Return why that version can't run on this machine, or an empty string."""
    try:
        java_for_elasticsearch(version)
    except MissingTool as missing:
        return f"Elasticsearch {version} is not tested here: {missing}"
    return ""


def newest_elasticsearch() -> str:
    """The newest version that this machine can run."""
    return ELASTICSEARCH_8 if missing_for_elasticsearch(ELASTICSEARCH_9) else ELASTICSEARCH_9


def fetch_all(say: Callable[[str], None] = print) -> None:
    """Fetch all that this machine can run; one line per step. Raises MissingTool, ServiceError."""
    ensure_tools(say)
    fetch_kafka(say)
    for version in ELASTICSEARCH_VERSIONS:
        if missing := missing_for_elasticsearch(version):
            say(f"  {missing}")
        else:
            fetch_elasticsearch(version, say)
    say(f"  {cache_directory()} holds what this machine needs")


def fetch_kafka(say: Callable[[str], None] = print) -> Path:
    def copy_jars(target: Path) -> None:
        _maven(f"{MAVEN_PLUGIN}:copy-dependencies", f"-DoutputDirectory={target}")

    return fetched(kafka_home(), f"Kafka {KAFKA_VERSION} (54 MB)", copy_jars, say)


def fetch_elasticsearch(version: str, say: Callable[[str], None] = print) -> Path:
    def unpack_zip(target: Path) -> None:
        with tempfile.TemporaryDirectory(dir=target.parent) as download:
            _maven_copy(f"org.elasticsearch.distribution.integ-test-zip:elasticsearch:{version}:zip", download)
            _maven_copy(f"org.eclipse.jdt:ecj:{ECJ_VERSION}", download)
            _unzip(Path(download) / f"elasticsearch-{version}.zip", target)
            _add_plugin(target, version, compiler=Path(download) / f"ecj-{ECJ_VERSION}.jar")

    return fetched(elasticsearch_home(version), f"Elasticsearch {version} (100 MB)", unpack_zip, say)


def fetch_senders(say: Callable[[str], None] = print) -> None:
    """Fetch the syslog daemons that send to a door; building one takes a minute. Raises MissingTool, ServiceError."""
    fetch_rsyslog(say)
    fetch_syslog_ng(say)


def fetch_rsyslog(say: Callable[[str], None] = print) -> Path:
    def build(target: Path) -> None:
        _ensure_libraries(say)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            sources = _debian_sources(Path(folder))
            run(["apt-get", *sources, "update"])
            run(["apt-get", *sources, "source", "rsyslog"], cwd=folder)
            (source,) = Path(folder).glob("rsyslog-*/")
            low = ["nice", "-n", "19"]
            run([*low, "./configure", *RSYSLOG_OPTIONS], cwd=source)
            run([*low, "make", f"-j{os.cpu_count()}"], cwd=source)
            run([*low, "make", "install", f"DESTDIR={target}"], cwd=source)

    return fetched(rsyslog_home(), "and building rsyslog with omhttp (a minute)", build, say)


def fetch_syslog_ng(say: Callable[[str], None] = print) -> Path:
    def unpack(target: Path) -> None:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            planned = run(["apt-get", "--simulate", "install", "--no-install-recommends", *SYSLOG_NG_PACKAGES])
            missing = {line.split()[1] for line in planned.splitlines() if line.startswith("Inst ")}
            run(["apt-get", *_APT_AS_ROOT, "download", *sorted({*SYSLOG_NG_PACKAGES, *missing})], cwd=folder)
            for package in Path(folder).glob("*.deb"):
                run(["dpkg", "-x", str(package), str(target)])

    return fetched(syslog_ng_home(), "syslog-ng (2 MB)", unpack, say)


def _ensure_libraries(say: Callable[[str], None]) -> None:
    """Make sure of what rsyslog is built with: as root on Debian by installing it. Raises MissingTool."""
    known = subprocess.run(["pkg-config", "--exists", *RSYSLOG_LIBRARIES]) if shutil.which("pkg-config") else None
    if known is not None and known.returncode == 0 and shutil.which("gcc") and shutil.which("dpkg-source"):
        return
    command = f"apt-get install -y --no-install-recommends {' '.join(RSYSLOG_BUILD_PACKAGES)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise MissingTool(f"rsyslog with omhttp cannot be built for the tests here. As root: {command}")
    say(f"  installing {', '.join(RSYSLOG_BUILD_PACKAGES)} from Debian's packages ...")
    for step in ("apt-get update", command):
        run(step.split(), DEBIAN_FRONTEND="noninteractive")


def _debian_sources(folder: Path) -> list[str]:
    """Options of apt-get with which it knows the sources of the packages of this machine, and changes nothing on it."""
    columns = "$(REPO_URI) $(CODENAME) $(ORIGIN)"
    known = run(["apt-get", "indextargets", "--format", columns, "Created-By: Packages", "Component: main"])
    suites = [line.split() for line in known.splitlines() if line.endswith(" Debian")]
    if not (releases := [row for row in suites if "-" not in row[1]]):
        raise MissingTool("rsyslog with omhttp is built from Debian's source for the tests, and apt-get knows none.")
    uri, suite, _ = releases[0]
    (folder / "sources.list").write_text(f"deb-src {uri} {suite} main\n")
    (folder / "lists" / "partial").mkdir(parents=True)
    places = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
    }
    return [*_APT_AS_ROOT, *(word for name, value in places.items() for word in ("-o", f"{name}={value}"))]


def ensure_tools(say: Callable[[str], None] = print) -> None:
    """Make sure of java (17 or newer), COMMANDS, PLUGINS: as root on Debian by installing them. Raises MissingTool."""
    if _tools_are_here():
        return
    command = f"apt-get install -y --no-install-recommends {' '.join(DEBIAN_PACKAGES)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise MissingTool(f"Java 17 or newer and {', '.join(COMMANDS)} are needed for the tests. As root: {command}")
    say(f"  installing {', '.join(DEBIAN_PACKAGES)} from Debian's packages (300 MB) ...")
    with _debian_starts_no_services():
        for step in ("apt-get update", command):
            run(step.split(), DEBIAN_FRONTEND="noninteractive")
    if not _tools_are_here():
        raise MissingTool(f"Java 17 or newer or one of {', '.join(COMMANDS)} is still missing after: {command}")


def _tools_are_here() -> bool:
    has_plugins = all(glob.glob(plugin) for plugin in PLUGINS)
    return has_plugins and find_java(17) is not None and all(shutil.which(command) for command in COMMANDS)


def _required_java(at_least: int) -> Java:
    java = find_java(at_least)
    if java is None:
        raise MissingTool(
            f"no Java {at_least} or newer was found (JAVA_HOME, /usr/lib/jvm, PATH). "
            f"Install one, for instance: apt-get install openjdk-{at_least}-jre-headless"
        )
    return java


def fetched(home: Path, what: str, fill: Callable[[Path], None], say: Callable[[str], None] = print) -> Path:
    """Return `home`; when it isn't there, fill a temporary folder beside it and rename that: whole or not at all."""
    if home.is_dir():
        return home
    home.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    with _lock(home.with_name(f"{home.name}.lock")):
        if home.is_dir():
            return home  # somebody else fetched it while we waited
        say(f"  fetching {what} ...")
        began = time.monotonic()
        partial = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
        try:
            fill(partial)
            _make_readable_for_all(partial)
            partial.rename(home)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        say(f"  fetched {what} in {time.monotonic() - began:.0f} s into {home}")
    return home


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file gives the lock back


def _maven(*arguments: str) -> None:
    mvn = shutil.which("mvn")
    if mvn is None:
        raise MissingTool("mvn is needed to fetch the servers. As root: apt-get install maven")
    pom = str(Path(__file__).with_name("pom.xml"))
    run([mvn, "-q", "-B", "-f", pom, f"-Dkafka.version={KAFKA_VERSION}", *arguments])


def _maven_copy(artifact: str, directory: str) -> None:
    _maven(f"{MAVEN_PLUGIN}:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={directory}")


def _add_plugin(home: Path, version: str, *, compiler: Path) -> None:
    """Compile plugin/ into the server's folder: without it no API key can be made, see there.

    With Eclipse's compiler, which is one jar: a Java made for running programs only has no javac.
    """
    folder = home / "plugins" / "logweir-security-index"
    classes = folder / "classes"
    classes.mkdir(parents=True)
    source = Path(__file__).parent / "plugin" / "SecurityIndexAnalysis.java"
    path = os.pathsep.join(str(jar) for jar in (home / "lib").glob("*.jar"))
    java = java_for_elasticsearch(version).command
    run([java, "-jar", str(compiler), "--release", "17", "-nowarn", "-cp", path, "-d", str(classes), str(source)])
    with zipfile.ZipFile(folder / "logweir-security-index.jar", "w") as jar:
        for file in classes.rglob("*.class"):
            jar.write(file, file.relative_to(classes))
    shutil.rmtree(classes)
    (folder / "plugin-descriptor.properties").write_text(PLUGIN_DESCRIPTOR.format(version=version))


def run(command: list[str], *, cwd: Path | str | None = None, **environment: str) -> str:
    """What it prints. Raises ServiceError, with the last lines of that, when it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        end = "\n".join(done.stdout.splitlines()[-20:])
        raise ServiceError(f"{command[0]} ended with {done.returncode}: {' '.join(command)}\n{end}")
    return done.stdout


def _unzip(archive: Path, target: Path) -> None:
    """Unpack into `target` without the archive's one top folder, with the files' modes, which zipfile leaves out."""
    with zipfile.ZipFile(archive) as zipped:
        for entry in zipped.infolist():
            inside = Path(*Path(entry.filename).parts[1:])
            path = target / inside
            if ".." in inside.parts:
                raise ServiceError(f"{archive.name} holds a path that leads out of it: {entry.filename}")
            if entry.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with zipped.open(entry) as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy)
            path.chmod((entry.external_attr >> 16) & 0o777 or 0o644)


def _make_readable_for_all(folder: Path) -> None:
    """Undo a strict umask: the servers' user is not the one who fetched."""
    for path in (folder, *folder.rglob("*")):
        executable = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if executable else 0o644)


@contextlib.contextmanager
def _debian_starts_no_services() -> Iterator[None]:
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")  # 101: action forbidden (invoke-rc.d's policy layer)
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()
