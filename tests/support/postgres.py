"""A real PostgreSQL with a socket of its own, in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_port
from tests.support.wait import wait_for

#: PostgreSQL refuses to run as root, and its own user is there with its package.
_USER = "postgres"


def program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs; Debian keeps them out of PATH.

    Raises:
        AssertionError: it is not installed. Tests that need it fail then; they do not skip.
    """
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: float(each.parent.name)
    )
    path = shutil.which(
        name, path=os.pathsep.join([*map(str, reversed(versions)), os.environ["PATH"]])
    )
    assert path, f"{name} is not installed, and this test needs it: run `make setup`"
    return path


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run PostgreSQL in `folder`, which other users may enter; yields the URL of its database."""
    user = pwd.getpwnam(_USER) if os.geteuid() == 0 else None
    data, log, port = folder / "postgres", folder / "postgres.log", free_port()
    data.mkdir(mode=0o700)
    log.touch()
    if user:
        for path in (data, log):
            os.chown(path, user.pw_uid, user.pw_gid)
    options = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    command = [program("initdb"), "--pgdata", str(data), "--username=hotrod", "--auth=trust"]
    done = subprocess.run(
        [*command, "--no-sync", "--encoding=UTF8", "--locale=C"],
        capture_output=True, text=True, cwd=folder, check=False, **options,  # type: ignore[call-overload]
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    command = [program("postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1"]
    command += ["-c", "fsync=off", "-c", f"unix_socket_directories={data}"]
    with log.open("wb") as stream:
        server = subprocess.Popen(command, stdout=stream, stderr=stream, cwd=folder, **options)  # type: ignore[call-overload]
    try:
        ready = [program("pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={port}"]

        def accepts() -> bool:
            assert server.poll() is None, log.read_text()
            return subprocess.run(ready, check=False).returncode == 0

        wait_for("PostgreSQL", accepts, 60, interval_s=0.1)
        yield f"postgresql://hotrod@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(60)
