"""What an experiment declares: systems × seeds × budgets."""
