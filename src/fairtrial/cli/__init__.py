"""The command line: thin commands over the package, one module for each group."""
