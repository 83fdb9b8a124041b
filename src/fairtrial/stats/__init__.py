"""Arrays in, frozen results out: what the records say."""
