"""`thinned reproduce`: rebuild an experiment of the sources, publish its figures."""
