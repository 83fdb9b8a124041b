"""What tests and docstring examples share: the CPU, a folder of their own, and names that examples use unimported."""

import os

import pytest

import fairtrial

#: On a machine with a GPU, too, tests train on its CPU, and so do the processes that they start, but for tests marked
#: `gpu`. Set here and not in a fixture alone, because fixtures of whole modules start processes, such as Ray's.
ON_CPU = {"FAIRTRIAL_DEVICE": "cpu"}
os.environ |= ON_CPU


@pytest.fixture(autouse=True)
def _alone(request, tmp_path, monkeypatch):
    """Run each test in a folder of its own, untouched by the environment of whoever runs it, and on the CPU.

    Tests marked `gpu` find the machine as it is.
    """
    for name in [name for name in os.environ if name.startswith("FAIRTRIAL_") and name != "FAIRTRIAL_CACHE"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    if request.node.get_closest_marker("gpu") is None:
        for name, value in ON_CPU.items():
            monkeypatch.setenv(name, value)
        return
    import torch  # noqa: PLC0415  (takes a second, which most tests need not wait for)

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU of NVIDIA's, and torch with CUDA")


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
