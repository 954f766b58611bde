"""The shared objects beside the package: what is said when one does not fit."""

from pathlib import Path

import pytest

import k8s_tracing
from k8s_tracing import libraries
from k8s_tracing.errors import K8sTracingError


@pytest.fixture(autouse=True)
def loaded_anew() -> None:
    libraries.load.cache_clear()


def test_a_library_that_is_not_installed() -> None:
    with pytest.raises(K8sTracingError, match=r"nothing\.cdef\.txt is not installed"):
        libraries.load("nothing")


def test_a_build_of_another_source_says_how_to_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "_native").mkdir()
    page = tmp_path / "_native" / "relay.cdef.txt"
    page.write_text("int another_abi(void);")
    monkeypatch.setattr(k8s_tracing, "__file__", str(tmp_path / "k8s_tracing" / "__init__.py"))
    with pytest.raises(K8sTracingError, match="make setup"):
        libraries.load("relay")
    page.unlink()
    assert libraries.load("relay")
