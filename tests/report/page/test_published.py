"""The reports in docs/reports: of the studies that they are said to be of, and whole in one small file."""

from pathlib import Path

import pytest

from fairtrial.loading import load

REPORTS = Path(__file__).parents[3] / "docs" / "reports"


@pytest.mark.parametrize(
    ("name", "study", "overrides", "said"),
    [
        ("quick", "quick", [], "10 of 10 trials ended"),
        (
            "replication",
            "paper",
            ["seeds={min=3, max=12}"],
            "low_beta2 is better by 1.33 points (95% interval 0.04 to 2.63)",
        ),
    ],
)
def test_a_published_report_is_of_its_study_and_needs_no_other_file(name, study, overrides, said):
    page = (REPORTS / f"{name}.html").read_text(encoding="utf-8")
    assert load(study, overrides).hash in page
    assert said in page
    assert len(page) < 3_000_000
    assert "default-src 'none'" in page
    assert "<link" not in page
    assert 'src="http' not in page
