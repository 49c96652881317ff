"""Tests of what records would become, and of the tables that are proposed for them."""
