"""Stores of studies and their results: the contract, and its implementation in SQL."""
