"""Evaluation: what a checkpoint answers, against what it would score without looking."""
