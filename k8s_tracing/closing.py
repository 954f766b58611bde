# SPDX-License-Identifier: Apache-2.0
"""What is closed when its `with` block ends: the one way for all that has a `close`."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


class Closing(abc.ABC):
    """A context manager of what holds something from the moment it is made."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of all that it holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
