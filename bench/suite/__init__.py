"""The benchmark: contenders and their configurations, sign-in, rounds, and what is told of them."""
