"""Many runs: here, in processes of this machine, or on a Ray cluster."""
