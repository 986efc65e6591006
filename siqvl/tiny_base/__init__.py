"""Make the tiny base parts that `recipes/tiny.yaml` starts from, from nothing but this repository.

python -m siqvl.tiny_base --out recipes/tiny_base
"""
