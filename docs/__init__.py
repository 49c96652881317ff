"""The documentation, and the script that makes the parts of it that follow from the code."""
