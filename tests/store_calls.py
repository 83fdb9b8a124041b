"""Writing calls of a store, each a transaction of its own."""

from functools import partial


class Calls:
    """Has a store's writer methods: ``Calls(store).begin(trial, "x", machine, now)``."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return partial(self._call, name)

    def _call(self, name, *words, **options):
        return self._store.write(lambda writer: getattr(writer, name)(*words, **options))
