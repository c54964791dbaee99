"""Training: one loop (loop.py), one kind of recipe (../recipe.py), and an objective for each network.

`fit_…(network, data, recipe)` trains a network that is there. `train_…(out_dir, …)` does the whole: data, network,
`fit_…`, saving.
"""
