"""Importers: read runs that were made elsewhere. `base` is the contract, `runs` groups records into runs."""
