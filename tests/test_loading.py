"""Loading a study from a file, a name or a hash."""

import hashlib
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fairtrial import loading
from fairtrial.errors import StudyError, StudyNotFoundError
from fairtrial.spec import Origin, Study
from fairtrial.store.base import StoredStudy

TEXT = 'name = "mine"\nreference = "a"\n[arms.a]\n[arms.b]\noptimizer.eps = 1e-6\n'


def stored(*studies: Study) -> list[StoredStudy]:
    """As a store lists them, the first ran last."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return [StoredStudy(study.name, study.hash, study.to_toml(), now, 1, {}, 0) for study in studies]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def mine(file):
    return loading.load(file)


def test_shipped_studies_are_valid_and_named_as_their_files():
    assert loading.shipped_studies() == [
        "paper",
        "paper-large-map",
        "paper-pretrained",
        "quick",
        "schedules",
        "schedules-adam",
        "sensitivity",
    ]
    assert [loading.load(name).name for name in loading.shipped_studies()] == loading.shipped_studies()


def test_the_paper_is_the_papers_to_the_letter():
    study = loading.load("paper")
    table = {arm.name: (*arm.settings.optimizer.betas, arm.settings.optimizer.eps) for arm in study.arms}
    assert table == {
        "baseline": (0.9, 0.999, 1e-8),
        "high_beta1": (0.95, 0.999, 1e-8),
        "low_beta2": (0.9, 0.99, 1e-8),
        "large_eps": (0.9, 0.999, 1e-6),
        "very_high_smoothing": (0.99, 0.9999, 1e-7),
    }
    settings = study.settings
    assert (study.reference, study.seeds) == ("baseline", 1)
    assert (settings.data.name, settings.data.train, settings.data.test, settings.data.validation) == (
        "cifar10",
        None,
        None,
        0,
    )
    assert (settings.model.stem, settings.model.flavor, settings.model.width, settings.model.dropout) == (
        "stock",
        "torchvision",
        1.0,
        0.0,
    )
    assert (settings.optimizer.name, settings.optimizer.lr, settings.optimizer.eps_convention) == (
        "adam",
        1e-3,
        "torch",
    )
    assert (settings.training.epochs, settings.training.batch_size) == (10, 64)
    assert (settings.schedule.name, settings.schedule.warmup_epochs) == ("constant", 0.0)


def test_quick_is_the_paper_made_small():
    paper, quick = loading.load("paper"), loading.load("quick")
    assert [arm.name for arm in quick.arms] == [arm.name for arm in paper.arms]
    assert [arm.settings.optimizer for arm in quick.arms] == [arm.settings.optimizer for arm in paper.arms]
    data = quick.settings.data
    assert (data.train, data.test, quick.settings.training.epochs, quick.seeds) == (5000, 1000, 2, 2)


def test_a_file_a_shipped_name_a_stored_name_and_a_label(file, mine):
    other = loading.load(file, ["seeds=5"])
    assert loading.load(str(file)) == mine
    assert loading.load("mine", [], stored(other, mine)) == other
    assert loading.load(mine.label, [], stored(other, mine)) == mine
    assert loading.load("mine", ["training.epochs=2"], stored(mine)) == loading.load(file, ["training.epochs=2"])


def test_to_run_a_shipped_name_means_the_shipped_study():
    changed = loading.load("quick", ["seeds=1"])
    assert loading.load("quick", [], stored(changed)) == loading.load("quick")


def test_to_read_a_bare_name_means_the_one_that_ran_last(file, mine):
    changed = loading.load("quick", ["seeds=1"])
    whole = loading.load("quick")
    assert loading.load_recorded("quick", [], stored(changed, whole)) == changed
    assert loading.load_recorded("quick", ["seeds=2"], stored(changed, whole)) == whole
    assert loading.load_recorded(whole.label, [], stored(changed, whole)) == whole
    assert loading.load_recorded(str(file), [], stored(mine)) == mine


def test_to_read_says_what_the_store_has_instead(mine, file):
    with pytest.raises(StudyNotFoundError) as caught:
        loading.load_recorded(str(file), ["seeds=9"], stored(mine))
    wanted = loading.load(file, ["seeds=9"])
    assert str(caught.value) == f"{wanted.label} has not been run in this store; this store has {mine.label}"


def test_an_unknown_name_lists_the_known_ones(mine):
    with pytest.raises(StudyNotFoundError, match=r"qick: no file, no study .*; known: paper, .*, sensitivity, mine$"):
        loading.load("qick", [], stored(mine))
    with pytest.raises(StudyNotFoundError, match=rf"mine@ffff: .*; known: paper, .*, sensitivity, {mine.label}$"):
        loading.load("mine@ffff", [], stored(mine))


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(StudyNotFoundError, match=r"^none\.toml: No such file or directory$"):
        loading.load("none.toml", [], [])
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyNotFoundError, match=r"^binary\.toml: looks like UTF-16, or is no text; save it as UTF-8$"):
        loading.load("binary.toml", [], [])
    with pytest.raises(StudyNotFoundError, match=r"^\.: Is a directory$"):
        loading.load("./", [], [])


def test_errors_begin_with_the_files_name(file):
    file.write_text(TEXT + "lr = 3\n")
    with pytest.raises(
        StudyError, match=r"mine\.toml: unknown key `lr` in \[arms\.b\]: did you mean `lr` in \[optimizer\]"
    ):
        loading.load(file)


def test_files_named_in_a_study_are_relative_to_it_and_weights_are_pinned(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "w.pt").write_bytes(b"weights")
    extra = 'model.weights = "w.pt"\ndata.path = "images"\n'
    (folder / "s.toml").write_text(extra + TEXT)
    settings = loading.load(folder / "s.toml").settings
    assert settings.model.weights == str(folder / "w.pt")
    assert settings.model.weights_sha256 == hashlib.sha256(b"weights").hexdigest()
    assert settings.data.path == str(folder / "images")
    before = loading.load(folder / "s.toml").hash
    (folder / "w.pt").write_bytes(b"other weights")
    assert loading.load(folder / "s.toml").hash != before
    (folder / "w.pt").unlink()
    with pytest.raises(StudyError, match=r'model\.weights = ".*w\.pt": No such file'):
        loading.load(folder / "s.toml")


def test_a_stated_digest_pins_a_file_that_is_still_relative_to_the_study(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    digest = "0" * 64
    (folder / "s.toml").write_text(f'model = {{ weights = "w.pt", weights_sha256 = "{digest}" }}\n' + TEXT)
    model = loading.load(folder / "s.toml").settings.model
    assert (model.weights, model.weights_sha256) == (str(folder / "w.pt"), digest)


def test_overridden_weights_are_another_study_wherever_the_study_comes_from(file, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode())
    one, two = (loading.load(file, [f"model.weights={name}"]) for name in ("one", "two"))
    assert one.hash != two.hash
    again = loading.load(one.label, ["model.weights=two"], stored(one))
    assert again.settings.model.weights_sha256 == hashlib.sha256(b"two").hexdigest()
    published = loading.load(one.label, ["model.weights=torchvision:IMAGENET1K_V1"], stored(one))
    assert published.settings.model.weights_sha256 is None
    assert again.hash == two.hash


def test_overridden_paths_are_relative_to_where_the_user_stands(file, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert loading.load(file, ["data.path=images"]).settings.data.path == str(tmp_path / "elsewhere" / "images")


def test_a_study_that_no_longer_means_what_it_meant_is_refused(mine):
    (old,) = stored(mine)
    old = replace(old, hash="0" * 64)
    for find in (loading.load_recorded, loading.load):
        for reference in ("mine", old.label):
            with pytest.raises(StudyError, match="mine@00000000: was run by a release with other defaults"):
                find(reference, [], [old])


def test_a_study_knows_where_it_was_read_from(file, mine):
    changed = loading.load(file, ["seeds=5"])
    assert changed.origin == Origin(str(file), ("seeds=5",), file.parent)
    assert loading.load("quick").origin == Origin("quick")
    assert loading.load("mine", [], stored(mine)).origin == Origin()
    assert loading.load("mine", ["seeds=5"], stored(mine)).origin == Origin(None, ("seeds=5",))


def test_where_a_study_was_read_from_is_no_part_of_what_it_is(file, mine):
    moved = mine.with_origin(Origin("elsewhere"))
    built = Study.from_toml(TEXT)
    assert mine == moved == built
    assert mine.hash == moved.hash == built.hash
    assert hash(moved.evidence) == hash(mine.evidence)
    assert mine.origin.source == str(file)


@pytest.mark.parametrize(
    ("loop", "found"),
    [("a_loop_beside:train", True), ("fairtrial", False), ("fairtrial.testing:simulate", False)],
)
def test_modules_beside_a_study_are_found_last_and_only_where_it_names_one(file, loop, found):
    file.write_text(TEXT.replace("[arms.a]", f'training.loop = "{loop}"\n[arms.a]'))
    before = list(sys.path)
    with loading.importable(loading.load(file)):
        assert sys.path == [*before, *([str(file.parent)] if found else [])]
    assert sys.path == before


def test_a_measure_beside_a_study_is_asked_for_too(file):
    measure = "from fairtrial.measures import PLAIN, Measure\nmine = Measure('mine', 'mine', PLAIN, 'higher', len)\n"
    (file.parent / "measures_beside.py").write_text(measure)
    for evidence in ('metric = "measures_beside:mine"', 'also = [{ metric = "measures_beside:mine" }]'):
        file.write_text(f"{TEXT}[evidence]\n{evidence}\n")
        before = list(sys.path)
        study = loading.load(file)
        assert sys.path == before
        with loading.importable(study):
            assert sys.path == [*before, str(file.parent)]


def test_a_study_of_built_in_parts_is_read_without_its_folder_on_the_path(file, monkeypatch):
    seen = []
    parse = loading.override
    monkeypatch.setattr(loading, "override", lambda *given: seen.append(list(sys.path)) or parse(*given))
    loading.load(file)
    assert seen == [sys.path]
