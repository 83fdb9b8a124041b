"""A study whose every text is hostile, through every command and format: nothing gets out that anything would obey."""

import csv
import io
import json
import re
import sys
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from rich.console import Console
from sqlalchemy import create_engine, select, update

import fairtrial
from fairtrial.callbacks import Callback
from fairtrial.cli import main as cli
from fairtrial.cli.output import show_traceback
from fairtrial.report.live import DownloadBar, ProgressDisplay
from fairtrial.store import schema
from fairtrial.store.sql import SQLStore

pytestmark = pytest.mark.usefixtures("inline")

#: What terminals, spreadsheets, browsers, Markdown, Rich and LaTeX obey, in one line each.
TERMINAL = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\u202e\u2028"
MARKUP = "[bold red]x[/] [link=http://evil.org]y[/link] :warning:"
MARKDOWN = "| ![i](http://evil.org/i) [l](http://evil.org) http://evil.org www.evil.org a@evil.org `c` ~~s~~ **b**"
HTML = "<script>alert(1)</script><img src=x onerror=alert(1)>&lt;</script><!--"
LATEX = r"\input{/etc/passwd} $\write18{id}$ % # & ~ ^ {"
VEGA = r"\" + warn(1) + \""
#: Names of parameters and metrics are printable, and have at most 128 characters.
NAME, METRIC = f"{MARKUP}{HTML}"[:128], f"{HTML}{VEGA}"
LABELS = [f"=HYPERLINK(1) {MARKUP}", f"[2cm] {MARKDOWN}", f"* {HTML}", f"@SUM(1) {LATEX} {VEGA}"]

STUDY = f"""
name = "evil"
reference = "a"
seeds = 3
training = {{ epochs = 2, loop = "evil:train" }}
[evidence]
margin = 0.01
best = true
[[claims]]
id = "1"
text = {json.dumps(f"{TERMINAL}{HTML} {MARKDOWN} {LATEX} {MARKUP}")}
arm = "b"
against = "a"
direction = "higher"
"""
ARM = """
[arms.{name}]
label = {label}
[arms.{name}.params]
number = {number}
end = "{name}"
"=1+1" = {formula}
{key} = {value}
"""
LOOP = f"""
from fairtrial import Diverged, Snapshot
HOSTILE = {f"{TERMINAL}{HTML}{MARKUP}{VEGA}"!r}
METRIC = {METRIC!r}
def train(trial):
    for epoch in (1, 2):
        found = {{"update_rms_over_lr": 0.5, "eps_over_10pct": 0.1, "log10_sqrt_vhat_p50": -3.0, "=cmd": 1.0}}
        found[HOSTILE] = 2.0
        parts = {{HOSTILE: found}}, {{HOSTILE: found, "=1+1": found}}
        trial.xray_progress.snapshots.append(
            Snapshot(trial.arm, trial.seed, epoch, epoch * 9, found, *parts, (HOSTILE,))
        )
        if epoch == 2 and trial.arm == "c":
            raise Diverged(HOSTILE)
        if epoch == 2 and trial.arm == "d":
            raise RuntimeError(HOSTILE + chr(10) + HOSTILE)
        acc = 0.5 + trial.settings.params["number"] + trial.seed / 100
        yield {{"test_acc": acc, "train_acc": acc, "train_loss": 1.0, "test_loss": 1.0, "../loss": 1.0, METRIC: 0.5,
               "=evil": float("nan")}}
"""


@pytest.fixture
def fairtrial_command(monkeypatch, capsys):
    """Run a command on the hostile study; return its output and its errors, in which there is nothing to obey."""
    arms = [
        ARM.format(
            name=name,
            label=json.dumps(label),
            number=number / 100,
            formula=json.dumps(f"-{number}+cmd()"),
            key=json.dumps(NAME),
            value=json.dumps(f"{number}{TERMINAL}{MARKDOWN}{HTML}{LATEX}"),
        )
        for number, (name, label) in enumerate(zip("abcd", LABELS, strict=True))
    ]
    Path("evil.toml").write_text(STUDY + "".join(arms), encoding="utf-8")
    Path("evil.py").write_text(LOOP, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])

    def command(*words, one_line=False):
        monkeypatch.setattr(sys, "argv", ["fairtrial", *words])
        with pytest.raises(SystemExit):
            cli.main()
        out, err = capsys.readouterr()
        check_text(out)
        check_text(err)
        assert not one_line or (out, err.count("\n")) == ("", 1)
        return out, err

    yield command
    sys.modules.pop("evil", None)


def check_text(text):
    """No terminal obeys a text: it has letters, signs, spaces and line breaks."""
    odd = {char for char in text if not char.isprintable()} - {"\n", "\t"}
    assert {char for char in odd if unicodedata.category(char) != "Zs"} == set()


class Page(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def check_markdown(text):
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    kinds = {each.type for token in tokens for each in (token, *(token.children or ()))}
    assert kinds <= {
        *(f"{kind}_{end}" for kind in ("paragraph", "strong", "list_item", "bullet_list") for end in ("open", "close")),
        *(f"{kind}_{end}" for kind in ("table", "thead", "tbody", "tr", "th", "td") for end in ("open", "close")),
        *("inline", "text", "softbreak"),
    }
    assert not re.search(r"(?<!\\):(?=//)|(?<=www)\.", text)  # what some readers make links of


def check_latex(text):
    plain = {"begin", "end", "centering", "caption", "shortstack", "toprule", "midrule", "bottomrule"}
    plain |= {"par", "medskip", "small", "footnotesize", "raggedright", "setlength", "tabcolsep", "linewidth", "label"}
    plain |= {"pm", "beta", "epsilon", "times", "textbackslash", "textasciitilde", "textasciicircum", "geq", "to"}
    lines = [line for line in text.splitlines() if not line.startswith("% ")]
    assert set(re.findall(r"\\([A-Za-z]+)", "\n".join(lines))) <= plain
    assert not re.search(r"(?<!\\)[%#]", "\n".join(lines))
    assert not any(line.lstrip().startswith(("[", "*")) for line in lines)


def check_csv(text):
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            assert not cell.strip().startswith(tuple("=+-@")) or float(cell) <= 0


FORMATS = {"markdown": check_markdown, "latex": check_latex, "json": json.loads, "text": check_text, "csv": check_csv}


def test_nothing_hostile_gets_out_of_any_command(fairtrial_command):
    _, err = fairtrial_command("run", "evil.toml")
    assert err.count("\n") < 60
    assert r"\u001b[2J" in err
    for command in ("table", "verdict", "claims"):
        for form in [*FORMATS][: 5 if command == "table" else 4]:
            out, _ = fairtrial_command(command, "evil.toml", "--format", form)
            FORMATS[form](out)
    for form, check in FORMATS.items():
        out, _ = fairtrial_command("xray", "evil.toml", "--format", form)
        check(out)
        assert out
    check_text(fairtrial_command("xray", "evil.toml", "--arm", "b")[0])
    for rows in ("epochs", "trials", "snapshots"):
        check_csv(fairtrial_command("export", "evil.toml", "--rows", rows)[0])
        json.loads(fairtrial_command("export", "evil.toml", "--rows", rows, "--format", "json")[0])
    lost, _ = fairtrial_command("failures", "evil.toml")
    assert r"RuntimeError: \u001b[2J" in lost
    assert "Traceback" in lost
    json.loads(fairtrial_command("failures", "evil.toml", "--json")[0])
    shown, _ = fairtrial_command("show", "evil.toml")
    Path("shown.toml").write_text(shown, encoding="utf-8")
    assert fairtrial.load("shown.toml") == fairtrial.load("evil.toml")
    assert "evil@" in fairtrial_command("ls")[0]
    fairtrial_command("digest", "evil.toml")
    assert fairtrial_command("explain", "evil.toml", "--steps", "5")[0]
    json.loads(fairtrial_command("explain", "evil.toml", "--steps", "5", "--json")[0])


def test_nothing_hostile_gets_out_of_runs_made_elsewhere(fairtrial_command):
    cells = [f"{TERMINAL}{HTML}{MARKUP}", f"=1+1 {MARKDOWN}", f"[2cm] {LATEX}{VEGA}"]
    columns = [f"{TERMINAL}{number}{HTML}" for number in range(3)]  # arm, seed, and another setting
    rows = [
        (arm, f"{seed}{MARKDOWN}", arm, 0.5 + at / 10 + seed / 100)
        for at, arm in enumerate(cells)
        for seed in (1, 2, 3)
    ]
    with Path(f"{TERMINAL}.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([(*columns, "test_acc"), *rows])
    asked = ["--arm", columns[0], "--seed", columns[1], "--measure", "test_acc", "--reference", cells[1].strip()]
    for form in ("text", "markdown", "latex", "json"):
        out, _ = fairtrial_command("judge", f"{TERMINAL}.csv", *asked, "--format", form)
        FORMATS[form](out)
        assert out
    gate = ["gate", f"{TERMINAL}.csv", *asked, "--not-worse-than", "0.01"]
    assert fairtrial_command(*gate)[0].count("arms differ in") == 1
    check_markdown(fairtrial_command(*gate, "--markdown", "-")[0])
    check_text(fairtrial_command(*gate, "--junit", "-")[0])
    fairtrial_command("import", f"{TERMINAL}.csv", *asked)
    fairtrial_command("merge", "fairtrial.db", "--store", "other.db")
    assert fairtrial_command("ls", "--store", "other.db")[0]
    asked[-1] = TERMINAL
    fairtrial_command("judge", f"{TERMINAL}.csv", *asked, one_line=True)


@pytest.mark.parametrize(
    "words",
    [
        ["judge", TERMINAL],
        ["judge", f"{TERMINAL}.csv"],
        ["judge", f"wandb:{TERMINAL}"],
        ["judge", f"mlflow:{TERMINAL}"],
        ["import", f"{TERMINAL}.csv", "--arm", TERMINAL],
        ["gate", TERMINAL],
        ["gate", f"{TERMINAL}.csv", "--arm", TERMINAL],
        ["gate", "evil.toml", "--baseline", f"{TERMINAL}.parquet", "--not-worse-than", "0.1"],
        ["merge", TERMINAL],
        ["rm", TERMINAL],
        ["run", TERMINAL],
        ["run", f"{TERMINAL}.toml"],
        ["run", "quick", "--set", f"{TERMINAL}=1"],
        ["run", "quick", "--set", f"name={json.dumps(TERMINAL)}"],
        ["run", "quick", "--set", f"training.loop={json.dumps(TERMINAL + ':x')}"],
        ["run", "quick", "--executor", TERMINAL],
        ["ls", "--store", f"{TERMINAL}/x.db"],
        ["ls", "--store", f"postgresql://{TERMINAL}"],
        ["table", "evil.toml", "--format", TERMINAL],
        ["verdict", "evil.toml", "--metric", TERMINAL],
        ["plot", "evil.toml", TERMINAL],
        ["plot", "evil.toml", "--arm", TERMINAL],
        ["plot", "evil.toml", "--measure", TERMINAL],
        ["plot", "evil.toml", "--size", TERMINAL],
        ["plot", "evil.toml", "--title", TERMINAL],
        ["serve", "--store", f"{TERMINAL}.db"],
        ["serve", "--port", TERMINAL],
        ["run", "quick", "--port", TERMINAL],
        ["xray", "evil.toml", "--arm", TERMINAL],
        ["xray", TERMINAL],
        ["report", TERMINAL],
        ["report", "evil.toml", "--out", f"fairtrial.db/{TERMINAL}"],
        [TERMINAL],
    ],
)
def test_every_error_is_one_line_without_anything_hostile(fairtrial_command, words):
    fairtrial_command("run", "evil.toml", "--set", "seeds=1") if "evil.toml" in words else None
    words = [word.replace("evil.toml", "evil") for word in words]
    fairtrial_command(*words, one_line=words[:2] != ["ls", "--store"])


def test_a_store_that_others_wrote(fairtrial_command):
    fairtrial_command("run", "evil.toml", "--set", "seeds=1")
    name = "\x1b[2J[bold]"
    with create_engine("sqlite:///fairtrial.db").begin() as connection:
        row = connection.execute(select(*schema.covered(schema.studies))).one()._asdict() | {"name": name}
        connection.execute(update(schema.studies).values(schema.with_checksum(schema.studies, row)))
    assert r"\u001b[2J[bold]@" in fairtrial_command("ls")[0]
    fairtrial_command("table", "evil", one_line=True)


def test_html_and_charts_hold_no_live_text(fairtrial_command, tmp_path):
    fairtrial_command("run", "evil.toml")
    results = fairtrial.open_results("evil.toml")
    for view in (results.table(), results.verdict(), results.claims(), results.xray()):
        page = Page(view.html())
        assert page.tags <= {"div", "strong", "ul", "li", "br", "table", "thead", "tbody", "tr", "th", "td", "span"}
        assert page.attributes <= {"style"}
        check_text(view.html())
        check_text(re.sub(r"\x1b\[[\d;]*m", "", view.text(60, color=True)))
        check_text(repr(view))
    hostile = next(name for name in results.results[0].epochs[0].metrics if name == METRIC)
    figures = (
        results.plots(hostile, "../loss") + results.plots() + results.plots("differences", title=TERMINAL + MARKUP)
    )
    assert {"differences", "seeds", "test_accuracy", "xray_updates", "xray_layers"} <= {
        figure.name for figure in figures
    }
    for figure in figures:
        for text in (figure.title, figure.caption, figure.alt):
            check_text(text)
        spec = json.dumps(figure.chart.to_dict(), ensure_ascii=False)
        check_text(spec)
        assert not re.search(r"<[/!]", spec)
        picture = io.StringIO()
        figure.chart.save(picture, format="svg")
        check_text(picture.getvalue())
        elements = list(ElementTree.fromstring(picture.getvalue()).iter())
        tags = {each.tag.partition("}")[2] for each in elements}
        assert tags <= {"svg", "g", "path", "text", "tspan", "rect", "line", "defs", "clipPath"}
        assert not {name for each in elements for name in each.attrib if name.lower().startswith(("on", "href"))}
        for path in fairtrial.report.charts.write(figure, tmp_path / "figures"):
            assert path.parent == tmp_path / "figures"
            check_text(str(path))


def test_a_report_holds_no_live_text_and_stays_in_its_folder(fairtrial_command):
    fairtrial_command("run", "evil.toml")
    before = set(Path.cwd().rglob("*"))
    out, _ = fairtrial_command("report", "evil.toml", "--out", "report")
    assert out == "report/index.html\n"
    made = {path for path in Path.cwd().rglob("*") if path not in before and "__pycache__" not in str(path)}
    folder = Path.cwd() / "report"
    assert all(path == folder or folder in path.parents for path in made)
    page = Path("report/index.html").read_text(encoding="utf-8")
    assert page.count("<script") - page.count('<script type="application/json"') == 2 + page.count('"<script')
    body = page.partition("<main")[2].partition("</main>")[0]
    check_text(body)
    parsed = Page(re.sub(r"<script type=.application/json.*?</script>", "", body, flags=re.DOTALL))
    assert parsed.tags <= {
        *("div", "p", "h1", "h2", "h3", "h4", "section", "details", "summary", "figure", "figcaption", "bdi", "footer"),
        *(
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "span",
            "strong",
            "ul",
            "ol",
            "li",
            "br",
            "dl",
            "dt",
            "dd",
            "pre",
        ),
        *("button", "label", "input", "select", "option", "img"),
    }
    assert not {name for name in parsed.attributes if name.startswith("on")}
    assert not re.search(r'src="(?!data:image/svg)', body)
    for path in Path("report/tables").iterdir():
        text = path.read_text(encoding="utf-8")
        {".csv": check_csv, ".md": check_markdown, ".tex": check_latex}[path.suffix](text)
    for path in Path("report/data").glob("*.csv"):
        check_csv(path.read_text(encoding="utf-8"))
    for path in made:
        check_text(str(path.relative_to(Path.cwd())))


@pytest.mark.parametrize("terminal", [True, False])
def test_the_live_view_shows_escapes(fairtrial_command, terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=500, legacy_windows=False)
    study = fairtrial.load("evil.toml")

    class Warn(Callback):
        def on_trial_end(self, trial, outcome, detail):
            for about in (trial, None):
                display.on_warning(about, f"{TERMINAL}{MARKUP}")

    with ProgressDisplay(console) as display, SQLStore(":memory:") as store:
        display.on_download(1, 2, f"{TERMINAL}{MARKUP}")
        fairtrial.run(study, store=store, executor=fairtrial.InlineExecutor(), callbacks=[display, Warn()])
    with DownloadBar(console) as bar:
        bar(1, None, f"{TERMINAL}{MARKUP}")
    text = out.getvalue()
    own = re.compile(r"\x1b\[[\d;]*[mAK]|\x1b\[\?25[lh]|\r")  # colors, and what moves the bars
    check_text(own.sub("", text))
    assert r"\u001b[2J" in text
    assert "[bold red]x[/] [link=http://evil.org]y[/link] :warning:" in own.sub("", text)


@pytest.mark.parametrize("by_variable", [True, False])
@pytest.mark.parametrize("place", ["postgresql:/ada:s3cret@host/runs", "postgres//ada:s3cret@h/d", "ada:s3cret@h"])
@pytest.mark.parametrize(
    "command", ["run", "plan", "check", "table", "plot", "report", "export", "xray", "ls", "doctor"]
)
def test_no_command_shows_the_password_of_a_mistyped_store(fairtrial_command, monkeypatch, command, place, by_variable):
    monkeypatch.setattr("fairtrial.doctor._layers", lambda: ("good", ""))  # slow, and about something else
    words = [command] if command in {"ls", "doctor"} else [command, "evil.toml"]
    if by_variable:
        monkeypatch.setenv("FAIRTRIAL_STORE", place)
    else:
        words.append(f"--store={place}")
    before = set(Path.cwd().iterdir())
    out, err = fairtrial_command(*words)
    assert "looks like a mistyped URL" in out + err
    assert "s3cret" not in out + err
    assert set(Path.cwd().iterdir()) == before


@pytest.mark.parametrize("words", [["run", "postgresql://ada:s3cret@h/d"], ["table", "postgresql:ada:s3cret@h"]])
def test_a_url_in_the_wrong_place_shows_no_password(fairtrial_command, words):
    _, err = fairtrial_command(*words, one_line=True)
    assert "s3cret" not in err


def test_a_traceback_shows_escapes_and_no_password(capsys):
    with pytest.raises(ValueError, match="postgresql") as caught:
        raise ValueError(f"{TERMINAL} postgresql://ada:s3cret@host/runs")
    show_traceback(caught.type, caught.value, caught.tb)
    out, err = capsys.readouterr()
    check_text(err)
    assert out == ""
    assert "s3cret" not in err
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith("postgresql://ada:***@host/runs\n")
