"""`k8s-tracing view` on free ports; to a test it is what tests.support.jaeger.Jaeger is."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from tests.support.jaeger import JaegerQuery
from tests.support.wait import wait_for


class Viewer:
    """A viewer that runs from `with Viewer() as viewer:` to the end of the block.

    Args:
        arguments: More of its command line, like a file to show.
    """

    def __init__(self, *arguments: str | Path) -> None:
        self._arguments = arguments
        self._folder = tempfile.TemporaryDirectory(prefix="k8st-viewer-")
        self._log_path = Path(self._folder.name) / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Viewer":
        command = [sys.executable, "-m", "k8s_tracing", "view", *map(str, self._arguments)]
        for port in ("--port", "--otlp-http-port", "--otlp-grpc-port"):
            command += [port, "0"]
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            said = wait_for("the viewer's addresses", self._addresses, timeout_s=60)
        except BaseException as error:
            message = f"the viewer does not start: {error}\n{self.log()}"
            self.__exit__(None, None, None)
            raise RuntimeError(message) from error
        self.url, self.otlp_http_endpoint, self.otlp_grpc_endpoint = said
        self.query = JaegerQuery(self.url)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._folder.cleanup()

    def log(self) -> str:
        """Return all that it said."""
        return self._log_path.read_text(errors="replace")

    def _addresses(self) -> tuple[str, ...] | None:
        assert self.process is not None
        if (status := self.process.poll()) is not None:
            raise RuntimeError(f"it ended with exit status {status}")
        found = [
            re.search(rf"{what}: (http://\S+)\n", self.log())
            for what in ("page", "OTLP/HTTP", "OTLP/gRPC")
        ]
        return tuple(match[1] for match in found if match) if all(found) else None
