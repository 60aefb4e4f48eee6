"""What channel pruning is compared with, in an environment of its own."""
