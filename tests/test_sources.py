"""Digests of users' code: which files and packages belong to a module, and what a function of a script uses."""

import hashlib
import importlib.metadata
import sys
from pathlib import Path

import pytest

from fairtrial import sources
from fairtrial.spec import LoopName

FILES = {
    "my_loop.py": "import math, os.path\nimport torch\nfrom helper import step\nfrom parts.layers import Block\n"
    "import fairtrial\ndef train(trial):\n    import late\n    yield {}\n",
    "helper.py": "import my_loop\nimport no_such_module\n",  # in a circle
    "late.py": "import yaml, tomli_w\n",
    "parts/__init__.py": "from . import base\n",
    "parts/base.py": "",
    "parts/layers.py": "from .norms import norm\nfrom ..above import nothing\n",
    "parts/norms.py": "norm = 1\n",
    "parts/unused.py": "",
    "unused.py": "",
    "spaces/inner.py": "from spaces import other\n",  # a package without __init__.py
    "spaces/other.py": "",
    "broken.py": "def (:\n",
}


@pytest.fixture(autouse=True)
def _files(tmp_path, monkeypatch):
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    sources.forget()
    yield
    sources.forget()


def test_a_loop_comes_from_its_module_and_all_that_it_imports(tmp_path):
    found = sources.code_of(["my_loop:train", "adam"])
    files = {"my_loop.py", "helper.py", "late.py", "parts/__init__.py", "parts/base.py", "parts/layers.py"}
    files |= {"parts/norms.py"}
    assert found == {
        **{name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in sorted(files)},
        "tomli_w": importlib.metadata.version("tomli_w"),
        "yaml": f"PyYAML {importlib.metadata.version('PyYAML')}",
    }
    assert "my_loop" not in sys.modules  # nothing was imported for it


def test_packages_without_a_file_and_files_that_are_no_python():
    assert set(sources.code_of(["spaces.inner:train"])) == {"spaces/inner.py", "spaces/other.py"}
    assert set(sources.code_of(["broken:train"])) == {"broken.py"}
    assert sources.code_of(["nowhere:train"]) == {}


def test_code_of_an_installed_package_is_its_version():
    assert sources.code_of(["tomli_w._writer:dumps"]) == {"tomli_w": importlib.metadata.version("tomli_w")}


def test_what_fairtrial_has_needs_no_digest():
    assert sources.code_of(["fairtrial", "cifar10", "fairtrial.testing:simulate"]) == {}


def test_each_module_is_listed_after_those_that_it_imports():
    names = sources.modules_of("my_loop")
    assert names[-1] == "my_loop"
    assert names.index("parts.norms") < names.index("parts.layers")
    assert names.index("parts") < names.index("parts.layers")


def test_a_file_counts_as_it_was_when_this_process_first_read_it():
    before = sources.code_of(["my_loop:train"])
    Path("helper.py").write_text("# edited\n")
    assert sources.code_of(["my_loop:train"]) == before
    sources.forget()
    after = sources.code_of(["my_loop:train"])
    assert {name for name in before if before[name] != after.get(name)} == {"helper.py"}


SCRIPT = """
import helper_of_script
RATE, TABLE, log, calls = 0.1, {"depth": 3}, [], 0
class Net:
    width = 4
    def forward(self): return scale(self.width)
def scale(x): return RATE * x
def unused(): return 3
def train(trial):
    global calls
    calls += 1
    log.append(TABLE["depth"])
    helper_of_script.help()
    net = Net()
    yield {"test_acc": net.forward()}
"""


def script(tmp_path, change=("", "")):
    """Digest the function train of a script."""
    (tmp_path / "helper_of_script.py").write_text("def help(): pass\n")
    names = {"__name__": "__main__"}
    exec(SCRIPT.replace(*change), names)
    sources.forget()
    loop = LoopName.of(names["train"])
    found = sources.code_of([loop])
    assert sources.code_of([str(loop)]) == {}  # a worker can't have it
    return found


def test_a_function_of_a_script_is_known_with_all_that_it_uses_of_the_script(tmp_path):
    of_main = {"train", "Net", "Net.width", "scale", "RATE", "TABLE"}
    assert set(script(tmp_path)) == {f"__main__:{name}" for name in of_main} | {"helper_of_script.py"}
    assert script(tmp_path) == script(tmp_path)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (("RATE * x", "RATE + x"), "scale"),
        (("0.1", "0.2"), "RATE"),
        (('"depth": 3', '"depth": 4'), "TABLE"),
        (("width = 4", "width = 5"), "Net.width"),
        (("scale(self.width)", "scale(-self.width)"), "Net"),
        (("calls += 1", "calls += 2"), "train"),
        (("[], 0", "[1], 1"), None),  # what the function itself adds to
        (("return 3", "return 4"), None),
    ],
    ids=str,
)
def test_a_change_of_a_script_is_found_where_the_function_uses_it(change, name, tmp_path):
    before, after = script(tmp_path), script(tmp_path, change)
    assert {key for key in before if before[key] != after[key]} == ({f"__main__:{name}"} if name else set())


def test_a_function_that_captures_a_variable_without_a_value_has_a_name():
    def outer():
        def train(trial):
            yield late

        name = LoopName.of(train)
        late = 1
        return name, LoopName.of(train), late

    early, later, _ = outer()
    assert early != later
