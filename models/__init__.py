"""Features, learners, scorers and decisions: pure code over numpy arrays."""
