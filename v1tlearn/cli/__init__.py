"""The command line: fit, predict, score and report over files, as clusters run them."""
