SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.epoch_records (
    trial character varying(64) NOT NULL,
    epoch integer NOT NULL,
    attempt integer NOT NULL,
    train_loss double precision,
    train_acc double precision,
    test_loss double precision,
    test_acc double precision,
    val_loss double precision,
    val_acc double precision,
    train_seconds double precision,
    eval_seconds double precision,
    extra json
);
CREATE TABLE public.fairtrial_schema (
    version integer NOT NULL
);
CREATE TABLE public.studies (
    hash character varying(64) NOT NULL,
    name text NOT NULL,
    toml text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    last_run_at timestamp with time zone NOT NULL
);
CREATE TABLE public.study_trials (
    study character varying(64) NOT NULL,
    trial character varying(64) NOT NULL,
    "position" integer NOT NULL
);
CREATE TABLE public.trials (
    hash character varying(64) NOT NULL,
    arm text NOT NULL,
    seed integer NOT NULL,
    settings json NOT NULL,
    attempts integer NOT NULL,
    outcome character varying(16),
    detail text NOT NULL,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    machine json,
    fingerprints json
);
INSERT INTO public.epoch_records VALUES ('59d3ebf69cb262a2275d0412fb232d603b287a0fc8d01491b770b071057ec67a', 1, 1, 0.3333333333333333, 0.24285714285714285, 0.3, 0.2, NULL, NULL, 2.5, 0.1, '{"grad_norm": 1e-300, "odd": "inf"}');
INSERT INTO public.epoch_records VALUES ('59d3ebf69cb262a2275d0412fb232d603b287a0fc8d01491b770b071057ec67a', 2, 1, 0.16666666666666666, 0.3857142857142857, 0.3, 0.2, NULL, NULL, 2.5, 0.1, '{"grad_norm": 1e-300, "odd": "inf"}');
INSERT INTO public.epoch_records VALUES ('60c3d4278e82583714a73321a1728e7746d3aa7748f195677653d23e747c9aff', 1, 1, 0.3333333333333333, 0.24285714285714285, 0.3, 0.3111111111111111, NULL, NULL, 2.5, 0.1, 'null');
INSERT INTO public.epoch_records VALUES ('67aba21ffca55ce43dab66a46586d2b58ba75f4e5409c132d244e23985ab187f', 1, 1, 0.3333333333333333, 0.24285714285714285, 0.3, 0.4222222222222222, NULL, NULL, 2.5, 0.1, 'null');
INSERT INTO public.epoch_records VALUES ('3cfbd9035661819e75b214c1ba6aa530697c89ce464928830645065e355a9cf7', 1, 1, 0.3333333333333333, 0.24285714285714285, 0.3, 0.5333333333333333, NULL, NULL, 2.5, 0.1, 'null');
INSERT INTO public.epoch_records VALUES ('10bea78d91d338536c74cc32e11e13b894ee8704a8d03342fc8b740ea4cd41bc', 1, 2, 0.3333333333333333, 0.24285714285714285, 0.3, 0.6444444444444444, NULL, NULL, 2.5, 0.1, 'null');
INSERT INTO public.epoch_records VALUES ('10bea78d91d338536c74cc32e11e13b894ee8704a8d03342fc8b740ea4cd41bc', 2, 2, 0.16666666666666666, 0.3857142857142857, 0.3, 0.6444444444444444, NULL, NULL, 2.5, 0.1, 'null');
INSERT INTO public.fairtrial_schema VALUES (1);
INSERT INTO public.studies VALUES ('1e074ee343de97a89a242691625b7b7f60baa40347148a6af3e9f6168c271faa', 'released', 'name = "released"
reference = "a"
seeds = 2
[data]
name = "cifar10"
validation = 0
subset_seed = 0
[model]
name = "mobilenet_v2"
stem = "stock"
flavour = "torchvision"
width = 1.0
dropout = 0.0
[training]
epochs = 2
batch_size = 64
loop = "loops:good"
[optimizer]
name = "adam"
lr = 0.001
betas = [
    0.9,
    0.999,
]
eps = 1e-08
eps_convention = "torch"
weight_decay = 0.0
[schedule]
name = "constant"
warmup_epochs = 0.0
[arms.a]
[arms.b.params]
pace = 2
[arms.c.params]
pace = 3
[evidence]
metric = "best_test_acc"
alpha = 0.05
', '2026-01-02 03:04:05.000678+00', '2026-01-02 03:04:05.000678+00');
INSERT INTO public.study_trials VALUES ('1e074ee343de97a89a242691625b7b7f60baa40347148a6af3e9f6168c271faa', '59d3ebf69cb262a2275d0412fb232d603b287a0fc8d01491b770b071057ec67a', 0);
INSERT INTO public.study_trials VALUES ('1e074ee343de97a89a242691625b7b7f60baa40347148a6af3e9f6168c271faa', '60c3d4278e82583714a73321a1728e7746d3aa7748f195677653d23e747c9aff', 1);
INSERT INTO public.study_trials VALUES ('1e074ee343de97a89a242691625b7b7f60baa40347148a6af3e9f6168c271faa', '67aba21ffca55ce43dab66a46586d2b58ba75f4e5409c132d244e23985ab187f', 2);
INSERT INTO public.study_trials VALUES ('1e074ee343de97a89a242691625b7b7f60baa40347148a6af3e9f6168c271faa', '3cfbd9035661819e75b214c1ba6aa530697c89ce464928830645065e355a9cf7', 3);
INSERT INTO public.study_trials VALUES ('1e074ee343de97a89a242691625b7b7f60baa40347148a6af3e9f6168c271faa', '10bea78d91d338536c74cc32e11e13b894ee8704a8d03342fc8b740ea4cd41bc', 4);
INSERT INTO public.study_trials VALUES ('1e074ee343de97a89a242691625b7b7f60baa40347148a6af3e9f6168c271faa', 'ea9ee8d1eb207d43411b152ab0e7dd803a1db5aa83d9bd477db8d8ad559ca250', 5);
INSERT INTO public.trials VALUES ('ea9ee8d1eb207d43411b152ab0e7dd803a1db5aa83d9bd477db8d8ad559ca250', 'c', 1, '{"data": {"name": "cifar10", "train": null, "test": null, "validation": 0, "subset_seed": 0}, "model": {"name": "mobilenet_v2", "stem": "stock", "flavour": "torchvision", "width": 1.0, "dropout": 0.0, "weights": null, "weights_sha256": null}, "training": {"epochs": 2, "batch_size": 64, "loop": "loops:good"}, "optimizer": {"name": "adam", "lr": 0.001, "betas": [0.9, 0.999], "eps": 1e-08, "eps_convention": "torch", "weight_decay": 0.0}, "schedule": {"name": "constant", "warmup_epochs": 0.0}, "params": {"pace": 3}}', 0, NULL, '', NULL, NULL, NULL, NULL);
INSERT INTO public.trials VALUES ('3cfbd9035661819e75b214c1ba6aa530697c89ce464928830645065e355a9cf7', 'a', 1, '{"data": {"name": "cifar10", "train": null, "test": null, "validation": 0, "subset_seed": 0}, "model": {"name": "mobilenet_v2", "stem": "stock", "flavour": "torchvision", "width": 1.0, "dropout": 0.0, "weights": null, "weights_sha256": null}, "training": {"epochs": 2, "batch_size": 64, "loop": "loops:good"}, "optimizer": {"name": "adam", "lr": 0.001, "betas": [0.9, 0.999], "eps": 1e-08, "eps_convention": "torch", "weight_decay": 0.0}, "schedule": {"name": "constant", "warmup_epochs": 0.0}, "params": {}}', 1, NULL, '', '2026-01-02 03:07:05.000678+00', NULL, '{"versions": {"python": "3.11.7", "torch": "2.13.0"}, "processor": "a processor", "device": "cpu", "threads": 1, "system": "Linux 6", "git_commit": "abc+", "layers": "plain layers"}', '{"initial_weights": "0000000000000000000000000000000000000000000000000000000000000003", "batch_order": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"}');
INSERT INTO public.trials VALUES ('60c3d4278e82583714a73321a1728e7746d3aa7748f195677653d23e747c9aff', 'b', 0, '{"data": {"name": "cifar10", "train": null, "test": null, "validation": 0, "subset_seed": 0}, "model": {"name": "mobilenet_v2", "stem": "stock", "flavour": "torchvision", "width": 1.0, "dropout": 0.0, "weights": null, "weights_sha256": null}, "training": {"epochs": 2, "batch_size": 64, "loop": "loops:good"}, "optimizer": {"name": "adam", "lr": 0.001, "betas": [0.9, 0.999], "eps": 1e-08, "eps_convention": "torch", "weight_decay": 0.0}, "schedule": {"name": "constant", "warmup_epochs": 0.0}, "params": {"pace": 2}}', 1, 'diverged', 'train_loss is nan in epoch 2, batch 3', '2026-01-02 03:05:05.000678+00', '2026-01-02 03:05:35.250678+00', '{"versions": {"python": "3.11.7", "torch": "2.13.0"}, "processor": "a processor", "device": "cpu", "threads": 1, "system": "Linux 6", "git_commit": "abc+", "layers": "plain layers"}', '{"initial_weights": "0000000000000000000000000000000000000000000000000000000000000001", "batch_order": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"}');
INSERT INTO public.trials VALUES ('59d3ebf69cb262a2275d0412fb232d603b287a0fc8d01491b770b071057ec67a', 'a', 0, '{"data": {"name": "cifar10", "train": null, "test": null, "validation": 0, "subset_seed": 0}, "model": {"name": "mobilenet_v2", "stem": "stock", "flavour": "torchvision", "width": 1.0, "dropout": 0.0, "weights": null, "weights_sha256": null}, "training": {"epochs": 2, "batch_size": 64, "loop": "loops:good"}, "optimizer": {"name": "adam", "lr": 0.001, "betas": [0.9, 0.999], "eps": 1e-08, "eps_convention": "torch", "weight_decay": 0.0}, "schedule": {"name": "constant", "warmup_epochs": 0.0}, "params": {}}', 1, 'finished', '', '2026-01-02 03:04:05.000678+00', '2026-01-02 03:04:35.250678+00', '{"versions": {"python": "3.11.7", "torch": "2.13.0"}, "processor": "a processor", "device": "cpu", "threads": 1, "system": "Linux 6", "git_commit": "abc+", "layers": "plain layers"}', '{"initial_weights": "0000000000000000000000000000000000000000000000000000000000000000", "batch_order": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"}');
INSERT INTO public.trials VALUES ('67aba21ffca55ce43dab66a46586d2b58ba75f4e5409c132d244e23985ab187f', 'c', 0, '{"data": {"name": "cifar10", "train": null, "test": null, "validation": 0, "subset_seed": 0}, "model": {"name": "mobilenet_v2", "stem": "stock", "flavour": "torchvision", "width": 1.0, "dropout": 0.0, "weights": null, "weights_sha256": null}, "training": {"epochs": 2, "batch_size": 64, "loop": "loops:good"}, "optimizer": {"name": "adam", "lr": 0.001, "betas": [0.9, 0.999], "eps": 1e-08, "eps_convention": "torch", "weight_decay": 0.0}, "schedule": {"name": "constant", "warmup_epochs": 0.0}, "params": {"pace": 3}}', 1, 'failed', 'Traceback (most recent call last):
  …
RuntimeError: boom', '2026-01-02 03:06:05.000678+00', '2026-01-02 03:06:35.250678+00', '{"versions": {"python": "3.11.7", "torch": "2.13.0"}, "processor": "a processor", "device": "cpu", "threads": 1, "system": "Linux 6", "git_commit": "abc+", "layers": "plain layers"}', '{}');
INSERT INTO public.trials VALUES ('10bea78d91d338536c74cc32e11e13b894ee8704a8d03342fc8b740ea4cd41bc', 'b', 1, '{"data": {"name": "cifar10", "train": null, "test": null, "validation": 0, "subset_seed": 0}, "model": {"name": "mobilenet_v2", "stem": "stock", "flavour": "torchvision", "width": 1.0, "dropout": 0.0, "weights": null, "weights_sha256": null}, "training": {"epochs": 2, "batch_size": 64, "loop": "loops:good"}, "optimizer": {"name": "adam", "lr": 0.001, "betas": [0.9, 0.999], "eps": 1e-08, "eps_convention": "torch", "weight_decay": 0.0}, "schedule": {"name": "constant", "warmup_epochs": 0.0}, "params": {"pace": 2}}', 2, 'finished', '', '2026-01-02 03:08:05.000678+00', '2026-01-02 03:08:35.250678+00', '{"versions": {"python": "3.11.7", "torch": "2.13.0"}, "processor": "a processor", "device": "cpu", "threads": 1, "system": "Linux 6", "git_commit": "abc+", "layers": "plain layers"}', '{"initial_weights": "0000000000000000000000000000000000000000000000000000000000000004", "batch_order": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"}');
ALTER TABLE ONLY public.epoch_records
    ADD CONSTRAINT epoch_records_pkey PRIMARY KEY (trial, epoch);
ALTER TABLE ONLY public.studies
    ADD CONSTRAINT studies_pkey PRIMARY KEY (hash);
ALTER TABLE ONLY public.study_trials
    ADD CONSTRAINT study_trials_pkey PRIMARY KEY (study, trial);
ALTER TABLE ONLY public.trials
    ADD CONSTRAINT trials_pkey PRIMARY KEY (hash);
CREATE INDEX ix_studies_name ON public.studies USING btree (name);
CREATE INDEX ix_study_trials_trial ON public.study_trials USING btree (trial);
ALTER TABLE ONLY public.epoch_records
    ADD CONSTRAINT epoch_records_trial_fkey FOREIGN KEY (trial) REFERENCES public.trials(hash);
ALTER TABLE ONLY public.study_trials
    ADD CONSTRAINT study_trials_study_fkey FOREIGN KEY (study) REFERENCES public.studies(hash);
ALTER TABLE ONLY public.study_trials
    ADD CONSTRAINT study_trials_trial_fkey FOREIGN KEY (trial) REFERENCES public.trials(hash);
