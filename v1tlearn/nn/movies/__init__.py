"""Models of movies: what convolves in time, and the networks made of it."""
