"""The commands about runs from elsewhere."""

import json

import pytest

TABLE = """optimizer,seed,test_acc
adam,0,0.81
adam,1,0.80
adam,2,0.83
sgd,0,0.84
sgd,1,0.82
sgd,2,0.855
"""
ASKED = ("--arm", "optimizer", "--seed", "seed", "--measure", "test_acc", "--reference", "adam")


@pytest.fixture
def fairtrial(invoke, tmp_path):
    """The command line, under its name, beside `runs.csv`."""
    (tmp_path / "runs.csv").write_text(TABLE)
    return invoke


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "json"])
def test_judge_prints_the_verdict_in_each_format(fairtrial, form):
    status, out, err = fairtrial("judge", "runs.csv", *ASKED, "--margin", "0.01", "--format", form)
    assert (status, err) == (0, "")
    if form == "json":
        assert json.loads(out)["comparisons"][0]["verdict"] == "better"
    else:
        assert "better" in out
        assert "6 runs of runs.csv, made elsewhere" in " ".join(out.split())


def test_judge_says_in_one_line_what_is_missing(fairtrial, tmp_path):
    status, out, err = fairtrial("judge", "runs.csv")
    assert (status, out, err.count("\n")) == (2, "", 1)
    proposed = "fairtrial judge runs.csv --arm optimizer --seed seed --measure test_acc --reference ARM"
    assert f"runs.csv has optimizer, seed, test_acc; for example: {proposed}" in err
    (tmp_path / "my runs").mkdir()
    (tmp_path / "my runs" / "curves.csv").write_text("setting,seed,epoch,train_acc,test_acc\n")
    _, _, err = fairtrial("judge", "my runs/curves.csv")
    assert (
        "fairtrial judge 'my runs/curves.csv' --arm setting --seed seed --epoch epoch --measure final_test_acc "
        "--reference ARM" in err
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("nothing.csv", *ASKED), "nothing.csv: No such file or directory"),
        (("/dev/zero", *ASKED), "/dev/zero: can't be read; it must be a"),
        ((".", *ASKED), ".: can't be read"),
        (("runs.csv", *ASKED, "--margin", "nan"), "--margin"),
        (("runs.csv", *ASKED[:-1], "x"), '--reference "x": no arm has that name'),
    ],
    ids=range(5),
)
def test_judge_refuses_in_one_line(fairtrial, words, line):
    status, out, err = fairtrial("judge", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert line in err
