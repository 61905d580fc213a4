"""Ranking metrics of scores, and the statistics that compare them."""
