"""The Trainer of Transformers as a training loop, on a tiny text model; transformers_loop.toml is its study.

Nothing is downloaded: the tokenizer and the model are made from configurations, and the sentences from words.
"""

import random
import tempfile

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import fairtrial as ft

THINGS, VERBS = ["food", "room", "film", "book", "train"], ["was", "seemed", "looked", "felt"]
GOOD, BAD = ["good", "great", "lovely", "fine"], ["bad", "awful", "poor", "dull"]
PAD, UNKNOWN = "[PAD]", "[UNK]"
WORDS = [PAD, UNKNOWN, "the", "not", *THINGS, *VERBS, *GOOD, *BAD]


def tokenizer():
    """Make a tokenizer that knows these words."""
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token=PAD, unk_token=UNKNOWN)


def sentences(count, seed):
    """Make sentences such as "the food was not bad", with label 1 if they praise; the same for all trials."""
    draw, read = random.Random(seed), tokenizer()
    examples = []
    for _ in range(count):
        good, negated = draw.random() < 0.5, draw.random() < 0.5
        words = ["the", draw.choice(THINGS), draw.choice(VERBS), *["not"] * negated, draw.choice(GOOD if good else BAD)]
        examples.append({"input_ids": read(" ".join(words))["input_ids"], "labels": int(good != negated)})
    return examples


class Report(TrainerCallback):
    """Reports the evaluation of each epoch, and the training loss that was logged just before."""

    def __init__(self, report):
        self.report = report

    def on_evaluate(self, _arguments, state, _control, metrics, **_others):
        """Report."""
        train_loss = next(logs["loss"] for logs in reversed(state.log_history) if "loss" in logs)
        self.report({"train_loss": train_loss, "test_loss": metrics["eval_loss"], "test_acc": metrics["eval_accuracy"]})


def accuracy(prediction):
    """Compute the fraction of sentences whose label was found."""
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


@ft.reporting
def train(trial, report):
    """Train as always; only the callback is fairtrial's."""
    adam = trial.settings.optimizer
    torch.manual_seed(trial.weights_seed)  # the same initial weights for all arms of a seed
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=16,
        )
    )
    trial.fingerprint(initial_weights=ft.fingerprint(model.state_dict()))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=trial.epochs,
            per_device_train_batch_size=trial.settings.training.batch_size,
            learning_rate=adam.lr,
            adam_beta1=adam.betas[0],
            adam_beta2=adam.betas[1],
            adam_epsilon=adam.eps,
            lr_scheduler_type="constant",
            seed=trial.order_seed,  # the order of batches, and dropout
            eval_strategy="epoch",
            logging_strategy="epoch",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=sentences(640, seed=0),
            eval_dataset=sentences(320, seed=1),
            processing_class=tokenizer(),
            compute_metrics=accuracy,
            callbacks=[Report(report)],
        )
        trainer.remove_callback(PrinterCallback)  # fairtrial shows what is reported
        trainer.train()
