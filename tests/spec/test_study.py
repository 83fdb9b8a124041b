"""Studies: resolution of arms, hashes, TOML round trip and every error's wording."""

import copy
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairtrial.errors import StudyError
from fairtrial.loading import load
from fairtrial.registry import DATASETS
from fairtrial.scheduler import plan
from fairtrial.spec import Claim, Evidence, Study, content, override
from fairtrial.spec.labels import under_labels
from fairtrial.training.datasets.digits import Digits
from fairtrial.training.optimizers.adam import Adam
from fairtrial.training.optimizers.sgd import SGD


def table(**changes):
    """A small valid study; keywords replace top-level keys."""
    base = {"name": "s", "reference": "a", "seeds": 2, "arms": {"a": {}, "b": {"optimizer": {"eps": 1e-6}}}}
    return base | changes


def test_arms_are_differences_from_the_studys_own_settings():
    study = Study.from_dict(
        table(
            optimizer={"lr": 0.01, "betas": [0.8, 0.99]},
            arms={"a": {}, "b": {"optimizer": {"eps": 1e-6}}, "c": {"training": {"epochs": 3}}},
        )
    )
    assert study.arm("a").settings.optimizer == Adam(lr=0.01, betas=(0.8, 0.99))
    assert study.arm("b").settings.optimizer == Adam(lr=0.01, betas=(0.8, 0.99), eps=1e-6)
    assert study.arm("b").changes == ("optimizer.eps",)
    assert study.arm("c").settings.training.epochs == 3


def test_an_aa_arm_has_the_settings_of_another_and_trials_of_its_own():
    plain = Study.from_dict(table())
    study = Study.from_dict(
        table(evidence={"aa": True}, arms={"again": {}, "a": {}, "b": {"optimizer": {"eps": 1e-6}}})
    )
    assert (plain.twins, study.twins) == ({}, {"again": "a"})
    assert Study.from_toml(study.to_toml()) == study
    assert {one.hash for one in plan(plain)} < {one.hash for one in plan(study)}  # those of the other arms stay
    seeds = {one.arm: (one.weights_seed, one.order_seed) for one in plan(study) if one.seed == 1}
    assert seeds == {"a": (1, 1), "b": (1, 1), "again": (1_000_001, 1_000_001)}
    more = Study.from_dict(table(evidence={"aa": True}, arms={"a": {}, "again": {}, "third": {}, "b": {"params": {}}}))
    assert more.twins == {"again": "a", "third": "a", "b": "a"}
    assert len({one.weights_seed for one in plan(more) if one.seed == 0}) == 4


def test_another_kind_of_optimizer_inherits_nothing():
    arms = {"a": {}, "sgd": {"optimizer": {"name": "sgd", "momentum": 0.9}}}
    study = Study.from_dict(table(optimizer={"lr": 0.5, "weight_decay": 0.1}, arms=arms))
    assert study.arm("sgd").settings.optimizer == SGD(momentum=0.9)


def test_naming_the_same_kind_inherits():
    arms = {"a": {}, "b": {"optimizer": {"name": "adam", "eps": 1e-6}}}
    study = Study.from_dict(table(optimizer={"lr": 0.5}, arms=arms))
    assert study.arm("b").settings.optimizer == Adam(lr=0.5, eps=1e-6)


def test_a_batch_of_one_is_fine_where_maps_are_larger():
    study = Study.from_dict(table(data={"train": 65}, model={"stem": "cifar"}))
    assert study.settings.data.train == 65


def test_toml_numbers_are_numbers():
    study = Study.from_toml('name="s"\nreference="a"\noptimizer.eps=1e-8\noptimizer.lr=1\n[arms.a]\n')
    assert study.settings.optimizer == Adam(lr=1.0, eps=1e-8)


SEEDS = (
    "must be an integer of at least 1, a range such as {min = 3, max = 12} or {first = 100, count = 5}, or a list such "
    "as [3, 17, 42]"
)
ERRORS = {
    "betas": ({"optimizer": {"betas": [0.9, 1.2]}}, "optimizer.betas[1] = 1.2: must be in [0, 1)"),
    "arm's betas": (
        {"arms": {"a": {}, "b": {"optimizer": {"betas": [0.9, 1.2]}}}},
        "arms.b.optimizer.betas[1] = 1.2: must be in [0, 1)",
    ),
    "key": ({"training": {"epocs": 1}}, "unknown key `epocs` in [training]: did you mean `epochs`?"),
    "key at the top": ({"epocs": 1}, "unknown key `epocs`: did you mean `epochs` in [training]?"),
    "section": ({"trainin": {}}, "unknown key `trainin`: did you mean `training`?"),
    "arm's key": (
        {"arms": {"a": {}, "b": {"optimizer": {"epsilon": 1}}}},
        "unknown key `epsilon` in [arms.b.optimizer]: did you mean `eps`?",
    ),
    "another kind's key": (
        {"optimizer": {"name": "sgd", "betas": [0.9, 0.9]}},
        "unknown key `betas` in [optimizer]: known: `name`, `lr`, `momentum`, `nesterov`, `weight_decay`",
    ),
    "kind": ({"optimizer": {"name": "adm"}}, 'optimizer.name = "adm": did you mean `adam`?'),
    "data": ({"data": {"name": "svhn"}}, f'data.name = "svhn": known: `{"`, `".join(DATASETS.names())}`'),
    "model": ({"model": {"name": "mobilenet"}}, 'model.name = "mobilenet": did you mean `mobilenet_v2`?'),
    "schedule": ({"schedule": {"name": "cos"}}, 'schedule.name = "cos": did you mean `cosine`?'),
    "name of a kind": ({"schedule": {"name": 5}}, "schedule.name = 5: must be a string"),
    "choice": ({"model": {"stem": "big"}}, 'model.stem = "big": must be "stock" or "cifar"'),
    "whole": ({"training": {"epochs": 2.5}}, "training.epochs = 2.5: must be an integer"),
    "positive": ({"training": {"epochs": 0}}, "training.epochs = 0: must be an integer of at least 1"),
    "string for number": ({"optimizer": {"lr": "1e-3"}}, 'optimizer.lr = "1e-3": must be a number'),
    "bool for number": ({"optimizer": {"lr": True}}, "optimizer.lr = true: must be a number"),
    "nan": ({"optimizer": {"eps": math.nan}}, "optimizer.eps = nan: must be in [0, inf)"),
    "infinity": ({"optimizer": {"lr": math.inf}}, "optimizer.lr = inf: must be in (0, inf)"),
    "short list": ({"optimizer": {"betas": [0.9]}}, "optimizer.betas[1]: is missing"),
    "long list": (
        {"optimizer": {"betas": [0.9, 0.9, 0.9]}},
        "optimizer.betas = [0.9, 0.9, 0.9]: must have 2 entries",
    ),
    "no table": ({"training": 5}, "training = 5: must be a table"),
    "no kind's table": ({"optimizer": 5}, "optimizer = 5: must be a table"),
    "missing key": ({"schedule": {"name": "multistep"}}, "schedule.milestones: is missing"),
    "no seeds": ({"seeds": 0}, f"seeds = 0: {SEEDS}"),
    "bool seeds": ({"seeds": True}, f"seeds = true: {SEEDS}"),
    "empty list of seeds": ({"seeds": []}, f"seeds = []: {SEEDS}"),
    "name": ({"name": "a b"}, 'name = "a b": must be a name of letters, digits, `_`, `-` and `.`'),
    "reference": ({"reference": "aa"}, 'reference = "aa": no arm has that name; did you mean `a`?'),
    "no arms": ({"arms": {}}, "arms: must be a table with at least one arm, such as [arms.baseline]"),
    "arm's name": (
        {"arms": {"a": {}, "b.c": {}}},
        'arms."b.c": an arm\'s name is made of letters, digits, `_` and `-`',
    ),
    "arm no table": ({"arms": {"a": {}, "b": 3}}, "arms.b = 3: must be a table of settings"),
    "no twins": (
        {"evidence": {"aa": True}},
        "evidence.aa = true: no two arms have the same settings; add one, such as [arms.again]",
    ),
    "twins": (
        {"arms": {"a": {}, "b": {"optimizer": {"eps": 1e-8}}}},
        "arms.b: has the same settings as arms.a; arms must differ, unless evidence.aa = true",
    ),
    "too many images": (
        {"data": {"train": 50_000, "validation": 1}},
        "data: train + validation = 50001: cifar10 has 50000 training images",
    ),
    "too many tests": ({"data": {"test": 20_000}}, "data: test = 20000: cifar10 has 10000 test images"),
    "warm-up": (
        {"schedule": {"warmup_epochs": 11}},
        "schedule.warmup_epochs = 11.0: must not exceed training.epochs = 10",
    ),
    "nesterov": (
        {"optimizer": {"name": "sgd", "nesterov": True}},
        "optimizer: nesterov = true needs a momentum above 0",
    ),
    "milestones": ({"schedule": {"name": "step", "milestones": [3, 2]}}, "schedule: milestones must rise"),
    "loop": ({"training": {"loop": "my loop"}}, 'training.loop = "my loop": must be "fairtrial" or "module:function"'),
    "params": (
        {"params": {"k": 1}},
        "params: fairtrial's own training loop takes none; name yours in training.loop",
    ),
    "a batch of one": (
        {"data": {"train": 65}},
        (
            "training.batch_size = 64: 65 training images leave a batch of one, which batch normalization can't train "
            "on with the stock stem"
        ),
    ),
    "two at once": (
        {"training": {"epochs": 0, "batch_size": 0}},
        (
            "training.epochs = 0: must be an integer of at least 1; "
            "training.batch_size = 0: must be an integer of at least 1"
        ),
    ),
}


@pytest.mark.parametrize(("changes", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_an_error_names_the_key_its_place_and_what_is_allowed(changes, message):
    with pytest.raises(StudyError) as caught:
        Study.from_dict(table(**changes))
    assert str(caught.value) == message


@pytest.mark.parametrize("key", ["name", "reference", "arms"])
def test_a_missing_key_is_named(key):
    incomplete = table()
    del incomplete[key]
    with pytest.raises(StudyError, match=f"^{key}: is missing$"):
        Study.from_dict(incomplete)


def test_toml_that_does_not_parse_says_where():
    with pytest.raises(StudyError, match=r"not valid TOML: .*line 2, column 8"):
        Study.from_toml('name = "s"\narms = ]\nseeds = 1')


def test_an_unknown_arm_is_named():
    with pytest.raises(StudyError, match="s has no arm `bb`: did you mean `b`"):
        Study.from_dict(table(arms={"a": {}, "b": {"seeds": 1}} | {"b": {"optimizer": {"lr": 1}}})).arm("bb")


unit = st.floats(0, 1, exclude_max=True)
rate, widths = st.floats(1e-12, 1e3), st.floats(0.1, 16)
#: Even numbers of images and of images a batch leave no batch of one.
even = st.integers(1, 499).map(lambda half: 2 * half)
adam_changes = st.fixed_dictionaries(
    {"name": st.just("adam")},
    optional={
        "lr": rate,
        "betas": st.lists(unit, min_size=2, max_size=2),
        "eps": st.floats(0, 1),
        "eps_convention": st.sampled_from(["torch", "keras"]),
    },
)
sgd_changes = st.fixed_dictionaries({"name": st.just("sgd")}, optional={"lr": rate, "momentum": unit})
changes = st.fixed_dictionaries(
    {},
    optional={
        "optimizer": adam_changes | sgd_changes,
        "training": st.fixed_dictionaries({}, optional={"epochs": st.integers(1, 99), "batch_size": even}),
        "data": st.fixed_dictionaries({}, optional={"train": even, "validation": even}),
        "model": st.fixed_dictionaries(
            {}, optional={"stem": st.sampled_from(["stock", "cifar"]), "width": st.floats(0.1, 16)}
        ),
        "schedule": st.just({"name": "cosine", "final": 0.1}) | st.just({"name": "step", "milestones": [1, 2]}),
    },
)
arm_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}", fullmatch=True)


@given(name=names, own=changes, arms=st.dictionaries(arm_names, changes, min_size=1, max_size=4), data=st.data())
def test_a_study_survives_toml(name, own, arms, data):
    """Whatever study is valid: writing and reading it gives an equal study with an equal hash."""
    reference = data.draw(st.sampled_from(sorted(arms)))
    arms = {name: arm | {"model": {"dropout": 1 - 1 / (2 + n)}} for n, (name, arm) in enumerate(arms.items())}
    study = Study.from_dict({"name": name, "reference": reference, "seeds": 3, "arms": arms} | own)
    again = Study.from_toml(study.to_toml())
    assert again == study
    assert again.hash == study.hash
    assert [arm.name for arm in again.arms] == list(arms)


def test_the_hash_covers_all_that_decides_a_run():
    base = Study.from_dict(table())
    others = [
        {"name": "t"},
        {"seeds": 3},
        {"reference": "b"},
        {"optimizer": {"lr": 0.1}},
        {"arms": {"a": {}, "c": {"optimizer": {"eps": 1e-6}}}},
    ]
    hashes = {Study.from_dict(table(**other)).hash for other in others} | {base.hash}
    assert len(hashes) == len(others) + 1


def test_the_hash_is_of_resolved_settings():
    """Spelling a default out changes nothing; so a default that changes later changes the hash."""
    assert Study.from_dict(table()).hash == Study.from_dict(table(optimizer={"lr": 1e-3})).hash
    assert content(Study.from_dict(table()).settings)["optimizer"]["lr"] == 1e-3


def test_places_are_no_settings():
    digest = "0" * 64
    here = Study.from_dict(table(data={"path": "here"}, model={"weights": "x", "weights_sha256": digest}))
    there = Study.from_dict(table(data={"path": "there"}, model={"weights": "y", "weights_sha256": digest}))
    assert here.hash == there.hash


#: Hashes of the studies that ship and of the first trial, from before optimizers, schedules, models and data sets had
#: registries. Their TOML has the keys that came later, and the same hash.
RECORDED = {
    "paper": (
        "d4b45a5edc429b11cc98f2433bcb1d01afc463d5e817120faf3814dd32ed59a6",
        "fb3e61768d779d891726f57eeacc91821e3fd27b7ce65c827127cfc263af16b8",
    ),
    "quick": (
        "943dd38efe39dc22433e803e7c9876b06daaca63dbc41d1d7d7d6947c7828d6c",
        "bfb2f7ca6e870a361f04c8588a7282df804f1ae52c57379f6eb15a51984dfa2b",
    ),
    "every kind": (
        "2d2d7b3c48e6afb4968c990f02ccadcacde54a59d3db9d31de371b6552d67c1e",
        "a2f974273ebd852404e6a57859226d87babe4eade8eaa2dd2d95016efe091fba",
    ),
}
EVERY_KIND = {
    "name": "s",
    "reference": "a",
    "seeds": 2,
    "data": {"name": "digits", "train": 64, "validation": 5},
    "schedule": {"name": "cosine", "warmup_epochs": 1},
    "model": {"stem": "cifar", "flavour": "keras"},
    "arms": {
        "a": {},
        "b": {"optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True}},
        "c": {
            "optimizer": {"name": "adamw", "eps_convention": "keras"},
            "schedule": {"name": "step", "milestones": [1, 2]},
        },
    },
}


@pytest.mark.parametrize("name", RECORDED)
def test_studies_and_trials_are_the_ones_they_were(name):
    study = Study.from_dict(EVERY_KIND) if name == "every kind" else load(name)
    assert (study.hash, plan(study)[0].hash) == RECORDED[name]
    assert Study.from_toml(study.to_toml()).hash == study.hash


@pytest.mark.parametrize("seconds", [0, 7.5])
@pytest.mark.parametrize("loop", ["fairtrial", "loops:good"])
def test_how_often_a_trial_is_saved_is_no_part_of_a_hash(seconds, loop):
    table = {"name": "s", "reference": "a", "arms": {"a": {}}}
    plain = Study.from_dict(table | {"training": {"loop": loop}})
    saved = Study.from_dict(table | {"training": {"loop": loop, "checkpoint_seconds": seconds}})
    assert saved.hash == plain.hash
    assert [trial.hash for trial in plan(saved)] == [trial.hash for trial in plan(plain)]
    assert Study.from_toml(saved.to_toml()).settings.training.checkpoint_seconds == seconds
    assert "checkpoint_seconds" not in plain.to_toml()


@pytest.mark.parametrize("later", [{"evaluations_last_epoch": 2}, {"recalibrate_batch_norm": True}, {"ema": 0.999}])
def test_a_key_that_came_later_is_hashed_only_if_it_is_set(later):
    plain, changed = Study.from_dict(table()), Study.from_dict(table(training=later))
    assert "ema" not in content(plain.settings)["training"]
    assert changed.hash != plain.hash
    assert plan(changed)[0].hash != plan(plain)[0].hash
    defaults = {"evaluations_last_epoch": 1, "recalibrate_batch_norm": False}
    assert Study.from_dict(table(training=defaults)).hash == plain.hash
    assert Study.from_toml(changed.to_toml()) == changed


@pytest.mark.parametrize("spelling", ["flavor", "flavour"])
def test_both_spellings_are_one_key(spelling):
    before = Study.from_dict(table(arms={"a": {}, "b": {"model": {"flavour": "keras"}}}))
    study = Study.from_dict(table(arms={"a": {}, "b": {"model": {spelling: "keras"}}}))
    assert study == before
    assert study.hash == before.hash
    assert study.arm("b").settings.model.flavor == "keras"
    for other in ("flavor", "flavour"):
        changed = Study.from_dict(override(table(model={spelling: "keras"}), [f"model.{other}=torchvision"]))
        assert changed.settings.model.flavor == "torchvision"
    own = Study.from_dict(table(model={spelling: "keras"}, arms={"a": {}, "b": {"model": {"flavor": "torchvision"}}}))
    assert Study.from_toml(own.to_toml()) == own


def test_both_spellings_at_once_are_an_error():
    with pytest.raises(StudyError, match=r"unknown key `flavour` in \[model\]: did you mean `flavor`"):
        Study.from_dict(table(model={"flavour": "keras", "flavor": "keras"}, arms={"a": {}}))


def test_a_study_built_in_python_is_the_one_from_a_file():
    sections = {
        "data": Digits(train=64, test=20),
        "optimizer": Adam(lr=0.01),
        "evidence": Evidence(margin=0.01),
        "claims": [Claim(id="1", text="b wins", arm="b", against="a", metric="final_test_acc", direction="higher")],
    }
    built = Study(
        name="s", reference="a", seeds=2, arms={"a": {}, "b": {"optimizer": SGD(momentum=0.5)}, "c": CLOSER}, **sections
    )
    assert Study.from_toml(built.to_toml()) == built
    assert built.arm("b").settings.optimizer == SGD(momentum=0.5)
    assert built.arm("c").settings.optimizer == Adam(lr=0.01, eps=1e-6)
    assert built.evidence.margin == 0.01
    written = Study.from_toml(
        'name="s"\nreference="a"\nseeds=2\n[data]\nname="digits"\ntrain=64\ntest=20\n[optimizer]\nlr=0.01\n'
        "[evidence]\nmargin=0.01\n[arms.a]\n[arms.b]\noptimizer={name='sgd', momentum=0.5}\n[arms.c]\n"
        "optimizer.eps=1e-6\n[[claims]]\nid='1'\ntext='b wins'\narm='b'\nagainst='a'\nmetric='final_test_acc'\n"
        "direction='higher'\n"
    )
    assert built.hash == written.hash
    assert [arm.settings for arm in built.arms] == [arm.settings for arm in written.arms]


CLOSER = {"optimizer": Adam(eps=1e-6)}


@pytest.mark.parametrize(("changes", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_a_study_built_in_python_is_checked_as_a_file_is(changes, message):
    with pytest.raises(StudyError) as caught:
        Study(**table(**changes))
    assert str(caught.value) == message


def test_a_study_survives_being_copied_and_sent():
    study = Study(**EVERY_KIND)
    for again in (pickle.loads(pickle.dumps(study)), copy.deepcopy(study), study.model_copy()):
        assert again == study
        assert again.hash == study.hash


LABELED = {
    "reference": "a",
    "arms": {"a": {"label": "Adam, β₁ = 0.9"}, "b": {"label": "SGD", "optimizer": {"name": "sgd", "lr": 0.1}}},
}


def test_labels_are_no_part_of_hashes():
    plain = Study.from_dict({"name": "s", **LABELED, "arms": {"a": {}, "b": {"optimizer": {"name": "sgd", "lr": 0.1}}}})
    labeled = Study.from_dict({"name": "s", **LABELED})
    assert labeled.hash == plain.hash
    assert [trial.hash for trial in plan(labeled)] == [trial.hash for trial in plan(plain)]
    assert [arm.label for arm in labeled.arms] == ["Adam, β₁ = 0.9", "SGD"]
    assert Study.from_toml(labeled.to_toml()) == labeled
    assert Study.from_dict(override(labeled.to_dict(), ["arms.b.label=SGD (lr = 0.1)"])).hash == plain.hash


def test_a_study_under_its_labels_is_the_same_with_other_names():
    claim = {"id": "1", "text": "t", "arm": "b", "against": "a", "direction": "higher"}
    every = claim | {"id": "2", "against": "all others"}
    study = Study.from_dict({"name": "s", **LABELED, "claims": [claim, every], "reported": {"b": {"best_test_acc": 1}}})
    assert not study.twins
    shown = under_labels(study)
    assert (shown.hash, shown.label, shown.reference) == (study.hash, study.label, "Adam, β₁ = 0.9")
    assert [arm.name for arm in shown.arms] == ["Adam, β₁ = 0.9", "SGD"]
    assert [(one.arm, one.against) for one in shown.claims] == [("SGD", "Adam, β₁ = 0.9"), ("SGD", "all others")]
    assert shown.figure("SGD", "best_test_acc") == 1.0
    assert [arm.settings for arm in shown.arms] == [arm.settings for arm in study.arms]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"a": 3}, 'arms.a.label = 3: must be a line of text, such as "SGD (lr = 0.01)"'),
        ({"a": " "}, 'arms.a.label = " ": must be a line of text, such as "SGD (lr = 0.01)"'),
        ({"a": "x", "b": "x"}, 'arms.b.label: arms.a is called "x" too'),
        ({"a": "b"}, 'arms.b.label: arms.a is called "b" too'),
    ],
)
def test_a_label_that_cannot_be(labels, message):
    arms = {"a": {}, "b": {"optimizer": {"lr": 0.1}}}
    for name, label in labels.items():
        arms[name] = arms[name] | {"label": label}
    with pytest.raises(StudyError) as caught:
        Study.from_dict({"name": "s", "reference": "a", "arms": arms})
    assert str(caught.value) == message
