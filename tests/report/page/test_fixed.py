"""What was held fixed, and what the methods paragraph may say: only what the records show."""

from dataclasses import replace

import pytest

from builders import make_results, make_study
from fairtrial.report.page.fixed import held_fixed, proved
from fairtrial.report.page.material import Material
from fairtrial.report.page.methods import methods
from report.page.pages import small_study

SHARED = ("initial weights", "order of batches")


def paragraph(study, results):
    shown = Material.of(study, results).shown
    return methods(shown.study, shown.results, shown.verdict.data, shown.claims)


def with_reads(results, *reads):
    return [replace(result, reads=tuple(reads)) for result in results]


class TestHeldFixed:
    def test_all_of_fairtrials_own_loop(self):
        study = make_study(("a", "b"))
        rows = dict(held_fixed(study, make_results(study)).rows)
        assert rows["training.batch_size"] == "64"
        assert rows["optimizer.lr"] == "0.001"
        assert "optimizer.eps" not in rows  # in which the arms differ

    def test_of_a_loop_of_ones_own_only_what_it_read(self):
        study, results = small_study({"a": {"gap": 0.1}, "b": {"gap": 0.1, "mean": 0.7}})
        fixed = held_fixed(study, with_reads(results, "params.mean", "params.gap"))
        assert dict(fixed.rows) == {
            "params.gap": "0.1",
            "training.loop": "fairtrial.testing:simulate",
            "training.epochs": "8",
        }
        unread = held_fixed(study, with_reads(results, "params.mean"))
        assert "params.gap" not in dict(unread.rows)
        assert unread.notes[1] == "Set and never read: params.gap."

    def test_what_is_not_known_is_not_listed(self):
        study, results = small_study({"a": {"gap": 0.1}, "b": {"gap": 0.1, "mean": 0.7}})
        fixed = held_fixed(study, results)
        assert set(dict(fixed.rows)) == {"training.loop", "training.epochs"}
        assert fixed.notes == ("The training loop is the study's own, and what it reads of its settings is not known.",)

    def test_epochs_are_not_listed_where_trials_ended_earlier(self):
        study, results = small_study()
        short = [replace(result, epochs=result.epochs[:3]) for result in results]
        assert "training.epochs" not in dict(held_fixed(study, short).rows)


class TestProof:
    def test_every_trial_must_have_reported_it(self):
        study, results = small_study()
        assert proved(study, results) == SHARED
        assert proved(study, [replace(results[0], fingerprints={}), *results[1:]]) == ()

    def test_no_two_arms_of_a_seed_may_differ(self):
        study, results = small_study()
        other = replace(results[0], fingerprints={**results[0].fingerprints, "batch_order": "another"})
        assert proved(study, [other, *results[1:]]) == SHARED[:1]

    def test_one_arm_shares_with_nobody(self):
        assert proved(*small_study({"only": {}})) == ()


class TestMethods:
    def test_it_claims_what_fingerprints_prove(self):
        text, works = paragraph(*small_study())
        assert "At each seed all arms had the same initial weights and order of batches" in text
        assert "[1]" in text
        assert works[0].startswith("[1] C. W. Dunnett")
        assert "significan" not in text

    def test_a_loop_that_reports_none_claims_none(self):
        study, results = small_study()
        text, _ = paragraph(study, [replace(result, fingerprints={}) for result in results])
        assert "initial weights" not in text
        assert "order of batches" not in text
        assert "that they shared anything else was not recorded" in text

    def test_it_names_model_data_optimizer_and_versions_of_training(self):
        study = make_study(("a", "b"))
        text, works = paragraph(study, make_results(study))
        assert (
            "We trained mobilenet_v2 [1] on cifar10 [2] with adam [3] at a learning rate of 0.001 for 4 epochs" in text
        )
        assert "PyTorch 2.13.0" in text
        assert "on a processor" in text
        assert any("MobileNetV2" in work for work in works)

    @pytest.mark.parametrize("number", range(1, 4))
    def test_every_number_has_its_work(self, number):
        study = make_study(("a", "b"))
        text, works = paragraph(study, make_results(study))
        assert f"[{number}" in text or f", {number}]" in text
        assert works[number - 1].startswith(f"[{number}] ")
