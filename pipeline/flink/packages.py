"""Downloads Flink and builds Beam's job server from the package registries, once, into a cache folder."""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import OptionError

# The version of Flink that the job server of pom.xml is built for.
FLINK_VERSION = "1.19"
FLINK_PACKAGE = "apache-flink-libraries==1.19.3"
_POM = Path(__file__).with_name("pom.xml")
_FETCH_LIMIT_S = 1200


@dataclass(frozen=True, slots=True)
class Packages:
    """The packages of a cluster.

    Args:
        flink_lib: the folder that holds Flink's jars.
        job_server_jar: Beam's job server.
    """

    flink_lib: Path
    job_server_jar: Path


def default_cache() -> Path:
    """The folder of the packages: `$MASKBEAM_FLINK_HOME`, else a folder in the user's cache."""
    named = os.environ.get("MASKBEAM_FLINK_HOME")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maskbeam" / "flink"


def missing_tools() -> list[str]:
    """The required programs that are not on the PATH."""
    return [tool for tool in ("java", "mvn") if shutil.which(tool) is None]


def find_packages(cache: Path) -> Packages | None:
    """The packages in a cache, None if they are missing or incomplete."""
    packages = _places(cache)
    return packages if packages.flink_lib.is_dir() and packages.job_server_jar.is_file() else None


def fetch_packages(cache: Path) -> Packages:
    """Fetches missing packages: 230 MB from PyPI and 160 MB from Maven, once.

    Args:
        cache: a folder; it is created.

    Returns:
        The packages.

    Raises:
        OptionError: a program is missing, or a registry doesn't have a package.
    """
    found = find_packages(cache)
    if found is not None:
        return found
    if missing := missing_tools():
        raise OptionError(f"Flink needs {' and '.join(missing)} on the PATH (Java 11 or 17, and Maven)")
    packages = _places(cache)
    cache.mkdir(parents=True, exist_ok=True)
    # Both are made in a temporary folder and renamed, so that an interrupted start leaves nothing that looks complete.
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache) as text:
        fetched = Path(text)
        if not packages.flink_lib.is_dir():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run([*pip, "--no-deps", "--target", str(fetched / "flink"), FLINK_PACKAGE], fetched)
            (fetched / "flink").replace(cache / "flink")
        if not packages.job_server_jar.is_file():
            target = fetched / "job-server"
            _run(["mvn", "-B", "-q", "package", "-f", str(_POM), f"-DbuildDirectory={target}"], fetched)
            (target / "job-server.jar").replace(packages.job_server_jar)
    return packages


def _places(cache: Path) -> Packages:
    return Packages(cache / "flink" / "pyflink" / "lib", cache / f"job-server-{FLINK_VERSION}.jar")


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_FETCH_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise OptionError(f"{command[0]} took longer than {_FETCH_LIMIT_S} s") from None
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        reason = next((line for line in lines if "ERROR" in line), lines[-1] if lines else "no output")
        raise OptionError(f"{os.path.basename(command[0])} can't fetch Flink's packages: {reason[:300]}")
