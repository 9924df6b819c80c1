"""What only a GPU can show, as parts of cases that one command runs: see `suite`."""
