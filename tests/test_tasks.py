"""Studies over several tasks: one file, a study for each task, and the mean over them."""

import json

import numpy as np
import pytest

import fairtrial
from fairtrial.errors import StudyError
from fairtrial.stats.judge import judge
from fairtrial.stats.looks import REMAINDER, LookPlan
from fairtrial.stats.sequential import judge_many
from fairtrial.tasks import of_studies
from fairtrial.testing import executor

FILE = """
name = "mine"
reference = "a"
seeds = 5
training = { loop = "fairtrial.testing:simulate", epochs = 3 }
evidence = { metric = "final_test_acc", margin = 0.01, alpha = 0.06 }
[tasks.easy]
params.mean = 0.9
[tasks.hard]
params.mean = 0.6
params.noise_sd = 0.02
[arms.a]
[arms.b]
params.seconds = 11.0
[arms.dies]
params.diverge_seeds = [1]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def results(file):
    studies = fairtrial.load_tasks(file)
    return of_studies({name: fairtrial.run(study, executor=executor()) for name, study in studies.items()})


def test_each_task_is_a_study_of_the_same_arms(file):
    easy, hard = fairtrial.load_tasks(file, ["tasks.hard.training.epochs=4"]).values()
    assert (easy.name, hard.name) == ("mine.easy", "mine.hard")
    assert [arm.name for arm in easy.arms] == [arm.name for arm in hard.arms] == ["a", "b", "dies"]
    assert easy.arm("b").settings.params == {"mean": 0.9, "seconds": 11.0}
    assert (easy.settings.training.epochs, hard.settings.training.epochs) == (3, 4)
    assert easy.evidence.alpha == hard.evidence.alpha == pytest.approx(0.02)
    assert fairtrial.load(file, ["task=hard"]).hash == fairtrial.load_tasks(file)["hard"].hash


def test_a_file_without_tasks_has_none(file):
    file.write_text(FILE.replace("[tasks.easy]", "[params]").partition("[tasks.hard]")[0] + "[arms.a]\n")
    assert fairtrial.load_tasks(file) == {}
    assert fairtrial.open_tasks(file) is None
    assert fairtrial.load_tasks("quick") == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("", "", "has tasks: name one with --set task=easy; run and verdict take all of them"),
        ('name = "mine"', 'name = "mine"\ntask = "esy"', 'task = "esy": did you mean `easy`?'),
        ("[tasks.hard]", "[tasks.easy.params2]", "tasks: needs at least two; of a single one, write"),
        ("[tasks.easy]\nparams.mean = 0.9", "tasks.easy = 3", "must be tables of settings, such as [tasks.digits]"),
    ],
)
def test_errors_name_the_file_and_what_to_do(file, old, new, message):
    file.write_text(FILE.replace(old, new, 1))
    with pytest.raises(StudyError) as caught:
        fairtrial.load(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)


def test_the_verdict_over_all_tasks_is_that_of_the_mean_difference(results):
    view = results.verdict()
    values = {
        (task, one.arm, one.seed): one.epochs[-1].metrics["test_acc"]
        for task, runs in results.tasks.items()
        for one in runs.results
        if one.outcome == "finished"
    }
    table = [
        [
            np.mean([values.get((task, arm, seed), np.nan) - values[task, "a", seed] for task in results.tasks])
            for arm in ("b", "dies")
        ]
        for seed in range(5)
    ]
    expected = judge(table, 0.01, 0.02, [5], arms=["b", "dies"], share=1 - REMAINDER)
    found = view.data.comparisons
    assert [row.interval for row in found] == [pytest.approx(row.interval) for row in expected]
    assert view.data.alpha == pytest.approx(0.02)
    (each,) = view.answers
    assert [one.against for one in each.verdicts] == ["a on easy", "a on hard"]
    alone = results.tasks["hard"].verdict().data.comparisons
    assert each.verdicts[1].comparisons == alone


def test_a_seed_lost_on_any_task_counts_against_the_arm(results):
    row = results.verdict().data.comparisons[1]
    assert "It lost seed 1, which counts against it." in row.caveats
    assert row.verdict in {"worse", "undecided"}
    assert results.verdict().data.lost == {"dies": {"diverged": 2}}


def test_tasks_that_differ_in_more_than_a_task_have_no_mean(results, file):
    file.write_text(FILE.replace("[tasks.easy]", "[tasks.easy]\nseeds = 4"))
    studies = fairtrial.load_tasks(file)
    runs = {name: fairtrial.run(study, executor=executor()) for name, study in studies.items()}
    with pytest.raises(StudyError, match=r"tasks\.hard: seeds must be that of the other tasks"):
        of_studies(runs).verdict()


def test_both_are_written(results):
    text = " ".join(results.verdict().text(120).split())
    assert "final test accuracy, against a over all tasks" in text
    assert "b against a on hard: undecided" in text
    assert "A difference is the mean of those on easy and hard, with equal weight." in text
    assert "The tasks and the mean over them share alpha equally: 2%." in text
    table = json.loads(results.verdict().json())
    assert table["study"] == "mine"
    assert table["questions"][0]["question"] == "tasks"


def test_arms_that_differ_on_no_task_are_seldom_told_apart():
    """One task is five times as noisy as the other, and their noise is correlated."""
    noise = np.random.default_rng(6).standard_normal((4_000, 8, 4, 2))
    noise[..., 1] = 5 * (0.6 * noise[..., 0] + 0.8 * noise[..., 1])
    differences = (noise[:, :, 1:] - noise[:, :, :1]).mean(axis=3)
    false = judge_many(differences, LookPlan.of(3, range(3, 9))).finding.any(axis=1).mean()
    assert false <= 0.05 + 3 * (0.05 * 0.95 / 4_000) ** 0.5


def test_a_task_that_was_looked_at_more_often_decides_how_looks_count(results, file):
    more = fairtrial.load(file, ["task=hard", "seeds=7"])
    fairtrial.run(more, executor=executor())
    runs = {
        name: fairtrial.run(one, executor=executor()) for name, one in fairtrial.load_tasks(file, ["seeds=7"]).items()
    }
    alone = {name: one.verdict().data for name, one in runs.items()}
    whole = of_studies(runs).verdict().data
    assert whole.stage == max(one.stage for one in alone.values()) == 2
    assert (whole.looks, whole.part) == (alone["hard"].looks, alone["hard"].part)
    assert whole.part < results.verdict().data.part


def test_runs_that_are_not_paired_have_no_mean_over_tasks(file):
    with pytest.raises(StudyError, match=r"evidence.paired = false: the mean over \[tasks\] is taken at each seed"):
        fairtrial.load_tasks(file, ["evidence.paired=false"])


def test_the_verdict_plot_shows_all_tasks_together_and_each(results):
    figure = results.plot()
    over, easy, hard = figure.data.values()
    assert list(figure.data) == ["over all tasks", "easy", "hard"]
    for data, found in (
        (over, results.verdict().data),
        *zip((easy, hard), results.verdict().answers[0].verdicts, strict=True),
    ):
        assert [(arm.arm, arm.mean, arm.interval) for arm in data.arms] == [
            (row.arm, row.mean_difference, row.interval) for row in found.comparisons
        ]
    b = over.arms[0].by_seed
    assert b == pytest.approx(
        {seed: (easy.arms[0].by_seed[seed] + hard.arms[0].by_seed[seed]) / 2 for seed in range(5)}
    )
    assert sum(b.values()) / 5 == pytest.approx(over.arms[0].mean)
    assert 1 not in over.arms[1].by_seed
    titles = [part["title"]["text"] for part in figure.chart.to_dict()["vconcat"]]
    assert titles == ["over all tasks", "easy", "hard"]
    assert figure.title == "Final test accuracy: difference from a, over all tasks and on each"
