"""Measurements of the product beside named limits and peers; `python -m bench` runs them."""
