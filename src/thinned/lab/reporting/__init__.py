"""Tables, pictures and pages made of runs."""
