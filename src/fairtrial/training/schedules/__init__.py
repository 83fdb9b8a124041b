"""Learning-rate schedules: one module each, with its settings and its formula."""
