"""`fairtrial new` writes examples to start from, and overwrites nothing."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fairtrial import templates
from fairtrial.cli import main as cli
from fairtrial.errors import FairtrialError
from fairtrial.loading import load
from fairtrial.templates import TEMPLATES, Template, write_template

ROOT = Path(__file__).parents[1]


def fairtrial_new(monkeypatch, capsys, *words):
    """Run the command, and give its status and what it prints."""
    monkeypatch.setattr(sys, "argv", ["fairtrial", "new", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code or 0, *capsys.readouterr()


@pytest.mark.parametrize("kind", TEMPLATES)
def test_it_writes_the_example(kind):
    for name in write_template(kind, Path("mine")).files:
        assert (Path("mine") / name).read_bytes() == (ROOT / "examples" / name).read_bytes()
    assert len(list(Path("mine").iterdir())) == 2


@pytest.mark.parametrize("kind", TEMPLATES)
def test_what_it_writes_is_a_study_whose_loop_is_beside_it(kind):
    toml, loop = write_template(kind, Path()).files
    study = load(toml)
    assert study.arms[0].settings.training.loop == f"{loop.removesuffix('.py')}:train"
    assert re.search(r"^def train\(trial(, report)?\):", Path(loop).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_it_names_every_package_that_its_loop_imports(kind):
    """As far as fairtrial itself does not need it."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bare = {re.match(r"[\w-]+", line)[0] for line in table["dependencies"]} | {"sklearn", "fairtrial"}
    extra = {re.match(r"[\w-]+", line)[0] for line in table["optional-dependencies"]["examples"]}
    template = TEMPLATES[kind]
    source = (ROOT / "examples" / template.files[1]).read_text(encoding="utf-8")
    imported = set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE))
    own = imported - bare - set(sys.stdlib_module_names) - {"tokenizers"}  # which comes with transformers
    assert own <= set(template.needs)
    assert set(template.needs) - {"accelerate"} <= own  # which transformers imports
    assert set(template.needs) <= extra


@pytest.mark.parametrize("there", ["sklearn_loop.toml", "sklearn_loop.py"])
def test_nothing_is_overwritten_and_nothing_half_written(there):
    Path(there).write_text("mine")
    with pytest.raises(FairtrialError, match=rf"^{there}: exists already; nothing was written$"):
        write_template("sklearn", Path())
    assert [(path.name, path.read_text()) for path in Path().iterdir()] == [(there, "mine")]


def test_a_link_is_not_followed():
    Path("sklearn_loop.py").symlink_to("elsewhere.py")
    with pytest.raises(FairtrialError, match="exists already"):
        write_template("sklearn", Path())
    assert [path.name for path in Path().iterdir()] == ["sklearn_loop.py"]


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("file", "file: File exists; nothing was written"),
        ("file/below", "file/below: Not a directory; nothing was written"),
        ("x" * 300, "File name too long; nothing was written"),
        ("\x1b[31m", None),
    ],
)
def test_a_folder_that_can_not_be_one_is_one_line(folder, message, monkeypatch, capsys):
    Path("file").write_text("mine")
    status, out, err = fairtrial_new(monkeypatch, capsys, "sklearn", folder)
    assert "\x1b" not in out + err
    assert status == (1 if message else 0)
    assert message is None or re.search(message, err)
    assert err.count("\n") == (1 if message else 0)


def test_a_folder_with_a_nul_character_is_one_line():
    with pytest.raises(FairtrialError, match=r"^a\\u0000b: .*null.*; nothing was written$"):
        write_template("sklearn", Path("a\0b"))


def test_an_unknown_kind_is_one_line(monkeypatch, capsys):
    status, out, err = fairtrial_new(monkeypatch, capsys, "kears")
    assert (status, out) == (1, "")
    assert err == "fairtrial: kears: no such template; did you mean `keras`?\n"
    assert list(Path().iterdir()) == []


def test_without_a_kind_it_lists_them(monkeypatch, capsys):
    status, out, err = fairtrial_new(monkeypatch, capsys)
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(TEMPLATES)


def test_it_says_what_to_do_next(monkeypatch, capsys):
    status, out, err = fairtrial_new(monkeypatch, capsys, "sklearn", "my folder")
    assert (status, err) == (0, "")
    assert out == (
        "wrote my folder/sklearn_loop.toml and my folder/sklearn_loop.py; "
        "next: fairtrial run 'my folder/sklearn_loop.toml'\n"
    )


def test_a_missing_library_is_one_line(monkeypatch, capsys):
    template = Template("sklearn_loop", "about", ("no_such_one", "torch", "no_such_other"))
    monkeypatch.setitem(TEMPLATES, "sklearn", template)
    status, out, err = fairtrial_new(monkeypatch, capsys, "sklearn")
    assert status == 0
    assert out.startswith("wrote sklearn_loop.toml and")
    assert err == (
        "sklearn_loop.py needs no_such_one and no_such_other, which are not installed: "
        "pip install no_such_one no_such_other\n"
    )


def test_an_installation_without_its_examples_is_one_line(monkeypatch):
    monkeypatch.setattr(templates, "__file__", "/a/b/c/d")
    monkeypatch.setattr(templates.resources, "files", lambda _: Path("/none"))
    with pytest.raises(FairtrialError, match="lacks its examples"):
        write_template("sklearn", Path())


def test_the_examples_are_in_the_wheel():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert table["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"] == {"examples": "fairtrial/examples"}


@pytest.mark.slow
def test_what_it_writes_runs():
    """Sklearn's alone; `test_examples` runs the same files for all of them."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for words in (["new", "sklearn", "mine"], ["run", "mine/sklearn_loop.toml"], ["verdict", "mine/sklearn_loop.toml"]):
        done = subprocess.run(
            [sys.executable, "-m", "fairtrial", *words],
            env=environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert re.search(r"strong(:| is) ", done.stdout)
