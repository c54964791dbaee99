"""Full scale: a Stable Diffusion 3.5 in the kit's own classes, and an adapter trained on a folder of photographs."""
