"""What is being learnt: a task joins a network, its loss and its figures, and is all that the engine knows of them."""
