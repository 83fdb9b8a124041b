"""The live page: a study's progress, curves and verdicts in a browser while it runs; it only reads."""
