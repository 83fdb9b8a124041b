"""The command line: thin commands over `fairtrial.api`, one module for each group."""
