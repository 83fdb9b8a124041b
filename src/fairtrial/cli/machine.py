"""Commands about this machine rather than about a study: its pace, its installation, its data."""

from pathlib import Path
from typing import Annotated

import typer

from fairtrial import loading
from fairtrial.cli.options import DEFAULT_STORE, SetOption, StoreOption, ThreadsOption
from fairtrial.cli.terminal import console, out
from fairtrial.report.live import DownloadBar


def bench(
    study: Annotated[str, typer.Argument(metavar="[STUDY]", help="Whose first arm is timed.")] = "paper",
    assignments: SetOption = None,
    threads: ThreadsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure this machine: a training step by the plain and the fast path, beside its matrix products alone."""
    from fairtrial.report import costs  # noqa: PLC0415
    from fairtrial.training import bench as benching  # noqa: PLC0415

    found = loading.find_to_run(study, assignments or [], [])
    measured = benching.bench(found, threads=threads or 1)
    out(costs.bench_json(measured) if as_json else costs.bench_text(measured))


def examine_installation(
    store: StoreOption = DEFAULT_STORE,
    address: Annotated[str | None, typer.Option(help="A Ray cluster to look at; by default RAY_ADDRESS.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this installation: versions, compiler, data, store, disk and memory, Ray and PostgreSQL."""
    from fairtrial.doctor import CheckStatus, check_installation  # noqa: PLC0415
    from fairtrial.report.doctor import finding_text, findings_json  # noqa: PLC0415

    findings = []
    for finding in check_installation(store, address):
        findings.append(finding)
        if not as_json:
            out(finding_text(finding, console().width))
    if as_json:
        out(findings_json(findings))
    if any(finding.state is CheckStatus.BAD for finding in findings):
        raise typer.Exit(1)


def data(
    name: Annotated[str, typer.Argument(help="cifar10 or digits.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="A folder or archive to read instead of downloading.")
    ] = None,
) -> None:
    """Fetch a data set, verify it, and say where it lies."""
    from fairtrial.training import datasets  # noqa: PLC0415

    with DownloadBar(console()) as bar:
        fetched = datasets.fetch(name, source=source, progress=bar)
    there = "is here already, unchanged" if fetched.cached else f"decoded from {fetched.origin}"
    out(f"{fetched.name}: {there}\n  in {fetched.path}, {fetched.bytes / 1e6:.0f} MB\n  SHA-256 {fetched.digest}")
