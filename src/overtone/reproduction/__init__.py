"""The published tables as a test: sizes and costs (`figures`), and the accuracy of published weights (`accuracy`)."""
