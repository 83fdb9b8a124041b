"""What tests and docstring examples share: a folder of their own, and names that examples use without an import."""

import os

import pytest

import fairtrial


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """Run each test in a folder of its own, untouched by the environment of whoever runs it."""
    for name in [name for name in os.environ if name.startswith("FAIRTRIAL_") and name != "FAIRTRIAL_CACHE"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _names_in_examples(doctest_namespace):
    """Give docstring examples a small simulated study, its results, and the package under both its names."""
    from fairtrial.testing import simulated_results, simulated_study  # noqa: PLC0415

    study = simulated_study(
        {"baseline": {}, "high_beta1": {"mean": 0.801}, "low_beta2": {"mean": 0.78}},
        seeds=5,
        evidence={"margin": 0.01},
        claims=[
            {"id": "1", "text": "low_beta2 is behind.", "arm": "low_beta2", "against": "baseline", "direction": "lower"}
        ],
    )
    doctest_namespace |= {
        "fairtrial": fairtrial,
        "ft": fairtrial,
        "study": study,
        "results": simulated_results(study),
    }
