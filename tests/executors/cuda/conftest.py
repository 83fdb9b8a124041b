"""Workers are measured here, for here they are tested; other tests that start some only use them."""

import pytest


@pytest.fixture(autouse=True)
def _measured(coverage_of_processes, monkeypatch):
    if coverage_of_processes:
        monkeypatch.setenv("COVERAGE_PROCESS_CONFIG", coverage_of_processes)
