"""One module per verb of the command line; each is imported when its verb is called."""
