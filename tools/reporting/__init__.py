"""The page that shows one training run, or several beside each other."""
