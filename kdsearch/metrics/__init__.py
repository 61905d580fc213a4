"""Ranking metrics of scores, and statistics that compare them."""
