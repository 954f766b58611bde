"""How the tests of a run are divided among processes."""

from pathlib import Path

import pytest

from tests.support import side_by_side

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/unit/test_w3c.py::test_a[1::2]", "tests/unit/test_w3c.py"),
        ("tests/containers/test_agent.py::test_a", "tests/containers"),
        ("tests/containers/test_hotrod.py::test_b", "tests/containers"),
        ("tests/browser/test_page.py::test_c", "tests/browser"),
    ],
)
def test_a_file_stays_together_and_so_does_what_shares_a_daemon(nodeid: str, group: str) -> None:
    assert side_by_side.group(nodeid) == group


def test_the_folders_it_names_are_there() -> None:
    for folder in (*side_by_side.TOGETHER, *side_by_side.LONGEST_FIRST):
        assert list((ROOT / folder).glob("test_*.py")), folder
