"""Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import learning, make_results, make_study
from fairtrial.report.formats import latex
from fairtrial.report.grid import Column, Grid
from fairtrial.report.views import View
from fairtrial.results import StudyResults
from fairtrial.stats.summary import StudySummary, summarize
from fairtrial.trial import Outcome

METRICS = ["best_test_acc", "best_train_acc", "final_test_acc", "final_train_loss", "seconds"]


def write(summary, form):
    return View(summary).write(form)


SGD = {"adam": {}, "sgd": {"optimizer": {"name": "sgd", "lr": 0.1}}}


def make(study=None, **options):
    study = study or make_study()
    return summarize(study, make_results(study, **options))


class TestMarkdown:
    def test_a_pipe_table_whose_lines_have_equally_many_cells(self):
        lines = write(make(ended={("low_beta2", 1): Outcome.DIVERGED}), "markdown").splitlines()
        end = lines.index("")
        heads = ["arm", "beta1", "beta2", "epsilon", "best test accuracy (%)", "best train accuracy (%)"]
        assert lines[0].strip("| ").split(" | ") == [*heads, "time (s)", "seeds"]
        assert lines[1].strip("| ").split(" | ") == [":--"] + ["--:"] * 7
        assert end == 2 + 5
        assert {len(re.split(r"(?<!\\)\|", each)) for each in lines[:end]} == {10}
        assert all(each.startswith("- ") for each in lines[end + 1 :])

    def test_names_and_the_mark_are_escaped(self):
        output = write(make(), "markdown")
        assert r"| baseline \* | 0.9 | 0.999 | 1e-8 |" in output
        assert r"| high\_beta1 |" in output
        assert r"- \* reference." in output


class TestLatex:
    def test_the_structure_of_a_booktabs_table(self):
        lines = [line.strip() for line in write(make(), "latex").splitlines()]
        begins = [match[1] for line in lines if (match := re.match(r"\\begin\{(\w+)\}", line))]
        ends = [match[1] for line in lines if (match := re.match(r"\\end\{(\w+)\}", line))]
        assert begins == ends[::-1] == ["table", "tabular"]
        assert [line for line in lines if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
        columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", "\n".join(lines))[1]
        rows = [line for line in lines if " & " in line]
        assert len(rows) == 1 + 5
        assert all(row.endswith(r" \\") and row.count(" & ") == len(columns) - 1 for row in rows)

    @settings(deadline=None)
    @given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs"))))
    def test_whatever_a_name_holds_is_escaped(self, name):
        summary = make(make_study(("a",), seeds=2))
        summary = StudySummary(**{**vars(summary), "study": name})
        caption = next(line for line in write(summary, "latex").splitlines() if r"\caption" in line)
        escapes = r"\\(textbackslash|textasciitilde|textasciicircum)\{\}|\\[&%$#_{}]|\$(\\pm|[<>|]|-\d[\d.]*)\$"
        bare = re.sub(escapes, "", caption)
        assert re.fullmatch(r"\s*\\caption\{[^\\{}$&#^_~%]*\}", bare)

    def test_names_numbers_and_gaps_are_typeset(self):
        output = write(make(), "latex")
        assert r"high\_beta1 & 0.95 & 0.999 & $10^{-8}$ & " in output
        assert re.search(r"\d\d\.\d\d \$\\pm\$ \d\.\d\d", output)
        assert r"arm & $\beta_1$ & $\beta_2$ & $\epsilon$ & \shortstack{best test \\ accuracy (\%)} & " in output
        gaps = write(make(make_study({**SGD, "b": {"optimizer": {"eps": 2.5e-6}}})), "latex")
        assert "sgd & -- & -- & -- & sgd & 0.1 & " in gaps
        assert r"$2.5 \times 10^{-6}$" in gaps

    @pytest.mark.parametrize(
        ("label", "typeset"),
        [
            ("lr → 0, β₁ ≤ 0.9 × 2", r"lr $\to$ 0, $\beta_1$ $\leq$ 0.9 $\times$ 2"),
            ("−∞ · µ, 5 ± 1°", r"$-$$\infty$ $\cdot$ $\mu$, 5 $\pm$ 1$^{\circ}$"),
            ("café – “x”", "café – “x”"),
        ],
    )
    def test_symbols_in_labels_become_math(self, label, typeset):
        output = latex(Grid(label, (), ()))
        assert f"\\caption{{{typeset}.}}" in output
        assert output.startswith("% needs")

    def test_what_latex_lacks_is_named(self):
        output = latex(Grid("雪 and ☃ and 雪", (), ()))
        assert output.startswith("% pdfLaTeX can't typeset 雪 ☃: give that arm another label, or use LuaLaTeX\n% needs")

    def test_no_package_but_booktabs(self):
        used = set(re.findall(r"\\([a-z]+)", write(make(make_study(SGD), ended={("sgd", 0): None}), "latex"), re.I))
        plain = {"begin", "end", "centering", "caption", "label", "shortstack", "pm", "beta", "epsilon", "times"}
        small = {"usepackage", "par", "medskip", "footnotesize", "raggedright", "small", "setlength", "tabcolsep"}
        assert used <= plain | small | {"toprule", "midrule", "bottomrule"}

    def test_the_caption_says_what_it_is_and_the_sentences_stand_below(self):
        output = write(make(), "latex")
        study = make_study()
        assert rf"\caption{{made\_up@{study.hash[:8]}: results of each arm.}}" in output
        assert r"\label{tab:made-up}" in output
        below = next(line for line in output.splitlines() if r"\raggedright" in line)
        assert "Mean $\\pm$ sample standard deviation over 3 of 3 seeds an arm." in below
        assert output.index(r"\end{tabular}") < output.index(below) < output.index(r"\end{table}")

    def test_labels_hold_nothing_that_latex_obeys(self):
        for name in ("a}\\input{x", "ß β", "", "%#", "x" * 500):
            label = re.search(r"\\label\{(.*)\}", latex(Grid(name, (), ())))[1]
            assert re.fullmatch(r"tab:[a-z0-9-]{1,60}", label)

    def test_a_minus_is_no_hyphen(self):
        output = latex(Grid("-0.24 to 5.16, (-1.5), 2026-11-27, high-beta, 1e-8, seeds 3-5, x-2", (), ()))
        assert r"$-0.24$ to 5.16, ($-1.5$), 2026-11-27, high-beta, 1e-8, seeds 3-5, x-2" in output

    def test_wide_tables_are_set_closer(self):
        def written(cell, more=0):
            names = Column("claim", ("claim",), (("1",), ("2",)))
            texts = Column("between", ("between",), ((cell,), ("x",)))
            numbers = [Column(str(at), (str(at),), (("-1.25 to 3.5",), ("1",))) for at in range(more)]
            return latex(Grid("study@01234567: claims", (names, texts, *numbers), ()))

        assert r"\tabcolsep" not in written("a short text")
        assert r"\small\setlength{\tabcolsep}" in written("a short text", 4)
        wide = written("a text of more than twenty letters beside others", 4)
        assert r"\footnotesize\setlength{\tabcolsep}" in wide
        assert r"\begin{tabular}{lp{0.18\linewidth}rrrr}" in wide


class TestCsv:
    def read(self, summary):
        return list(csv.DictReader(io.StringIO(write(summary, "csv"))))

    def test_one_row_an_arm_with_exact_fractions(self):
        summary = make(ended={("large_eps", 0): Outcome.FAILED, ("large_eps", 1): None})
        rows = self.read(summary)
        spreads = [f"{name}_{part}" for name in METRICS for part in ("mean", "sd")]
        counts = ["seeds", "finished", "diverged", "failed", "interrupted"]
        counts += ["not_learned", "fell_behind", "not_finite", "missed"]
        assert list(rows[0]) == ["arm", "beta1", "beta2", "eps", *counts, *spreads]
        assert [row["arm"] for row in rows] == [arm.arm for arm in summary.arms]
        assert [rows[3][key] for key in counts] == ["3", "1", "0", "1", "1", "0", "0", "0", "0"]
        assert rows[3]["best_test_acc_sd"] == ""
        for row, arm in zip(rows, summary.arms, strict=True):
            assert float(row["best_test_acc_mean"]) == arm.metrics["best_test_acc"].mean
            assert float(row["beta2"]) == arm.settings["optimizer"]["betas"][1]
        assert float(rows[3]["eps"]) == 1e-6

    def test_without_adam_there_are_no_columns_of_its_settings(self):
        row = self.read(make(make_study({"slow": {}, "fast": {"optimizer": {"lr": 0.1}}}, optimizer={"name": "sgd"})))[
            0
        ]
        assert not {"beta1", "beta2", "eps"} & set(row)

    def test_other_settings_are_named_by_their_place(self):
        rows = self.read(
            make(make_study({**SGD, "n": {"optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True}}}))
        )
        assert (rows[1]["beta1"], rows[1]["eps"]) == ("", "")
        assert [row["optimizer.name"] for row in rows] == ["adam", "sgd", "sgd"]
        assert [row["optimizer.nesterov"] for row in rows] == ["", "false", "true"]


class TestJson:
    def test_the_contract(self):
        study = make_study(("a", "b"), seeds=3)
        summary = make(study, ended={("b", 0): Outcome.DIVERGED, ("b", 1): None})
        content = json.loads(write(summary, "json"))
        assert content["study"] == "made_up"
        assert content["hash"] == study.hash
        a, b = content["arms"]
        assert set(a) == {
            "arm",
            "settings",
            "seeds",
            "finished",
            "diverged",
            "failed",
            "interrupted",
            "not_learned",
            "fell_behind",
            "not_finite",
            "missed",
            "outcomes",
            *METRICS,
        }
        assert a["arm"] == "a"
        assert a["settings"]["optimizer"] == {
            "name": "adam",
            "lr": 0.001,
            "betas": [0.9, 0.999],
            "eps": 1e-8,
            "eps_convention": "torch",
            "weight_decay": 0.0,
        }
        assert a["seeds"] == [0, 1, 2]
        assert (a["finished"], a["diverged"], a["failed"]) == (3, 0, 0)
        best = [max(learning("a", seed, epoch)["test_acc"] for epoch in range(1, 5)) for seed in range(3)]
        assert a["best_test_acc"]["values"] == best
        assert a["best_test_acc"]["mean"] == pytest.approx(sum(best) / 3)
        assert set(a["seconds"]) == {"mean", "sd", "values"}
        assert (b["seeds"], b["finished"], b["diverged"], b["interrupted"]) == ([2], 1, 1, 1)
        assert b["outcomes"] == {"0": "diverged", "1": None, "2": "finished"}
        assert b["seconds"]["sd"] is None

    @pytest.mark.parametrize("odd", [math.nan, math.inf])
    def test_there_is_no_nan_and_no_infinity(self, odd):
        study = make_study(("a",), seeds=2)
        summary = make(study, curve=lambda arm, seed, epoch: dict.fromkeys(("test_acc", "train_loss"), odd))
        output = write(summary, "json")
        (arm,) = json.loads(output, parse_constant=lambda constant: pytest.fail(f"{constant} in JSON"))["arms"]
        assert arm["best_test_acc"] == arm["final_train_loss"] == {"mean": None, "sd": None, "values": [None, None]}


@pytest.mark.parametrize(
    ("label", "tex"),
    [
        ("SGD (lr=0.01)", "SGD (lr=0.01)"),
        ("β₁ = 0.9", r"$\beta_1$ = 0.9"),
        ("Adam, β₁₀²", r"Adam, $\beta_{10}^2$"),
        ("10⁻³ & 5%", r"10$^{-3}$ \& 5\%"),
        ("λ, Λ and ε_max", r"$\lambda$, $\Lambda$ and $\epsilon$\_max"),
        ("x₁", "x$_1$"),
        ("β1", r"$\beta_1$"),
        ("β_12 and β2", r"$\beta_{12}$ and $\beta_2$"),
    ],
)
def test_labels_in_latex(label, tex):
    arms = {"a": {"label": label}, "b": {"optimizer": {"lr": 0.1}}}
    study = make_study(arms, seeds=2)
    view = StudyResults(study, tuple(make_results(study))).verdict()
    assert f"against {tex}" in view.latex()
    assert f"against {label}\n" in view.text(500)
    assert json.loads(view.json())["reference"] == "a"
