"""Evaluation of generated pictures against drawings whose factors are known.

metrics/     measures on arrays: bootstrap, recognition, detection, expression vectors, factors, distributions, probes
judges/      the networks that score generated pictures, their data, training and accuracy
encoders/    how well the encoders read pictures: face pack and expression encoder
sets.py      which pictures an evaluation generates, and the true drawings
figures.py   the figures of a model for the three claims, with ceiling and floor
report.py    figures as tables that are saved, compared and printed
evaluate.py  the command: from a saved pipeline to a report
rivals/      models from the literature to compare with
studies/     comparisons of recipes, fusions, codecs, samplers and ways to share attention
"""
