"""The report's folder: the page, and beside it figures, tables and data as files."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairtrial.errors import ReportError
from fairtrial.files import read_bounded
from fairtrial.history import History
from fairtrial.report.charts import write
from fairtrial.report.export import export
from fairtrial.report.files import replace_document
from fairtrial.report.page.document import document
from fairtrial.report.page.material import Material
from fairtrial.report.page.rows import claims_csv, verdicts_csv
from fairtrial.report.page.story import all_figures, story
from fairtrial.spec import Study
from fairtrial.trial import TrialResult

if TYPE_CHECKING:
    from fairtrial.report.views import View

#: The page, the folders beside it, and the file by which a folder is known as a report's.
PAGE, FIGURES, TABLES, DATA, MARK = "index.html", "figures", "tables", "data", "report.json"

#: A mark of more bytes is no report's.
MARK_BYTES = 2**24


def write_report(
    study: Study, results: Sequence[TrialResult], folder: Path, history: History | None = None
) -> list[Path]:
    """Write a report of a study, finished or not.

    The folder gets ``index.html``, one file that opens without a network, and beside it ``figures/`` (PNG, SVG, PDF),
    ``tables/`` (CSV, Markdown, LaTeX), ``data/`` (every epoch and every trial as CSV and Parquet, the study as TOML)
    and ``report.json``, which lists the files. A folder of an earlier report is written over, and links in the
    place of its files are replaced, not followed; of a folder with other files nothing is touched.

    Args:
        study: the study.
        results: of its trials, with the names of its arms.
        folder: where to write; it is made if missing.
        history: what was asked of these trials before, see `fairtrial.stats.comparison.compare`.

    Returns:
        The files, the page first.

    Raises:
        ReportError: the folder can't be written, or holds files of another kind.
    """
    check_folder(folder)
    material = Material.of(study, results, history)
    sections = story(material)
    page = document(material, sections).encode()
    _make(folder)
    _write(folder / MARK, _mark(study, []))  # so that a report that was broken off can be written again
    paths = []
    for name, content in (*_tables(material), *_data(material)):
        _write(folder / name, content)
        paths.append(folder / name)
    for figure in all_figures(sections).values():
        paths += write(figure, folder / FIGURES)
    _write(folder / PAGE, page)
    written = [folder / PAGE, *paths]
    _write(folder / MARK, _mark(study, [path.relative_to(folder).as_posix() for path in written]))
    return written


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier report, before anything is computed.

    Raises:
        ReportError: it does, or it is a file, or it can't be read; or a folder of the earlier report is now a link.
    """
    try:
        if not folder.exists():
            return
        if not folder.is_dir():
            raise ReportError(f"{folder}: is a file; name a folder for the report")
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise ReportError(f"{folder}: can't be read: {error.strerror or error}") from error
    if names and not _is_report(folder / MARK):
        raise ReportError(f"{folder}: holds other files; name an empty or a new folder, or that of an earlier report")
    for name in (FIGURES, TABLES, DATA):
        if (folder / name).is_symlink():
            raise ReportError(f"{folder / name}: is a link, which would lead out of the report's folder; remove it")


def _is_report(path: Path) -> bool:
    try:
        return bool(json.loads(read_bounded(path, MARK_BYTES))["made_by"] == "fairtrial report")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _mark(study: Study, files: Sequence[str]) -> bytes:
    table = {"made_by": "fairtrial report", "study": study.name, "hash": study.hash, "files": list(files)}
    return (json.dumps(table, indent=1) + "\n").encode()


def _tables(material: Material) -> Iterator[tuple[str, bytes]]:
    """Write the tables: CSV under the names of arms, Markdown and LaTeX under their labels."""
    views: dict[str, tuple[View[Any], str]] = {
        "results": (material.table, material.table.csv()),
        "verdicts": (material.verdict, verdicts_csv(material.named.verdict.data)),
    }
    if material.claims is not None and material.named.claims is not None:
        views["claims"] = (material.claims, claims_csv(material.named.claims))
    if material.xray is not None:
        views["xray"] = (material.xray, material.xray.csv())
    for name, (view, csv) in views.items():
        yield f"{TABLES}/{name}.csv", csv.encode()
        yield f"{TABLES}/{name}.md", view.markdown().encode()
        yield f"{TABLES}/{name}.tex", view.latex().encode()


def _data(material: Material) -> Iterator[tuple[str, bytes]]:
    named = material.named
    yield f"{DATA}/study.toml", named.study.to_toml().encode()
    yield f"{DATA}/epochs.csv", export(named.study, named.results, "csv")
    yield f"{DATA}/epochs.parquet", export(named.study, named.results, "parquet")
    if named.results:
        yield f"{DATA}/trials.csv", export(named.study, named.results, "csv", rows="trials")
        yield f"{DATA}/trials.parquet", export(named.study, named.results, "parquet", rows="trials")
    if any(result.snapshots for result in named.results):
        yield f"{DATA}/snapshots.csv", export(named.study, named.results, "csv", rows="snapshots")
        yield f"{DATA}/snapshots.parquet", export(named.study, named.results, "parquet", rows="snapshots")


def _make(folder: Path) -> None:
    for path in (folder, folder / FIGURES, folder / TABLES, folder / DATA):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ReportError(f"{path}: can't be made: {error.strerror or error}") from error


def _write(path: Path, content: bytes) -> None:
    replace_document(path, content)


def folder_name(study: Study) -> str:
    """Name a folder for a study's report: ``quick-943dd38e-report``, of letters, digits, dots, hyphens, underscores."""
    return re.sub(r"[^\w.-]", "_", f"{study.name[:60]}-{study.hash[:8]}-report", flags=re.ASCII)
