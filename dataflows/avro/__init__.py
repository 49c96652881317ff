"""Avro: schemas from a registry, and the fields of records that are written by them."""
