"""Training: one loop (loop.py), one kind of recipe (../recipe.py), and an objective for each network.

`fit_…(network, data, recipe)` trains a given network on given data. `train_…(out_dir, …)` also prepares the data,
builds the network and saves it.
"""
