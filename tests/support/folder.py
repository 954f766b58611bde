"""A temporary folder that other users may enter."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder for a private session daemon, which is another user when root runs the tests.

    pytest's own folders do not serve: they are too long for a socket's path, and pytest closes them to others again
    whenever it starts.
    """
    with tempfile.TemporaryDirectory(prefix="k8st-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder
