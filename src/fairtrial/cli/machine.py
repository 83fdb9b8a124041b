"""Commands that time this machine, check the installation and download data."""

from pathlib import Path
from typing import Annotated

import typer

from fairtrial import api
from fairtrial.cli.options import DeviceOption, JSONOption, OverridesOption, StoreOption, ThreadsOption
from fairtrial.cli.output import console, out
from fairtrial.report.live import DownloadBar
from fairtrial.store.url import DEFAULT_STORE


def bench(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study whose first arm is timed.")] = "paper",
    overrides: OverridesOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,  # noqa: ARG001  (its callback has chosen it)
    as_json: JSONOption = False,
) -> None:
    """Time training steps on this machine.

    Compares fairtrial's fast layers with torch's own layers, and with a step's matrix products alone; on a GPU, numbers
    of trials side by side, and the memory of each.
    """
    from fairtrial.report import costs  # noqa: PLC0415

    measured = api.bench(api.load(study, overrides or []), threads=threads or 1)
    out(costs.to_json(measured) if as_json else costs.bench_text(measured))


def check_installation(
    store: StoreOption = DEFAULT_STORE,
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The Ray cluster to check; by default RAY_ADDRESS.")
    ] = None,
    device: DeviceOption = None,  # noqa: ARG001  (its callback has chosen it)
    as_json: JSONOption = False,
) -> None:
    """Check the installation.

    Checks versions, GPUs, compiler, data, store, disk and memory, Ray and PostgreSQL.
    """
    from fairtrial import doctor  # noqa: PLC0415
    from fairtrial.report.costs import result_text, to_json  # noqa: PLC0415

    findings = []
    for finding in doctor.check_installation(store, address):
        findings.append(finding)
        if not as_json:
            out(result_text(finding, console().width))
    if as_json:
        out(to_json(findings))
    if any(finding.state is doctor.BAD for finding in findings):
        raise typer.Exit(1)


def data(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The data set, such as cifar10.")],
    source: Annotated[
        Path | None, typer.Option("--from", metavar="PATH", help="A folder or archive to read instead of downloading.")
    ] = None,
) -> None:
    """Download a data set, verify it and print where it is."""
    with DownloadBar(console()) as bar:
        fetched = api.fetch_data(name, source, progress=bar)
    how = "already here, unchanged" if fetched.cached else f"decoded from {fetched.origin}"
    out(f"{fetched.name}: {how}\n  in {fetched.path}, {fetched.bytes / 1e6:.0f} MB\n  SHA-256 {fetched.digest}")
