"""Drawing of reports: curves, matrices and bars from plain data."""
