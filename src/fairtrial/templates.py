"""Studies with training loops to start from: the project's examples, one for each library that people train with."""

from contextlib import suppress
from dataclasses import dataclass
from importlib import resources, util
from importlib.resources.abc import Traversable
from pathlib import Path

from fairtrial.errors import FairtrialError
from fairtrial.registry import did_you_mean
from fairtrial.text import one_line


@dataclass(frozen=True)
class Template:
    """A study and its training loop.

    Attributes:
        stem: the name of both files, without ``.toml`` and ``.py``.
        about: what the loop is.
        needs: packages that fairtrial does not bring along; each is imported by the name by which it is installed.
    """

    stem: str
    about: str
    needs: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files."""
        return f"{self.stem}.toml", f"{self.stem}.py"

    @property
    def missing(self) -> tuple[str, ...]:
        """The packages that are not installed."""
        return tuple(package for package in self.needs if util.find_spec(package) is None)


TEMPLATES = {
    "torch": Template("own_loop", "a PyTorch loop of your own, which resumes after an interruption"),
    "lightning": Template("lightning_loop", "Lightning's Trainer", ("lightning",)),
    "transformers": Template("transformers_loop", "the Trainer of Hugging Face", ("transformers", "accelerate")),
    "keras": Template("keras_loop", "Keras's fit, with the paper's network", ("keras",)),
    "sklearn": Template("sklearn_loop", "scikit-learn's partial_fit, without torch"),
    "jax": Template("jax_loop", "JAX with optax, which resumes after an interruption", ("jax", "optax")),
    "xgboost": Template("xgboost_loop", "XGBoost, a record for each round", ("xgboost",)),
}


def write_template(kind: str, folder: Path) -> Template:
    """Write a template's two files into a folder, which is made if there is none; nothing is overwritten.

    Raises:
        FairtrialError: no such template, a file of that name exists, or they can't be written; then neither is.

    Example:
        >>> write_template("sklearn", Path("mine")).files
        ('sklearn_loop.toml', 'sklearn_loop.py')
        >>> write_template("sklearn", Path("mine"))
        Traceback (most recent call last):
        fairtrial.errors.FairtrialError: mine/sklearn_loop.toml: exists already; nothing was written
    """
    if kind not in TEMPLATES:
        raise FairtrialError(f"{one_line(kind)}: no such template; {did_you_mean(kind, TEMPLATES)}")
    template = TEMPLATES[kind]
    contents = {folder / name: (_examples() / name).read_bytes() for name in template.files}
    written: list[Path] = []
    path = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            with path.open("xb") as file:
                written.append(path)
                file.write(content)
    except (OSError, ValueError) as error:  # a NUL character is a ValueError
        for one in written:
            with suppress(OSError):
                one.unlink()
        why = error.strerror if isinstance(error, OSError) else str(error)
        why = "exists already" if isinstance(error, FileExistsError) and path != folder else why
        raise FairtrialError(f"{one_line(str(path))}: {why}; nothing was written") from error
    return template


def _examples() -> Traversable:
    """The folder of the examples: in the package, or in the checkout that it is run from."""
    folders = resources.files("fairtrial") / "examples", Path(__file__).parents[2] / "examples"
    for folder in folders:
        if folder.is_dir():
            return folder
    raise FairtrialError(f"this installation lacks its examples ({folders[0]}); install fairtrial again")
