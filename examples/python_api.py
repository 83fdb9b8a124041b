"""Run a study and read what came of it, all in Python."""

import fairtrial as ft

# The study that ships as "quick", on scikit-learn's digits in place of CIFAR-10, and smaller: it takes seconds.
smaller = ["data.name=digits", "data.train=200", "data.test=100", "training.epochs=1", "seeds=2", "model.width=0.25"]
study = ft.load("quick", smaller)

# The inline executor trains in this process; leave it out to train in a worker process a core.
results = ft.run(study, store="fairtrial.db", executor=ft.InlineExecutor())

print(results.table())
print(results.verdict())
results.plot("test_acc").chart.save("test_accuracy.svg")
results.export("records.csv")
print(results.to_pandas().groupby("arm")["test_acc"].max())
print(f"{results.trained} trials trained; digest {results.digest()}")

# A study that has been run can be read again at any time.
again = ft.open_results(study, store="fairtrial.db")
assert again.digest() == results.digest()
